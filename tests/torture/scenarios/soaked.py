"""A process of the soak run: a cache under full load, and a census of all that it holds."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nearcache import AsyncNearCache, NearCache
from tests.support.processes import Cache, connected, done, serve

KEYS = 4_000
L1_MAX = 2_000
"""Fewer than there are keys, so that entries come and go."""
LEASE = 5.0
WORKERS = {"threads": 4, "asyncio": 16}
"""How many threads or tasks call the cache at full rate."""
SETTINGS: dict[str, Any] = {"namespace": "soak", "ttl": 10, "lease": LEASE, "l1_max_entries": L1_MAX}
OPTIONS: tuple[dict[str, Any], ...] = (
    *({"lease": LEASE} for _ in range(6)),
    {"early_refresh": 0.5},
    {"xfetch_beta": 1.0},
    {"stale_while_revalidate": 5.0},
    {"stale_if_error": 5.0, "loader_soft_timeout": 1.0},
)
"""Of loads: most have a lease alone; the others refresh in the background, or have time limits."""


@dataclass
class Census:
    """What a process holds at one moment."""

    rss: float = 0.0
    """MB."""
    objects: float = 0.0
    """That the garbage collector knows of."""
    threads: float = 0.0
    tasks: float = 0.0
    sockets: float = 0.0
    files: float = 0.0
    """All open descriptors."""
    entries: float = 0.0
    tables: float = 0.0
    """Tag floors, unproven keys, told events, tags of entries: what could grow with the names that were ever used."""
    flights: float = 0.0
    waiters: float = 0.0
    unused_leases: float = 0.0
    permits: float = 0.0
    """Of loads while Redis is away."""
    refreshes: float = 0.0

    @classmethod
    def take(cls, cache: Cache | None) -> Census:
        """Count."""
        links = [_link(one) for one in Path("/proc/self/fd").iterdir()]
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        census = cls(
            rss=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            objects=len(gc.get_objects()),
            threads=threading.active_count(),
            tasks=_tasks(),
            sockets=sum(link.startswith("socket:") for link in links),
            files=len(links),
        )
        if cache is not None:
            core = cache._core
            tier = core.tier
            census.entries = len(tier.entries)
            reported = sum(len(one.keys) for one in core.reported.values())
            census.tables = len(tier.floors.tags) + len(tier.journal) + reported + len(tier._store.tagged)
            census.flights, census.waiters, census.unused_leases = (
                len(core.flights),
                len(core.waiters),
                len(core.unused_leases),
            )
            census.permits, census.refreshes = len(core.loads.permitted), len(core.loads.refreshing)
        return census


def _link(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # the one that listed them
        return ""


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop runs in this thread
        return 0


@dataclass
class Second:
    """What a process did in a second, or in several."""

    samples: list[Census] = field(default_factory=list)
    calls: int = 0
    raised: list[str] = field(default_factory=list)
    """What the cache raised: never anything, whatever happens to Redis."""
    hits: int = 0


class Load:
    """Calls of every kind, at random, for as long as it is not stopped."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self.cache = cache
        self.stop = threading.Event()
        self.second = Second()
        self._seed = seed
        self._hits = 0

    def choose(self, chance: random.Random) -> Callable[[], Any]:
        """A call; what it gives may have to be awaited."""
        cache = self.cache
        number = min(int(chance.expovariate(8 / KEYS)), KEYS - 1)
        key, tags = f"key:{number}", (f"group:{number % 100}", f"id:{number}")
        value = {"id": number, "text": "x" * chance.randrange(200)}
        kind = chance.random()
        if kind < 0.6:
            return lambda: cache.get(key)
        if kind < 0.9:
            options = chance.choice(OPTIONS)
            if isinstance(cache, AsyncNearCache):
                return lambda: cache.get_or_set(key, lambda: _soon(value), tags=tags, **options)
            return lambda: cache.get_or_set(key, lambda: value, tags=tags, **options)
        if kind < 0.95:
            return lambda: cache.set(key, value, tags=tags)
        if kind < 0.97:
            return lambda: cache.delete(key)
        if kind < 0.99:
            return lambda: cache.get_many([key, *(f"key:{(number + more) % KEYS}" for more in range(10))])
        if kind < 0.99998:
            return lambda: cache.invalidate_tags(tags[chance.random() < 0.9])
        return cache.clear

    def run_thread(self, number: int) -> None:
        """One thread of the load."""
        chance = random.Random(self._seed * 1000 + number)
        while not self.stop.is_set():
            try:
                self.choose(chance)()
            except Exception as error:  # counted, and fails the run
                self.second.raised.append(repr(error))
            self.second.calls += 1

    async def run_task(self, number: int) -> None:
        """One task of the load; some calls are cancelled under way."""
        chance = random.Random(self._seed * 1000 + number)
        while not self.stop.is_set():
            call = self.choose(chance)()
            try:
                if chance.random() < 0.02:
                    await asyncio.wait_for(call, chance.uniform(0.0001, 0.02))
                else:
                    await call
            except TimeoutError:  # the one that is asked for here
                pass
            except Exception as error:  # as above
                self.second.raised.append(repr(error))
            self.second.calls += 1
            if self.second.calls % 10 == 0:
                await asyncio.sleep(0)  # a hit does not suspend

    def told(self) -> Second:
        """The second that is over; a new one begins."""
        second, self.second = self.second, Second()
        hits = self.cache.stats().l1_hits
        second.hits, self._hits = hits - self._hits, hits
        return second


async def _soon(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def work(kind: str, url: str, seed: int, pipe: Connection) -> None:
    """A process from beginning to end."""
    before = Census.take(None)
    make = AsyncNearCache if kind == "asyncio" else NearCache
    async with connected(make, url, **SETTINGS) as cache:
        await serve(pipe, Soaked(kind, Load(cache, seed), before))


class Soaked:
    """The orders that a process follows."""

    def __init__(self, kind: str, load: Load, before: Census) -> None:
        self._kind, self._load, self._before = kind, load, before
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = [
            threading.Thread(target=load.run_thread, args=(number,), name=f"load-{number}")
            for number in range(WORKERS[kind] if kind == "threads" else 0)
        ]

    async def begin(self) -> tuple[Census, Census]:
        """Begin the load; what the process held before it had a cache, and before the load."""
        idle = Census.take(self._load.cache)
        for thread in self._threads:
            thread.start()
        if self._kind == "asyncio":
            self._tasks = [asyncio.create_task(self._load.run_task(number)) for number in range(WORKERS[self._kind])]
        return self._before, idle

    async def second(self) -> Second:
        """What was done since the last time, and a census."""
        second = self._load.told()
        second.samples.append(Census.take(self._load.cache))
        return second

    async def end(self) -> bool:
        """End the load; whether the cache is healthy then."""
        self._load.stop.set()
        for thread in self._threads:
            thread.join()
        await asyncio.gather(*self._tasks)
        return bool(await done(self._load.cache.wait_healthy(10)))

    async def census(self) -> Census:
        """What the process holds now."""
        return Census.take(self._load.cache)

    async def close(self) -> Census:
        """Close the cache; what the process holds afterwards."""
        await done(self._load.cache.close())
        return Census.take(None)
