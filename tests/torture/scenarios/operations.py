"""add, incr and tags from many processes: a lock is given once, no count is lost or repeated, a large tag is cheap.

Eight processes, half of them with threads and half with tasks, go through the same keys in orders of their own: 1,000
are added, eight counters are counted. Rounds:

    healthy       exactly one True for each key; the counters stand at the number of calls
    bus cut       the same while all subscribed connections are cut again and again
    lost replies  replies are held back for longer than redis_timeout, and their connections cut: at most one True for
                  each key; no number is given twice, and a counter stands between the counts that were acknowledged
                  and those that may have been made

And 100,000 entries of one tag in the L1s of four processes: one of them invalidates the tag. The control is a set.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from nearcache import AsyncNearCache, NearCache, RemoteUnavailable
from nearcache.testing import FaultProxy, commands, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, Crew, connected, done, serve
from tests.support.report import Report
from tests.support.tables import Table
from tests.support.waiting import until

PROCESSES, WORKERS = 8, 4
KEYS, COUNTERS, COUNTS = 1000, 8, 400
TIMEOUT, PATIENT = 0.1, 1.0
"""Seconds of redis_timeout where replies are lost, and elsewhere: eight processes may be late on a small machine."""
HEALTHY, BUS_CUT, LOST = "healthy", "bus cut", "lost replies"
HOLDERS, ENTRIES, SETS = 4, 25_000, 51
LIMIT = 2.0
"""How many times as long as a set an invalidation may take."""


@dataclass
class Told:
    """What a process was told."""

    added: list[str] = field(default_factory=list)
    counts: list[tuple[str, int]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """By key, the operations that were not acknowledged."""
    raised: list[str] = field(default_factory=list)


def attend(number: int, url: str, timeout: float, pipe: Connection) -> None:
    """A process from beginning to end."""
    asyncio.run(_attend(number, url, timeout, pipe))


async def _attend(number: int, url: str, timeout: float, pipe: Connection) -> None:
    make = NearCache if number % 2 else AsyncNearCache
    settings = {"redis_timeout": timeout, "breaker_reset": 0.02, "reconnect_max": 0.05, "on_unavailable": "raise"}
    async with connected(make, url, namespace="operations", ttl=600, l1_max_entries=2 * ENTRIES, **settings) as cache:
        await serve(pipe, Worker(cache, number))


class Worker:
    """One process's part."""

    def __init__(self, cache: Cache, number: int) -> None:
        self._cache: Any = cache
        self._number = number

    async def add(self, order: str, keys: int) -> Told:
        """Add every key once, in several threads or tasks that share them."""
        names = [f"{order}:{key}" for key in range(keys)]
        return await self._go_through(names, self._add)

    async def count(self, order: str, counts: int) -> Told:
        """Count again and again."""
        names = [f"{order} counter:{number % COUNTERS}" for number in range(counts)]
        return await self._go_through(names, self._count)

    async def _go_through(self, names: list[str], act: Callable[[str, Told], Coroutine[Any, Any, None]]) -> Told:
        told = Told()
        random.shuffle(names)

        async def work(mine: Sequence[str]) -> None:
            for name in mine:
                try:
                    await act(name, told)
                except RemoteUnavailable:
                    told.unknown[name] += 1
                    await asyncio.sleep(0.02)  # else it is through while the breaker is open
                except Exception as error:  # whatever it is, it is a violation
                    told.raised.append(repr(error))

        parts = [names[part::WORKERS] for part in range(WORKERS)]
        if self._number % 2:
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, work(part)) for part in parts))
        else:
            await asyncio.gather(*map(work, parts))
        return told

    async def _add(self, name: str, told: Told) -> None:
        if await done(self._cache.add(name, self._number)):
            told.added.append(name)

    async def _count(self, name: str, told: Told) -> None:
        told.counts.append((name, await done(self._cache.incr(name))))

    async def fill(self, entries: int) -> None:
        """Store entries of one tag."""
        await done(self._cache.set_many(dict.fromkeys(self._names(entries), 1), tags=["all"]))
        await done(self._cache.invalidate_tags("another"))  # the server knows the script from now on

    async def read(self, entries: int) -> None:
        """Have all of them in L1; some were not put, for writes of others at the same moment."""
        names = self._names(entries)

        async def all_there() -> bool:
            await done(self._cache.get_many(names))
            return all(self._cache.peek(name) is not None for name in names)

        await until(all_there)

    async def invalidate(self, who: int) -> tuple[float, float, int] | None:
        """The seconds of a set, the median of some, and of the invalidation, with its number, if it is made here."""
        if who != self._number:
            return None
        took = [await self._timed(lambda: self._cache.set("one", 1)) for _ in range(SETS)]
        took_tag = await self._timed(lambda: self._cache.invalidate_tags("all"))
        return statistics.median(took), took_tag, self._cache._core.invalidation.seen

    def _names(self, entries: int) -> list[str]:
        return [f"{self._number}:{key}" for key in range(entries)]

    async def _timed(self, call: Callable[[], Any]) -> float:
        began = time.perf_counter()
        assert await done(call())
        return time.perf_counter() - began

    async def left(self, entries: int, number: int) -> int:
        """How many entries of the tag are served still, once the message has come."""
        await until(lambda: self._cache._core.invalidation.last >= number)
        names = self._names(entries)
        return sum(self._cache.peek(name) is not None for name in names) + len(await done(self._cache.get_many(names)))


