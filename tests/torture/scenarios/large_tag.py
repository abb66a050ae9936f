"""A tag of 100,000 entries in the L1s of four processes: what its invalidation costs the caller, beside a set.

Each process in turn invalidates the tag, after all have the entries in their L1. The controls are the sets before it,
and a single set at its place: it says how far one call of anything is from the median, under the load of the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from nearcache import AsyncNearCache, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, Crew, connected, done, serve
from tests.support.report import Report
from tests.support.tables import Spread
from tests.support.waiting import until

HOLDERS, ENTRIES, SETS, TURNS = 4, 25_000, 51, 2
LIMIT = 2.0
"""How many times as long as a set an invalidation may take."""


class Turn(NamedTuple):
    """Seconds: of a set, the median of some; of a single one; and of the invalidation."""

    sets: float
    one: float
    tag: float


async def attend(number: int, url: str, pipe: Connection) -> None:
    """A process from beginning to end."""
    make = NearCache if number % 2 else AsyncNearCache
    async with connected(make, url, namespace="tags", ttl=600, l1_max_entries=2 * ENTRIES, redis_timeout=2) as cache:
        await serve(pipe, Holder(cache, number))


class Holder:
    """One process's part."""

    def __init__(self, cache: Cache, number: int) -> None:
        self._cache: Any = cache
        self._number = number

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

        await until(all_there, within=40.0)

    async def invalidate(self, who: int) -> tuple[Turn, int] | None:
        """The times, and the number of the invalidation, if it is made here."""
        if who != self._number:
            return None
        took = [await self._timed(lambda: self._cache.set("one", 1)) for _ in range(SETS)]
        one = await self._timed(lambda: self._cache.set("one", 1))
        tag = await self._timed(lambda: self._cache.invalidate_tags("all"))
        return Turn(statistics.median(took), one, tag), self._cache._core.invalidation.seen

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


def entries_of(*, quick: bool) -> int:
    """Entries in each process."""
    return 2500 if quick else ENTRIES


def tags(quick: bool) -> tuple[list[Turn], list[str]]:
    """Times of sets and of invalidations, and what was wrong."""
    entries = entries_of(quick=quick)
    faults: list[str] = []
    took: list[Turn] = []
    with (
        EmbeddedServer() as server,
        Crew(attend, {str(number): (number, server.url) for number in range(HOLDERS)}) as crew,
    ):
        for who in [*range(HOLDERS)] * TURNS:
            crew.ask("fill", entries)
            crew.ask("read", entries)
            turn, number = next(one for one in crew.ask("invalidate", who) if one is not None)
            took.append(turn)
            left = sum(crew.ask("left", entries, number))
            if left:
                faults.append(f"{left} entries of an invalidated tag were served")
    return took, faults


def judge(report: Report) -> list[str]:
    """Run and judge the time; what was served that must not be."""
    took, faults = tags(report.quick)
    report.keep("large tag", {"turns": took})
    ratios = Spread.of([turn.tag / turn.sets for turn in took])
    control = Spread.of([turn.one / turn.sets for turn in took])
    note = f"a single set at its place took {control.median:.2f} ({control.least:.2f}–{control.greatest:.2f})"
    what = f"invalidate_tags of {HOLDERS * entries_of(quick=report.quick):,} entries, on the caller's side"
    report.budget(what, ratios, LIMIT, "×", "a set", note=note)
    return faults
