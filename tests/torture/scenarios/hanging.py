"""Loaders that hang: how much later than its time limit a reader is answered, beside a bare wait of the same length.

    soft   an entry past its end, which may serve after an error: it is served when loader_soft_timeout is over
    hard   no entry: LoaderTimeout is raised when loader_hard_timeout is over

Each try has a loader of its own, which hangs until the try is over, and a control right before it: Event.wait(limit) in
a thread, asyncio.wait_for(event.wait(), limit) on a loop. What is over the limit there is the machine's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nearcache import AsyncNearCache, LoaderTimeout, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done
from tests.support.report import Report
from tests.support.tables import Spread, Table
from tests.torture.scenarios.took import HEAD, Took, tails

SOFT, HARD = "soft", "hard"
LIMIT = 0.05
"""Seconds that a load may take."""
TTL = 0.05
"""Seconds: the entry that may serve is past its end when the load hangs."""
OVER_MS = 10.0
"""How much later the answer may come, at p99: the median of some stretches."""
STRETCH = 25
"""Tries."""
PATIENCE = 5.0


@dataclass
class Over:
    """ns over the limit, of each try and of the control before it; and what was no right answer."""

    tries: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Trial:
    """A cache whose loaders hang."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def play(self, kind: str, tries: int, keys: str = "key") -> Over:
        """Some tries of a kind, each after its control."""
        over = Over()
        for number in range(tries):
            key = f"{keys}:{kind}:{number}"
            if kind == SOFT:
                await done(self._cache.set(key, number, ttl=TTL))
                await asyncio.sleep(TTL * 1.5)
            over.control.append(await self._timed(self._bare))
            over.tries.append(await self._timed(partial(self._try, kind, key, number, over)))
        return over

    async def _timed(self, call: Callable[[], Awaitable[None]]) -> float:
        since = time.perf_counter_ns()
        await call()
        return time.perf_counter_ns() - since - LIMIT * 1e9

    async def _bare(self) -> None:
        if isinstance(self._cache, NearCache):
            threading.Event().wait(LIMIT)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), LIMIT)

    async def _try(self, kind: str, key: str, number: int, over: Over) -> None:
        over_at, loader = self._hanging()
        options: dict[str, Any] = {"loader_soft_timeout": LIMIT, "stale_if_error": 60}
        if kind == HARD:
            options = {"loader_hard_timeout": LIMIT}
        try:
            value = await done(self._cache.get_or_set(key, loader, **options))
        except LoaderTimeout:
            if kind == SOFT:
                over.wrong.append(f"{key} was not served stale")
        else:
            if kind == HARD or value != number:
                over.wrong.append(f"{key} gave {value!r}")
        finally:
            over_at.set()

    def _hanging(self) -> tuple[threading.Event | asyncio.Event, Callable[[], Any]]:
        """A loader, and what ends it."""
        if isinstance(self._cache, NearCache):
            event = threading.Event()
            return event, lambda: event.wait(PATIENCE)
        other = asyncio.Event()
        return other, other.wait


async def play(server: EmbeddedServer, tries: int) -> dict[tuple[str, str], Over]:
    """All tries, of both classes."""
    found = {}
    kinds: tuple[type[Cache], ...] = (NearCache, AsyncNearCache)
    for make in kinds:
        namespace = f"hanging-{make.__name__}"
        async with connected(make, server.url, namespace=namespace, ttl=60, jitter=0) as cache:
            trial = Trial(cache)
            for kind in (SOFT, HARD):
                await trial.play(kind, 2, "first")  # scripts, connections, first calls
                found[make.__name__, kind] = await trial.play(kind, tries)
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether each try had the answer it must have."""
    tries = STRETCH if report.quick else 4 * STRETCH
    with EmbeddedServer() as server:
        found = asyncio.run(play(server, tries))
    rows, faults, kept = [], [], {}
    for (name, kind), over in found.items():
        took, control = Took.of(over.tries), Took.of(over.control)
        rows += [[f"{name}, {kind}", *took.cells()], ["  a bare wait", *control.cells()]]
        faults += [f"{name}: {one}" for one in over.wrong]
        kept[f"{name}, {kind}"] = {"over": vars(took), "control": vars(control), "wrong": over.wrong}
        what = "stale value served" if kind == SOFT else "LoaderTimeout raised"
        tail = Spread.of(tails(over.tries, STRETCH))
        beside = f"a bare wait has {control.p99:.1f} ms"
        report.budget(f"{name}: {what}, p99 over the limit", tail, OVER_MS, "ms", beside)
    notes = [f"limit {LIMIT * 1e3:.0f} ms; times are what is over it", *faults]
    report.show(Table("A loader that hangs: answers after its time limit", ["", *HEAD], rows, notes))
    report.keep("hanging", kept)
    return not faults
