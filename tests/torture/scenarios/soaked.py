"""One process of the soak run: a cache at full load, and a census of all that it holds."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nearcache import AsyncNearCache, NearCache

KEYS = 4_000
L1_MAX = 2_000
"""Fewer than there are keys, so that entries come and go."""
LEASE = 5.0
WORKERS = {"threads": 4, "asyncio": 16}
"""Threads or tasks that do nothing but call the cache."""
SAMPLE_EVERY = 3.0
SETTINGS: dict[str, Any] = {"namespace": "soak", "ttl": 10, "lease": LEASE, "l1_max_entries": L1_MAX}
OPTIONS: tuple[dict[str, Any], ...] = (
    *({"lease": LEASE} for _ in range(6)),
    {"early_refresh": 0.5},
    {"xfetch_beta": 1.0},
    {"stale_while_revalidate": 5.0},
    {"stale_if_error": 5.0, "loader_soft_timeout": 1.0},
)
"""Of loads: most have none, the others refresh and wait behind their readers' backs."""

Cache = NearCache | AsyncNearCache


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
            census.tables = len(tier.floors.tags) + len(tier.journal) + len(core.reported) + len(tier._store.tagged)
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
class Minute:
    """What a process tells once a minute."""

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
        self.minute = Minute()
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
                self.minute.raised.append(repr(error))
            self.minute.calls += 1

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
                self.minute.raised.append(repr(error))
            self.minute.calls += 1
            if self.minute.calls % 10 == 0:
                await asyncio.sleep(0)  # a hit does not suspend

    def told(self) -> Minute:
        """The minute that is over; a new one begins."""
        minute, self.minute = self.minute, Minute()
        hits = self.cache.stats().l1_hits
        minute.hits, self._hits = hits - self._hits, hits
        return minute


async def _soon(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def work(kind: str, url: str, seed: int, pipe: Connection) -> None:
    """A process from beginning to end."""
    asyncio.run((_work_async if kind == "asyncio" else _work_threads)(url, seed, pipe))


async def _work_threads(url: str, seed: int, pipe: Connection) -> None:
    before = Census.take(None)
    cache = NearCache.from_url(url, **SETTINGS)
    load = Load(cache, seed)
    threads = [
        threading.Thread(target=load.run_thread, args=(number,), name=f"load-{number}")
        for number in range(WORKERS["threads"])
    ]

    def begin() -> None:
        for thread in threads:
            thread.start()

    def end() -> None:
        for thread in threads:
            thread.join()

    await _serve(pipe, load, before, begin=begin, end=end)


async def _work_async(url: str, seed: int, pipe: Connection) -> None:
    before = Census.take(None)
    cache = AsyncNearCache.from_url(url, **SETTINGS)
    load = Load(cache, seed)
    tasks: list[asyncio.Task[None]] = []

    def begin() -> None:
        tasks.extend(asyncio.create_task(load.run_task(number)) for number in range(WORKERS["asyncio"]))

    await _serve(pipe, load, before, begin=begin, end=lambda: asyncio.gather(*tasks))


async def _serve(
    pipe: Connection, load: Load, before: Census, *, begin: Callable[[], Any], end: Callable[[], Any]
) -> None:
    """Follow the orders, and take a sample now and then."""
    cache = load.cache
    await _done(cache.wait_healthy(10))
    pipe.send(before)
    next_sample = float("inf")
    while True:
        if pipe.poll(0):
            order = pipe.recv()
            if order == "begin":
                pipe.send(Census.take(cache))
                begin()
                next_sample = time.monotonic() + SAMPLE_EVERY
            elif order == "minute":
                if not load.minute.samples:  # it was a short one
                    load.minute.samples.append(Census.take(cache))
                pipe.send(load.told())
            elif order == "end":
                next_sample = float("inf")
                load.stop.set()
                await _done(end())
                pipe.send(await _done(cache.wait_healthy(10)))
            elif order == "census":
                pipe.send(Census.take(cache))
            else:
                await _done(cache.close())
                pipe.send(Census.take(None))
                return
        if time.monotonic() >= next_sample:
            next_sample = time.monotonic() + SAMPLE_EVERY
            load.minute.samples.append(Census.take(cache))
        await asyncio.sleep(0.05)  # orders are few


async def _done(answer: Any) -> Any:
    """What a method of either class gives: plain, or to be awaited."""
    return await answer if inspect.isawaitable(answer) else answer
