"""How many Python calls an L2 hit, a miss with a lease and a set of NearCache make: counted, not timed.

``sys.setprofile`` counts the calls of Python functions in the caller's own thread, the public method included, and the
files of the library that have these functions; calls of C functions are not counted. Connections, scripts and memos are
warm. "Of the library" leaves out what redis-py, the standard library and the loader call, and is what the budget means.
A count is the same on every machine.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import nearcache
from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Table

ROOT = str(Path(nearcache.__file__).parent)
HIT, MISS, SET = "L2 hit", "miss with a lease, instant loader", "set"
LIMITS = {HIT: 40, MISS: 100, SET: 50}
"""Calls of functions of the library."""


def traced(call: Callable[[], object]) -> tuple[int, int, int]:
    """Calls of Python functions by this one; those of the library; and how many of its files these are in."""
    passed: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            passed.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    ours = [name for name in passed if name.startswith(ROOT)]
    return len(passed) - 1, len(ours), len(set(ours))


def show(report: Report) -> bool:
    """Count, print and keep, against the limits."""
    with EmbeddedServer() as server, NearCache.from_url(server.url, namespace="calls") as cache:
        if not cache.wait_healthy(10):
            raise RuntimeError(f"{cache!r} did not become healthy")
        new = map("new:{}".format, itertools.count()).__next__
        ways: dict[str, Callable[[], object]] = {
            HIT: lambda: cache.get("there"),
            MISS: lambda: cache.get_or_set(new(), int),
            SET: lambda: cache.set("there", 1),
        }
        cache.set("there", 1)
        found = {}
        for way in (*ways, *ways):  # the first round warms connections, scripts and memos
            cache.clear_local()
            found[way] = dict(zip(("calls", "of the library", "files"), traced(ways[way]), strict=True))
    rows = [[way, *map(str, counts.values())] for way, counts in found.items()]
    report.show(Table("Python calls of an operation", ["", "calls", "of the library", "in files of it"], rows))
    report.keep("calls", found)
    for way, limit in LIMITS.items():
        report.budget(f"{way}: Python calls of the library", found[way]["of the library"], limit, "calls")
    return True
