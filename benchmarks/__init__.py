"""Benchmarks beside peers, in one command: ``python -m benchmarks [section ...] [--quick] [--html FILE]``.

The sections run one after the other; each prints its tables. At the end the budget is printed line by line, and the
exit code is 0 only if every section found what must hold and every line is kept.

    hits         an L1 hit, in ns, beside functools.lru_cache, cachetools and cachebox
    tiers        loader, L2 and L1 in percentiles, by the size of the value
    peers        the same work with twelve other caches
    concurrency  throughput and latency from 1 to 256 threads and tasks
    memory       bytes of an entry beside the peers
    scale        growth of each cost with entries, tags, instances
    hitratio     lru, s3fifo and the optimum on access traces
    local        the longest insert into a full store
    imports      import nearcache beside import redis
    calls        Python calls of an L2 hit, a miss and a set, counted
    l2           reads and writes over the server beside redis-py
    bus          CPU of taking in invalidations; delay and the server's CPU by the number of instances
    fleet        24 instances: propagation, the server's CPU per write
    pauses       how long readers stop while L1 is emptied
    capacity     how many instances a server carries, worked out from the section bus

``harness`` measures and draws, ``rivals`` has one adapter for each peer, ``sections`` says what is measured. Tables,
verdicts and JSON are those of ``tests.support.report``, which the checker uses too. A new section is a function
``show(report) -> bool`` in a file of its own, named in ``__main__``: it prints by ``report.show(Table(...))``, keeps
its figures by ``report.keep`` and its charts by ``report.chart``, and compares them with limits by ``report.budget``.
What judges correctness under faults is in ``tests.torture.scenarios``.
"""
