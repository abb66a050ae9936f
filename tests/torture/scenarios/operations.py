"""add, incr and tags from many processes: a lock is given once, no count is lost or repeated, a large tag is cheap.

Eight processes, half of them with threads and half with tasks, go through the same keys in orders of their own: 1,000
are added, eight counters are counted. Rounds:

    healthy       nothing is in the way
    bus cut       all subscribed connections are cut again and again
    lost replies  replies are held back for longer than redis_timeout, and their connections cut

In each of them at most one caller is told True for a key, and the key's value is then that caller's. A key that was
given to nobody has a caller that got no answer, and its value, if there is one, is such a caller's. No number of a
counter is given twice, and a counter stands between the counts that were acknowledged and those that may have been.

``large_tag`` is part of this scenario.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from nearcache import AsyncNearCache, NearCache, RemoteUnavailable
from nearcache.testing import FaultProxy, commands, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, Crew, connected, done, pause, serve, side_by_side
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios import large_tag

PROCESSES, WORKERS = 8, 4
KEYS, COUNTERS, COUNTS = 1000, 8, 400
TIMEOUT, PATIENT = 0.1, 1.0
"""Seconds of redis_timeout where replies are lost, and elsewhere: eight processes may be late on a small machine."""
HEALTHY, BUS_CUT, LOST = "healthy", "bus cut", "lost replies"
PART = 250
"""Keys of one order: all processes go through the same ones at the same time."""


@dataclass
class Told:
    """What a process was told."""

    added: list[str] = field(default_factory=list)
    counts: list[tuple[str, int]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """By key, the operations that were not acknowledged."""
    raised: list[str] = field(default_factory=list)
    flushes: int = 0
    """How often the process has lost its bus, or a message, meanwhile."""


async def attend(number: int, url: str, timeout: float, pipe: Connection) -> None:
    """A process from beginning to end."""
    make = NearCache if number % 2 else AsyncNearCache
    settings = {"redis_timeout": timeout, "breaker_reset": 0.02, "reconnect_max": 0.05, "on_unavailable": "raise"}
    async with connected(make, url, namespace="operations", ttl=600, **settings) as cache:
        await serve(pipe, Worker(cache, number))


class Worker:
    """One process's part."""

    def __init__(self, cache: Cache, number: int) -> None:
        self._cache: Any = cache
        self._number = number

    async def add(self, order: str, keys: range) -> Told:
        """Add every key once, in several threads or tasks that share them."""
        names = [f"{order}:{key}" for key in keys]
        return await self._go_through(names, self._add)

    async def count(self, order: str, counts: int) -> Told:
        """Count again and again."""
        names = [f"{order} counter:{number % COUNTERS}" for number in range(counts)]
        return await self._go_through(names, self._count)

    async def _go_through(self, names: list[str], act: Callable[[str, Told], Coroutine[Any, Any, None]]) -> Told:
        told, flushes = Told(), self._cache.stats().flushes
        random.shuffle(names)

        async def work(mine: Sequence[str]) -> None:
            for name in mine:
                try:
                    await act(name, told)
                except RemoteUnavailable:
                    told.unknown[name] += 1
                    await pause(self._cache, 0.02)  # else it is through while the breaker is open
                except Exception as error:  # whatever it is, it is a violation
                    told.raised.append(repr(error))

        await side_by_side(self._cache, [work(names[part::WORKERS]) for part in range(WORKERS)])
        told.flushes = self._cache.stats().flushes - flushes
        return told

    async def _add(self, name: str, told: Told) -> None:
        if await done(self._cache.add(name, self._number)):
            told.added.append(name)

    async def _count(self, name: str, told: Told) -> None:
        told.counts.append((name, await done(self._cache.incr(name))))


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


def wrong_adds(order: str, told: Sequence[Told], keys: int, values: Mapping[str, int]) -> list[str]:
    """Keys that were given to two, or to nobody though each caller had an answer, or that have a value of another.

    Args:
        order: the round.
        told: of each process, by its number.
        keys: how many there are.
        values: what stands under them in the end: the number of the process that has added it.
    """
    faults = [f"{order}: {error}" for one in told for error in one.raised]
    given: dict[str, list[int]] = {}
    unknown: dict[str, list[int]] = {}
    for number, one in enumerate(told):
        for name in one.added:
            given.setdefault(name, []).append(number)
        for name in one.unknown:
            unknown.setdefault(name, []).append(number)
    for name in (f"{order}:{key}" for key in range(keys)):
        winners, perhaps = given.get(name, []), unknown.get(name, [])
        value = values.get(name)
        if len(winners) > 1:
            faults.append(f"{name} was given to {winners}")
        elif winners and value != winners[0]:
            faults.append(f"{name} was given to {winners[0]}, and has the value of {value}")
        elif not winners and not perhaps:
            faults.append(f"{name} was given to nobody, though all were answered")
        elif not winners and value is not None and value not in perhaps:
            faults.append(f"{name} has the value of {value}, who was told False")
    return faults


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


def whole(parts: Sequence[Told]) -> Told:
    """What a process was told in all."""
    told = Told()
    for part in parts:
        told.added += part.added
        told.unknown += part.unknown
        told.raised += part.raised
        told.flushes += part.flushes
    return told


def without_trouble(order: str, told: Sequence[Told]) -> list[str]:
    """Whether the fault of a round was there at all: else its checks say nothing."""
    if order == BUS_CUT and not sum(one.flushes for one in told):
        return [f"{order}: no process has noticed it"]
    if order == LOST and not sum(one.unknown.total() for one in told):
        return [f"{order}: every reply came"]
    return []


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
                parts = [crew.ask("add", order, range(at, min(at + PART, keys))) for at in range(0, keys, PART)]
                counted: list[Told] = crew.ask("count", order, counts)
            added = [whole(mine) for mine in zip(*parts, strict=True)]
            values = own.get_many(f"{order}:{key}" for key in range(keys))
            stands = own.get_many({name for one in counted for name, _ in one.counts})
            faults += wrong_adds(order, added, keys, values) + wrong_counts(order, counted, stands)
            faults += without_trouble(order, [*added, *counted])
            true = sum(len(one.added) for one in added)
            unknown = [str(sum(one.unknown.total() for one in told)) for told in (added, counted)]
            totals = f"{sum(len(one.counts) for one in counted):,}", f"{sum(stands.values()):,}"
            rows.append([order, f"{true:,} of {keys:,}", *unknown, *totals])
    return rows, faults


def show(report: Report) -> bool:
    """Run, print and keep; whether nothing was given, counted or served that must not be."""
    rows, faults = rounds(report.quick)
    faults += large_tag.judge(report)
    head = ["", "keys given", "adds unknown", "counts unknown", "counts acknowledged", "counters stand at"]
    notes = [f"{PROCESSES} processes × {WORKERS} threads or tasks; unknown: not acknowledged", *faults[:20]]
    report.show(Table("add and incr from many processes", head, rows, notes))
    report.keep("operations", {"rounds": rows})
    return not faults
