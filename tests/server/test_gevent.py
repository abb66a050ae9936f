"""A program that gevent has patched: values are right, and operations keep their time limits while a server hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from nearcache.testing import FaultProxy

pytestmark = pytest.mark.one_server
"""It is the program that is patched, not the server."""

TIMEOUT = 0.3
PATCHED = """
    from gevent import monkey
    monkey.patch_all()
    import json, sys, time
    import gevent
    from nearcache import NearCache

    cache = NearCache.from_url(
        sys.argv[1], namespace=sys.argv[2], redis_timeout=0.3, breaker_reset=0.01, max_connections=4
    )
    heard = lambda: gevent.get_hub().threadpool.apply(sys.stdin.readline)  # while other greenlets go on
    say = lambda *words: print(json.dumps(words), flush=True)
    sets = [cache.set(f"k{number}", number) for number in range(200)]
    cache.clear_local()
    jobs = [gevent.spawn(cache.get, f"k{number}") for number in range(200)]
    gevent.joinall(jobs)
    loads = []
    def load():
        loads.append(1)
        time.sleep(0.05)
        return "loaded"
    flights = [gevent.spawn(cache.get_or_set, "flight", load) for _ in range(20)]
    limited = [gevent.spawn(cache.get_or_set, f"limit{n}", load, loader_hard_timeout=5) for n in range(20)]
    gevent.joinall(flights + limited)
    say("right", all(sets), [job.value for job in jobs] == list(range(200)), len(loads) == 21, cache.wait_healthy(5),
        {job.value for job in flights} == {"loaded"}, {job.value for job in limited} == {"loaded"})
    operations = [
        lambda: cache.get("a"), lambda: cache.set("b", 1), lambda: cache.get_or_set("c", lambda: 1),
        lambda: cache.delete("d"), lambda: cache.get_many(["e", "f"]), lambda: cache.mark_stale("g"),
    ]
    ticks = 0
    def tick():
        global ticks
        while True:
            gevent.sleep(0.01)
            ticks += 1
    gevent.spawn(tick)
    for operation in operations:
        cache.get("connected")
        say("hang")
        heard()
        before = ticks
        began = time.monotonic()
        operation()
        took = time.monotonic() - began
        say("took", took, ticks - before)
        heard()
        while cache.health().breaker != "closed":
            time.sleep(0.02)
            cache.get("connected")
    began = time.monotonic()
    cache.close()
    say("closed", time.monotonic() - began)
"""


def test_values_are_right_and_every_operation_keeps_its_limit(proxy: FaultProxy, namespace: str) -> None:
    """Its sockets never block and ignore the kernel's timeouts; other greenlets go on meanwhile."""
    program = [sys.executable, "-c", textwrap.dedent(PATCHED), proxy.url, namespace]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        said: list[Any] = []
        for line in child.stdout:
            said.append(json.loads(line))
            if said[-1][0] == "hang":
                proxy.hold("replies")
            elif said[-1][0] == "took":
                proxy.heal()
            if said[-1][0] in ("hang", "took"):
                child.stdin.write("\n")
        assert child.wait(10) == 0
    assert said[0] == ["right", *[True] * 6]
    took = [one[1:] for one in said if one[0] == "took"]
    assert len(took) == 6
    assert all(seconds < 2 * TIMEOUT + 0.5 for seconds, _ in took), took
    assert all(ticks > 5 for _, ticks in took), took
    assert said[-1][0] == "closed"
    assert said[-1][1] < 3
