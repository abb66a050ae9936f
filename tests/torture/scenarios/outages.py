"""Redis is stopped, gone, or a black hole: what reads, loads and writes take before, during and after.

    stopped     SIGSTOP: connections stay open, and the kernel takes new ones, but nothing answers
    refused     SIGKILL: the port is closed; it comes back empty
    black hole  a proxy takes connections and passes nothing on, in either direction

One caller does four things in turn: get of a key that is in L1 (which is no hit any more max_staleness after the last
proof), get_or_set of a key that never was with a loader of 5 ms, a set, and the bare loader, which is the control.
Times before and after the breaker opened are told apart; a call that opens it counts to those before. Then 32
callers at once load new keys, which counts how many loaders run together; a server that came back empty counts as
away. Back in service is who has a write acknowledged, is healthy, and serves what was written from L1.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from nearcache import AsyncNearCache, NearCache
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done, side_by_side
from tests.support.report import Report
from tests.support.tables import Spread, Table
from tests.torture import faults
from tests.torture.faults import Stage, lasting
from tests.torture.scenarios.took import HEAD, Took, tails

LOADER = 0.005
"""Seconds."""
CROWD = 32
MAX_LOADS = 8
"""max_concurrent_loads: fewer than would like to load."""
LIMIT = 1.2
"""How many times the bare loader's p99 a load's may be, once the breaker is open: the median of some stretches."""
STRETCH = 100
"""Calls."""
BACK = 2.0
"""Seconds until full service after the recovery."""
PATIENCE = 20.0
HIT, GONE, MISS, SET, BARE = "get, L1 hit", "get, proof is over", "get_or_set, a new key", "set", "the bare loader"
CALLS = (HIT, GONE, MISS, SET, BARE)
BEFORE, FIRST, OPEN, AFTER = "before", "until the breaker opens", "breaker open", "after"
PHASES = (BEFORE, FIRST, OPEN, AFTER)


OUTAGES = {"stopped": faults.stopped, "refused": faults.killed, "black hole": faults.partition}


class Loader:
    """A loader of either kind, which knows how often it was called, and how many of it run at once."""

    def __init__(self, cache: Cache, seconds: float = LOADER) -> None:
        self.calls = self.most = 0
        self._seconds = seconds
        self.call: Callable[[], Any] = self._load if isinstance(cache, NearCache) else self._load_async
        self._now = 0
        self._lock = threading.Lock()

    def _enter(self) -> None:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)

    def _leave(self) -> None:
        with self._lock:
            self._now -= 1

    def _load(self) -> int:
        self._enter()
        time.sleep(self._seconds)
        self._leave()
        return 7

    async def _load_async(self) -> int:
        self._enter()
        await asyncio.sleep(self._seconds)
        self._leave()
        return 7


@dataclass
class Outcome:
    """What an outage did to a cache."""

    took: dict[tuple[str, str], list[int]] = field(
        default_factory=lambda: {(phase, what): [] for phase in PHASES for what in CALLS}
    )
    """ns, by phase and call."""
    together: dict[str, int] = field(default_factory=dict)
    """How many loaders ran at once, by phase."""
    loaded: int = 0
    """Calls of the crowd that were answered."""
    asked: int = 0
    back: float = 0.0
    """Seconds from the recovery to full service."""
    wrong: list[str] = field(default_factory=list)


class Trial:
    """A cache that goes through an outage."""

    def __init__(self, cache: Cache) -> None:
        self.outcome = Outcome()
        self._cache = cache
        self._loader = Loader(cache)
        self._new = map("new:{}".format, itertools.count()).__next__

    async def play(self, outage: Any, seconds: float) -> Outcome:
        """Before, during, after."""
        cache = self._cache
        if not await done(cache.set("hot", 7)):
            raise RuntimeError(f"{cache!r} did not store the value")
        await self._turns(0.2, lambda: "")
        await self._turns(seconds / 2, lambda: BEFORE)
        with outage:
            await self._turns(seconds, lambda: FIRST if cache._core.breaker.sends else OPEN)
            await self._crowd(OPEN)
        await self._return()
        await self._crowd(AFTER)
        await done(cache.set("hot", 7))
        await self._turns(seconds / 2, lambda: AFTER)
        return self.outcome

    async def _turns(self, seconds: float, phase: Callable[[], str]) -> None:
        cache, load = self._cache, self._loader.call
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            what = HIT if cache.peek("hot") == 7 else GONE
            await self._timed(phase(), what, lambda: cache.get("hot"))
            await self._timed(phase(), MISS, lambda: cache.get_or_set(self._new(), load), 7)
            await self._timed(phase(), BARE, load, 7)
            await self._timed(phase(), SET, lambda: cache.set(self._new(), 7))

    async def _timed(self, phase: str, what: str, call: Callable[[], Any], expected: Any = None) -> None:
        since = time.perf_counter_ns()
        try:
            value = await done(call())
        except Exception as error:  # counted, and fails the run
            self.outcome.wrong.append(f"{what} raised {error!r}")
            return
        if expected is not None and value != expected:
            self.outcome.wrong.append(f"{what} gave {value!r}")
        if phase:
            self.outcome.took[phase, what].append(time.perf_counter_ns() - since)

    async def _crowd(self, phase: str) -> None:
        """Everybody loads new keys at once."""
        cache, load = self._cache, self._loader.call
        self._loader.most = 0
        keys = [self._new() for _ in range(CROWD * 10)]
        self.outcome.asked += len(keys)

        async def caller(number: int) -> int:
            return sum([await done(cache.get_or_set(key, load)) == 7 for key in keys[number::CROWD]])

        self.outcome.loaded += sum(await side_by_side(cache, map(caller, range(CROWD))))
        self.outcome.together[phase] = self._loader.most

    async def _return(self) -> None:
        """Call until everything is as it was."""
        cache, since = self._cache, time.perf_counter()
        while True:
            written = await done(cache.set("back", 7))
            if written and cache.healthy and cache.peek("back") == 7:
                break
            if time.perf_counter() > since + PATIENCE:
                self.outcome.wrong.append(f"no full service {PATIENCE:.0f} s after the recovery")
                break
            await done(cache.get_or_set(self._new(), self._loader.call))
        self.outcome.back = time.perf_counter() - since


async def play(name: str, make: type[Cache], seconds: float) -> Outcome:
    """An outage, with a server of its own."""
    with EmbeddedServer() as server, FaultProxy(server.port) as proxy:
        url = proxy.url if OUTAGES[name] is faults.partition else server.url
        stage = Stage("valkey", server, proxy, proxy, random.Random(), 0.0, ExitStack())
        settings = {"namespace": "outages", "ttl": 600, "max_concurrent_loads": MAX_LOADS}
        async with connected(make, url, **settings) as cache:
            return await Trial(cache).play(lasting(OUTAGES[name], stage), seconds)


def show(report: Report) -> bool:
    """Run, print and keep; whether every call was answered."""
    seconds = 2.0 if report.quick else 10.0
    found = {
        (make.__name__, name): asyncio.run(play(name, make, seconds))
        for make in (NearCache, AsyncNearCache)
        for name in OUTAGES
    }
    faults, kept = [], {}
    for (who, name), outcome in found.items():
        took = {at: Took.of(ns) for at, ns in outcome.took.items()}
        measured = [(what, phase) for what in CALLS for phase in PHASES if took[phase, what].calls]
        rows = [[f"{what}, {phase}", *took[phase, what].cells()] for what, phase in measured]
        # What comes back empty would be filled by everybody at once.
        together = max(outcome.together[phase] for phase in ((OPEN, AFTER) if name == "refused" else (OPEN,)))
        at_once = ", ".join(f"{phase} {most}" for phase, most in outcome.together.items())
        notes = [
            f"{CROWD} callers at once: {outcome.loaded} of {outcome.asked} loads answered; most together: {at_once}",
            f"full service {outcome.back:.2f} s after the recovery",
            *outcome.wrong[:3],
        ]
        report.show(Table(f"{who}, Redis {name}", ["", *HEAD], rows, notes))
        faults += outcome.wrong
        faults += [f"{outcome.loaded} of {outcome.asked}"] if outcome.loaded < outcome.asked else []
        kept[f"{who}, {name}"] = {
            "took": {f"{what}, {phase}": vars(took[phase, what]) for what, phase in measured},
            "together": outcome.together,
            "back s": outcome.back,
            "wrong": outcome.wrong,
        }
        title = f"{who}, Redis {name}"
        loads, bare = (tails(outcome.took[OPEN, what], STRETCH) for what in (MISS, BARE))
        ratio = Spread.of([one / other for one, other in zip(loads, bare, strict=False)])
        report.budget(f"{title}: a load's p99, breaker open", ratio, LIMIT, control="the bare loader's p99")
        report.budget(f"{title}: loaders at once", together, MAX_LOADS, "loads", f"{CROWD} callers")
        report.budget(f"{title}: full service after", outcome.back, BACK, "s")
    report.keep("outages", kept)
    return not faults
