"""How many Python calls stand on the way of an L2 hit, a miss with a lease, a set: counted, not timed.

What is counted are the calls of Python functions in the caller's own thread, by ``sys.setprofile``, and the files of
the library that they pass through; connections, scripts and memos are warm. A count is the same on every machine.
"""

from __future__ import annotations

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


def traced(call: Callable[[], object]) -> tuple[int, int, int]:
    """Calls of Python functions below this one, those of the library, and the number of its files."""
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
    """Count, print and keep."""
    with EmbeddedServer() as server, NearCache.from_url(server.url, namespace="calls") as cache:
        numbers = iter(range(1_000_000))

        def l2_hit() -> object:
            cache.clear_local()
            return cache.get("there")

        def miss() -> object:
            return cache.get_or_set(f"new:{next(numbers)}", int)

        cache.set("there", 1)
        ways: dict[str, Callable[[], object]] = {
            "L2 hit": lambda: cache.get("there"),
            "miss with a lease, instant loader": miss,
            "set": lambda: cache.set("there", 1),
        }
        for _ in range(3):
            l2_hit()
            miss()
            cache.set("there", 1)
        found = {}
        for name, way in ways.items():
            cache.clear_local()
            found[name] = traced(way)
    rows = [[name, *map(str, counts)] for name, counts in found.items()]
    report.show(Table("Python calls on the way", ["", "calls", "of the library", "files of the library"], rows))
    report.keep(
        "calls", {name: dict(zip(("calls", "ours", "files"), counts, strict=True)) for name, counts in found.items()}
    )
    return True
