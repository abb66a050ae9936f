"""A server that hangs: how long get, set and a load take, plainly, while signals come, under gevent, on a slow link.

Each case is a child process behind a proxy; one try is an operation right after the server has begun to hang. The
control is the plain case of the same run. A load asks Redis up to three times, until the breaker opens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.took import HEAD, Took

TIMEOUT = 0.25
LINK = 10_000_000
"""Bytes per second."""
OVER_MS = 50.0
"""How much longer than redis_timeout an operation may take, by its p99."""
OPERATIONS = ("get", "set", "load")
CASES = ("plain", "signals", "gevent", "link")
CHILD = """
    import sys
    if sys.argv[3] == "gevent":
        from gevent import monkey
        monkey.patch_all()
    import signal, time
    from nearcache import NearCache

    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], redis_timeout=0.25, breaker_reset=0.01, ttl=60)
    operations = {
        "get": lambda key: cache.get(key),
        "set": lambda key: cache.set(key, 1),
        "load": lambda key: cache.get_or_set(key, lambda: 1),
    }
    if sys.argv[3] == "signals":
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    for number, order in enumerate(sys.stdin):
        if order == "recover\\n":
            until = time.monotonic() + 10
            while cache.health().status != "ok" and time.monotonic() < until:
                cache.get("alive")
                time.sleep(0.02)
            cache.get("alive")
            print(0, flush=True)
            continue
        began = time.perf_counter_ns()
        operations[order.strip()](f"key:{number}")
        print(time.perf_counter_ns() - began, flush=True)
    cache.close()
"""


def play(proxy: FaultProxy, case: str, tries: int) -> dict[str, list[float]]:
    """The ns that each try of a case took, by operation."""
    took: dict[str, list[float]] = {operation: [] for operation in OPERATIONS}
    program = [sys.executable, "-c", textwrap.dedent(CHILD), proxy.url, f"limits-{case}", case]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(order: str) -> float:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{order}\n")
            return float(json.loads(child.stdout.readline()))

        for _ in range(tries):
            for operation in OPERATIONS:
                proxy.heal()
                if case == "link":
                    proxy.limit_replies(LINK)
                ask("recover")
                proxy.hold("replies")
                took[operation].append(ask(operation))
        proxy.heal()
        child.stdin.close()
    return took


def show(report: Report) -> bool:
    """Run, print and keep; whether every operation of every case kept the limit."""
    tries = 5 if report.quick else 20
    rows, kept, well = [], {}, True
    with EmbeddedServer() as server, FaultProxy(server.port) as proxy:
        for case in CASES:
            for operation, ns in play(proxy, case, tries).items():
                took = Took.of(ns)
                rows.append([f"{case}, {operation}", *took.cells()])
                kept[f"{case}, {operation}"] = vars(took)
                well = well and took.p99 <= TIMEOUT * 1e3 + OVER_MS
    notes = [f"redis_timeout {TIMEOUT * 1e3:.0f} ms; signals: one each 0.1 s; link: {LINK / 1e6:.0f} MB/s"]
    report.show(Table("A server that hangs: how long operations take", ["", *HEAD], rows, notes))
    report.keep("limits", kept)
    return well