@contextmanager
def trouble(proxy: FaultProxy, order: str) -> Iterator[None]:
    """The fault of a round, again and again."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            if order == BUS_CUT:
                proxy.cut_connections(subscribers)
            elif order == LOST:
                proxy.hold("replies", commands)
                over.wait(1.5 * TIMEOUT)
                proxy.cut_connections(commands)
                proxy.heal()
                over.wait(0.3)  # the breaker closes, and some are answered

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        proxy.heal()


def wrong_adds(order: str, told: Sequence[Told], keys: int) -> list[str]:
    """Keys that were given to two, or to nobody where nothing was in the way."""
    given = Counter(name for one in told for name in one.added)
    twice = [name for name, count in given.items() if count > 1]
    nobody = keys - len(given) if order != LOST else 0
    raised = [error for one in told for error in one.raised]
    return [f"{order}: {what}" for what in (*(f"{name} was given twice" for name in twice), *raised)] + (
        [f"{order}: {nobody} keys were given to nobody"] if nobody else []
    )


def wrong_counts(order: str, told: Sequence[Told], stands: Mapping[str, int]) -> list[str]:
    """Numbers that were given twice, and counters that do not stand where they must."""
    faults = [f"{order}: {error}" for one in told for error in one.raised]
    given = Counter(count for one in told for count in one.counts)
    faults += [f"{order}: {name} was {count} twice" for (name, count), times in given.items() if times > 1]
    acknowledged = Counter(name for one in told for name, _ in one.counts)
    unknown = sum((one.unknown for one in told), Counter[str]())
    for name, total in stands.items():
        if not acknowledged[name] <= total <= acknowledged[name] + unknown[name]:
            faults.append(
                f"{order}: {name} stands at {total}, {acknowledged[name]} acknowledged, {unknown[name]} unknown"
            )
    return faults


def rounds(quick: bool) -> tuple[list[list[str]], list[str]]:
    """Adds and counts: a row for each round, and what was wrong."""
    keys, counts = (200, 80) if quick else (KEYS, COUNTS)
    rows, faults = [], []
    with (
        EmbeddedServer() as server,
        FaultProxy(server.port) as proxy,
        NearCache.from_url(server.url, namespace="operations") as own,
    ):
        for order in (HEALTHY, BUS_CUT, LOST):
            timeout = TIMEOUT if order == LOST else PATIENT
            crew = Crew(attend, {str(number): (number, proxy.url, timeout) for number in range(PROCESSES)})
            with crew, trouble(proxy, order):
                added: list[Told] = crew.ask("add", order, keys)
                counted: list[Told] = crew.ask("count", order, counts)
            stands = own.get_many({name for one in counted for name, _ in one.counts})
            faults += wrong_adds(order, added, keys) + wrong_counts(order, counted, stands)
            true = sum(len(one.added) for one in added)
            unknown = [str(sum(one.unknown.total() for one in told)) for told in (added, counted)]
            totals = f"{sum(len(one.counts) for one in counted):,}", f"{sum(stands.values()):,}"
            rows.append([order, f"{true:,} of {keys:,}", *unknown, *totals])
    return rows, faults


def tags(quick: bool) -> tuple[list[tuple[float, float]], list[str]]:
    """Times of a set and of the invalidation, and what was wrong."""
    entries = 2500 if quick else ENTRIES
    faults: list[str] = []
    took: list[tuple[float, float]] = []
    with (
        EmbeddedServer() as server,
        Crew(attend, {str(number): (number, server.url, PATIENT) for number in range(HOLDERS)}) as crew,
    ):
        for who in (*range(HOLDERS), *range(HOLDERS)):
            crew.ask("fill", entries)
            crew.ask("read", entries)
            (one_set, one_tag, number) = next(one for one in crew.ask("invalidate", who) if one is not None)
            took.append((one_set, one_tag))
            left = sum(crew.ask("left", entries, number))
            if left:
                faults.append(f"{left} entries of an invalidated tag were served")
    return took, faults


def show(report: Report) -> bool:
    """Run, print and keep; whether nothing was given, counted or served that must not be."""
    rows, faults = rounds(report.quick)
    took, more = tags(report.quick)
    faults += more
    head = ["", "keys given", "adds unknown", "counts unknown", "counts acknowledged", "counters stand at"]
    notes = [f"{PROCESSES} processes × {WORKERS} threads or tasks; unknown: not acknowledged", *faults[:20]]
    report.show(Table("add and incr from many processes", head, rows, notes))
    report.keep("operations", {"rounds": rows, "tags": took})
    ratio = statistics.median(tag / one for one, tag in took)
    report.budget("invalidate_tags of 100,000 entries, on the caller's side", ratio, LIMIT, "×", "a set")
    return not faults
