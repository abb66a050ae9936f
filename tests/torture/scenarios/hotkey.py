"""A hot key across its ends: 2,000 reads a second from four processes, of threads and of tasks, and nobody may wait.

    early       early_refresh: the first reader after a part of the ttl has it loaded anew behind its back
    revalidate  stale_while_revalidate: the first reader after the ttl does
    neither     the control: whoever reads after the ttl waits for the load

Beside each read goes a read of another key, whose end is far away: it is the control of the machine, which alone makes
a read late now and then. A read that takes longer than LATE_MS waited. That no reader loads is known for certain: a
loader knows whether it was called in a reader's own thread or task.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from nearcache import AsyncNearCache, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, Crew, connected, done, loader_of, pause, serve, side_by_side
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.took import HEAD, Took

PROCESSES = 4
READERS = 5
"""Threads or tasks in each."""
RATE = 2_000
"""Reads a second, of all together."""
PAUSE = PROCESSES * READERS / RATE
"""Seconds between two reads of a reader."""
TTL = 1.0
LOADER = 0.05
"""Seconds."""
PART = 0.8
"""of the ttl, for early_refresh."""
LATE_MS = 10.0
EARLY, REVALIDATE, NEITHER = "early", "revalidate", "neither"
OPTIONS: dict[str, dict[str, Any]] = {
    EARLY: {"early_refresh": PART},
    REVALIDATE: {"stale_while_revalidate": 30.0},
    NEITHER: {},
}
INTERVAL = {EARLY: TTL * PART, REVALIDATE: TTL, NEITHER: TTL}
"""Seconds from a value to the reader who finds that it ends; then comes the load."""
TOLERANCE = 0.1
"""How far the number of loads may be from duration / (interval + load), beside the one that begins or ends it."""


@dataclass
class Seen:
    """What the readers of a process saw; times in ns."""

    hot: list[int] = field(default_factory=list)
    other: list[int] = field(default_factory=list)
    loads: int = 0
    by_readers: int = 0
    """Loaders called in a reader's own thread or task: it waited."""
    wrong: list[str] = field(default_factory=list)


async def read(number: int, url: str, pipe: Connection) -> None:
    """A process from beginning to end."""
    make = AsyncNearCache if number % 2 else NearCache
    async with connected(make, url, namespace="hotkey", ttl=TTL, jitter=0) as cache:
        await serve(pipe, Reading(cache))


class Reading:
    """The orders of a process."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def read(self, mode: str, until: int) -> Seen:
        """Read in one of the modes until then."""
        return await Readers(self._cache, mode, until).run()


class Readers:
    """All readers of a process.

    Args:
        cache: what is read.
        mode: one of OPTIONS.
        until: CLOCK_MONOTONIC in ns.
    """

    def __init__(self, cache: Any, mode: str, until: int) -> None:
        self._cache, self._mode, self._until = cache, mode, until
        self._seen = Seen()
        self._load, self._load_other = loader_of(cache, self._begin), loader_of(cache, lambda: (7, 0.0))
        self._caller = threading.get_ident if isinstance(cache, NearCache) else asyncio.current_task
        self._own: set[object] = set()
        """The readers' own threads or tasks."""

    async def run(self) -> Seen:
        """Read at the rate asked for until the end."""
        await side_by_side(self._cache, [self._read(number) for number in range(READERS)])
        return self._seen

    async def _read(self, number: int) -> None:
        clock = time.perf_counter_ns
        await self._hot()  # the first load is nobody's fault
        await self._other()
        self._own.add(self._caller())
        for due in self._turns(number):
            await pause(self._cache, max(0.0, due - time.monotonic()))
            since = clock()
            value = await self._hot()
            between = clock()
            await self._other()
            self._seen.hot.append(between - since)
            self._seen.other.append(clock() - between)
            if value != 7:
                self._seen.wrong.append(f"{self._mode} gave {value!r}")

    def _hot(self) -> Awaitable[Any]:
        return done(self._cache.get_or_set(self._mode, self._load, **OPTIONS[self._mode]))

    def _other(self) -> Awaitable[Any]:
        return done(self._cache.get_or_set("other", self._load_other, ttl=3600))

    def _turns(self, number: int) -> Iterator[float]:
        """When to read; after a late read the next ones follow in their time, and none is left out."""
        due = time.monotonic() + PAUSE * number / READERS
        while due * 1e9 < self._until:
            yield due
            due = max(due + PAUSE, time.monotonic() - 5 * PAUSE)

    def _begin(self) -> tuple[int, float]:
        self._seen.loads += 1
        self._seen.by_readers += self._caller() in self._own
        return 7, LOADER


