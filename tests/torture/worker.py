"""The processes of a run: each has one cache, reads and writes as its plan says, and notes what it saw."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from nearcache import AsyncNearCache, NearCache
from nearcache.protocol import messages
from tests.support.ablations import guards
from tests.support.processes import connected, done, serve
from tests.support.raw_subscriber import RawSubscriber
from tests.torture.book import DROP, KEYS, SET, Book, Window, name, now, owned, tags
from tests.torture.judge import Case, Kept, Read, Verdict, judge

MAX_STALENESS = 1.0
REDIS_TIMEOUT = 0.25
NAMESPACE = "torture"
READERS = 4
"""Threads or tasks that read in a reader process; a writer process has one."""
READ_PAUSE, WRITE_PAUSE = 0.004, 0.03
"""Seconds: reads of a thread or task come twice as far apart at most, writes of other keys as far."""
LOAD_TIME = 0.004
"""Seconds that the database needs at most."""
SAMPLE = 0.05
BUSY_KEYS = KEYS // 2
"""Most writes go to these; the others stay in L1 for seconds."""


@dataclass(frozen=True)
class Plan:
    """What a process is told at its start."""

    who: str
    kind: Literal["threads", "asyncio"]
    url: str
    seed: str
    writer: int | None = None
    """Its number, if it writes."""
    ttl: float = 3600.0
    raw: bool = False
    """Whether a raw subscriber listens beside the cache."""
    without: str | None = None
    """A guard that is taken away."""


@dataclass
class Figures:
    """What a process did and saw, to be sent to the one who asks."""

    who: str
    verdict: Verdict
    raised: list[str]
    samples: list[tuple[int, int, int]]
    """Now and then: time, reads that L1 answered, reads."""
    dropped: list[tuple[int, str]]
    """When the bus's messages were applied, by key."""
    raw: list[tuple[int, str]]
    done: Counter[str] = field(default_factory=Counter)
    """What was done, by name."""


def work(plan: Plan, book: Book, pipe: Connection) -> None:
    """A process from beginning to end."""
    if plan.without is not None:
        guards.GUARDS[plan.without].take_away()
    asyncio.run(_work(plan, book, pipe))


async def _work(plan: Plan, book: Book, pipe: Connection) -> None:
    make = NearCache if plan.kind == "threads" else AsyncNearCache
    settings = {"ttl": plan.ttl, "max_staleness": MAX_STALENESS, "redis_timeout": REDIS_TIMEOUT, "jitter": 0}
    async with connected(make, plan.url, namespace=NAMESPACE, **settings) as cache:
        raw = RawSubscriber(plan.url, NAMESPACE) if plan.raw else None
        instance = Instance(plan, book, cache, raw)
        try:
            if raw is not None:
                raw.start()
            await serve(pipe, instance)
        finally:
            await instance.stop()
            if raw is not None:
                raw.stop()


