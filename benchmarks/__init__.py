"""Benchmarks beside the peers, in one command: ``python -m benchmarks [section ...] [--quick] [--html FILE]``.

What is asked for runs, one section after the other; each prints its tables and says what must hold. At the end stands
the budget, line by line, and the exit code is 0 only if all of it is kept.

    hits         an L1 hit, in ns, beside functools.lru_cache and cachetools
    tiers        loader, L2 and L1 in percentiles, by size of the value
    peers        the same work through twelve other caches            stage, rivals_local, rivals_shared
    concurrency  throughput and latency from 1 to 256 threads and tasks
    memory       bytes of an entry beside the peers
    scale        growth of each cost with entries, tags, instances
    coherence    every write reaches every other L1, and how soon     instance
    races        loads against writes, with the guards off and on
    bus          taking in invalidations; delay and the server's work as instances grow in number
    fleet        24 instances: propagation, server CPU a write        instance, receiver
    blip         a lost bus and what is kept of L1
    pauses       how long readers stop while L1 is emptied
    capacity     how many instances a server carries, worked out from the section bus
    soak         hours of everything at once; a command of its own    soaked

Below the sections: ``timing`` measures statements side by side, ``report`` prints and keeps, ``charts`` and ``page``
draw from the JSON that ``report`` writes (``--json``; ``--from`` draws an earlier one). A new section is a function
``show(report) -> bool`` in a file of its own, named in ``__main__``: it prints by ``report.show(Table(...))``, keeps
its figures by ``report.keep``, its charts by ``report.chart``, and what it promises by ``report.budget``.
"""