def late(ns: Sequence[int]) -> int:
    """How many took longer than LATE_MS.

    >>> late([9_000_000, 10_000_001])
    1
    """
    return sum(one > LATE_MS * 1e6 for one in ns)


def show(report: Report) -> bool:
    """Run, print and keep; whether no reader loaded, and each value was right."""
    seconds = 6.0 if report.quick else 60.0
    rows, faults, kept, waited = [], [], {}, {}
    with (
        EmbeddedServer() as server,
        Crew(read, {str(number): (number, server.url) for number in range(PROCESSES)}) as crew,
    ):
        for mode in OPTIONS:
            lasts = seconds if mode != NEITHER else max(6.0, seconds / 3)
            seen: list[Seen] = crew.ask("read", mode, time.monotonic_ns() + int(lasts * 1e9))
            hot, other = (
                Took.of([ns for one in seen for ns in one.hot]),
                Took.of([ns for one in seen for ns in one.other]),
            )
            late_hot, late_other = (sum(late(getattr(one, name)) for one in seen) for name in ("hot", "other"))
            loads, by_readers = sum(one.loads for one in seen), sum(one.by_readers for one in seen)
            expected = lasts / (INTERVAL[mode] + LOADER)
            waited[mode] = max(0, late_hot - late_other) / hot.calls
            rows += [
                [
                    mode,
                    f"{hot.calls / lasts:,.0f}",
                    *hot.cells(),
                    str(late_hot),
                    str(by_readers),
                    str(loads),
                    f"{expected:.0f}",
                ],
                ["  the other key", "", *other.cells(), str(late_other), "", "", ""],
            ]
            faults += [error for one in seen for error in one.wrong[:3]]
            kept[mode] = {
                "seconds": lasts,
                "hot": vars(hot),
                "other": vars(other),
                "late": late_hot,
                "late, other": late_other,
                "loads": loads,
                "by readers": by_readers,
                "expected": expected,
            }
            if mode != NEITHER:
                report.budget(f"{mode}: loads made by a reader who waits", by_readers, 0, "loads")
                off = max(0.0, abs(loads - expected) - 1) / expected
                report.budget(f"{mode}: loads, away from duration / (interval + load)", off, TOLERANCE, "of it")
    for mode in (EARLY, REVALIDATE):
        part = waited[mode] / waited[NEITHER] if waited[NEITHER] else 0.0
        report.budget(f"{mode}: reads over {LATE_MS:.0f} ms beyond the other key's", part, 0.02, control=NEITHER)
    if not waited[NEITHER]:
        faults.append("without either nobody waited: this run shows nothing")
    notes = [
        f"ttl {TTL} s, loader {LOADER * 1e3:.0f} ms, {PROCESSES} processes of {READERS} threads or tasks; late: over",
        f"{LATE_MS:.0f} ms; own: loads in a reader's own thread or task; expected: duration / (interval + load)",
        *faults,
    ]
    head = ["", "per second", *HEAD, "late", "own", "loads", "expected"]
    report.show(Table("A hot key across its ends", head, rows, notes))
    report.keep("hotkey", kept)
    return not faults