class Instance:
    """One process's work. Its workers are coroutines: tasks of one loop, or each in a thread with a loop of its own."""

    def __init__(self, plan: Plan, book: Book, cache: Any, raw: RawSubscriber | None) -> None:
        self._plan, self._book, self._cache, self._raw = plan, book, cache, raw
        self._reading = self._writing = True
        self._reads: list[Read] = []
        self._loaded: set[tuple[int, int]] = set()
        self._raised: list[str] = []
        self._samples: list[tuple[int, int, int]] = []
        self._dropped: list[tuple[int, str]] = []
        self._done: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        load = self._load_slowly if plan.kind == "asyncio" else self._load
        self._decorated = cache.cached("item:{key}")(load)
        self._loader: Callable[[int], Any] = load
        self._listen()

    def _listen(self) -> None:
        """Take the time of each drop, right where messages are applied."""
        feed = self._cache._core.invalidation
        apply = feed.messages

        def applied(batch: Sequence[bytes]) -> Any:
            heard = apply(batch)
            when = now()
            self._dropped.extend((when, key) for data in batch for key in _names(data))
            return heard

        feed.messages = applied

    # -------------------------------------------------------------------------------------------------------- orders

    async def start(self) -> None:
        """Begin to read and to write."""
        self._reading = self._writing = True
        workers = [self._read_on] * (READERS if self._plan.writer is None else 1)
        for number, worker in enumerate([*workers, *([self._write_on] if self._plan.writer is not None else [])]):
            work = worker(random.Random(f"{self._plan.seed} {self._plan.who} {number}"))
            self._tasks.append(asyncio.create_task(self._somewhere(work)))
        self._tasks.append(asyncio.create_task(self._sample()))

    async def rest(self) -> None:
        """Write no more."""
        self._writing = False

    async def stop(self) -> None:
        """Read no more either."""
        self._reading = self._writing = False
        for task in self._tasks:
            await task
        self._tasks.clear()

    async def compare(self) -> Kept:
        """What this instance has of every key now."""
        local = [self._cache.peek(name(key)) for key in range(KEYS)]
        values = await done(self._cache.get_many([name(key) for key in range(KEYS)]))
        return Kept(self._plan.who, local, [values.get(name(key)) for key in range(KEYS)])

    async def report(self, window: Window) -> Figures:
        """Judge what was seen."""
        writes = owned(self._plan.writer) if self._plan.writer is not None else range(0)
        case = Case(self._book, int(MAX_STALENESS * 1e9), window, frozenset(self._loaded), writes)
        raw = [(when, key) for when, data in self._raw.heard for key in _names(data)] if self._raw is not None else []
        verdict = judge(self._reads, case)
        return Figures(self._plan.who, verdict, self._raised, self._samples, self._dropped, raw, self._done)

    # ------------------------------------------------------------------------------------------------------- reading

    async def _somewhere(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a worker where this kind of cache is used."""
        if self._plan.kind == "asyncio":
            await work
        else:
            await asyncio.to_thread(asyncio.run, work)

    async def _sample(self) -> None:
        while self._reading:
            stats = self._cache.stats()
            self._samples.append((now(), stats.l1_hits, stats.l1_hits + stats.l2_hits + stats.misses))
            await asyncio.sleep(SAMPLE)

    async def _read_on(self, rng: random.Random) -> None:
        while self._reading:
            await self._read(rng.randrange(KEYS), rng)
            await asyncio.sleep(rng.uniform(0, 2 * READ_PAUSE))

    async def _read(self, key: int, rng: random.Random) -> None:
        load = rng.random() < 0.6
        start = now()
        try:
            if not load:
                version = await done(self._cache.get(name(key)))
            elif tags(key):
                version = await done(
                    self._cache.get_or_set(name(key), lambda: self._loader(key), tags=tags(key), lease=2)
                )
            else:
                version = await done(self._decorated(key))
        except Exception as error:  # whatever it is, it is a violation
            self._raised.append(f"a read of {name(key)} raised {error!r}")
            return
        if version is not None:
            self._reads.append(Read(key, start, now(), version))

    def _load(self, key: int) -> int:
        version = self._row(key)
        time.sleep(random.uniform(0, LOAD_TIME))
        return version

    async def _load_slowly(self, key: int) -> int:
        version = self._row(key)
        await asyncio.sleep(random.uniform(0, LOAD_TIME))
        return version

    def _row(self, key: int) -> int:
        version = self._book.row(key)
        self._loaded.add((key, version))
        return version

    # ------------------------------------------------------------------------------------------------------- writing

    async def _write_on(self, rng: random.Random) -> None:
        assert self._plan.writer is not None
        own = owned(self._plan.writer)
        busy = [key for key in own if key < BUSY_KEYS]
        while self._writing:
            key = rng.choice(busy if rng.random() < 0.8 else own)
            for more in reversed(
                range(rng.choice((1, 1, 2, 3)))
            ):  # another comes under the reads that the first caused
                try:
                    await self._write(key, rng)
                except Exception as error:  # whatever it is, it is a violation
                    self._raised.append(f"a write raised {error!r}")
                if rng.random() < 0.5:
                    await self._read(key, rng)
                await asyncio.sleep(rng.uniform(0, 4 * WRITE_PAUSE if more else WRITE_PAUSE))
            await asyncio.sleep(rng.uniform(0, 2 * WRITE_PAUSE))

    async def _write(self, key: int, rng: random.Random) -> None:
        cache, at = self._cache, name(key)
        draw = rng.random()
        if draw < 0.48:
            await self._note("set", [key], SET, lambda row: cache.set(at, row, tags=tags(key)))
        elif draw < 0.94:
            await self._note("delete", [key], DROP, lambda _: cache.delete(at))
        elif draw < 0.96 and hasattr(cache, "mark_stale"):
            await self._note("mark_stale", [key], DROP, lambda _: cache.mark_stale(at))
        elif draw < 0.98 and "hold" in inspect.signature(cache.delete).parameters:
            await self._note("delete with hold", [key], DROP, lambda _: cache.delete(at, hold=0.1))
        elif draw < 0.995 and (tagged := [one for one in owned(key % 2) if tags(one)]):
            await self._note("invalidate_tags", tagged, DROP, lambda _: cache.invalidate_tags(*tags(tagged[0])))
        else:
            await self._note("clear", list(owned(key % 2)), DROP, lambda _: cache.clear())

    async def _note(
        self, what: str, keys: Sequence[int], how: int, write: Callable[[int], Awaitable[bool] | bool]
    ) -> None:
        """Raise the rows, write, and note how it ended."""
        if any(map(self._book.full, keys)):
            self._raised.append("the book is full")
            self._writing = False
            return
        versions = {key: self._book.begin(key, how) for key in keys}
        acknowledged = False
        try:
            acknowledged = await done(write(versions[keys[0]]))
        finally:
            for key, version in versions.items():
                self._book.end(key, version, acknowledged=acknowledged)
            self._done[f"{what}{'' if acknowledged else ', not acknowledged'}"] += 1


def _names(data: bytes) -> Sequence[str]:
    """The keys that a message says were written."""
    message = messages.unpack(data)
    return message.names if message.kind == messages.CHANGED else ()
