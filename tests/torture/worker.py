"""The processes of a run: each has one cache, reads and writes as its plan says, and notes what it saw."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

from nearcache import AsyncNearCache, NearCache
from nearcache.protocol import messages
from tests.support.ablations import guards
from tests.support.processes import connected, done, serve
from tests.support.raw_subscriber import RawSubscriber
from tests.torture.atomic import Clear, Operation
from tests.torture.book import KEYS, Book, Window, name, now, owned
from tests.torture.judge import Case, Kept, Verdict, judge
from tests.torture.reads import Reads
from tests.torture.writes import Writes

MAX_STALENESS = 1.0
REDIS_TIMEOUT, CONNECT_TIMEOUT = 0.25, 1.0
NAMESPACE = "torture"
READERS = 4
"""Threads or tasks that read in a reader process; a writer process has one."""
SAMPLE = 0.05


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
    loads: bool = True
    """Whether its reads load what they do not find."""
    clears: bool = True
    """Whether a writer clears the namespace now and then."""
    every_word: bool = False
    """Whether it begins with everything once, before it goes on at random."""
    without: str | None = None
    """A guard that is taken away."""


class Sample(NamedTuple):
    """The cache's counters at some time."""

    when: int
    hits: int
    reads: int
    flushes: int
    healthy: bool


@dataclass
class Figures:
    """What a process did and saw, to be sent to the one who asks."""

    who: str
    verdict: Verdict
    raised: list[str]
    samples: list[Sample]
    dropped: list[tuple[int, str]]
    """When the bus's messages were applied, by key."""
    raw: list[tuple[int, str]]
    done: Counter[str] = field(default_factory=Counter)
    """What was written, by name."""
    ways: Counter[str] = field(default_factory=Counter)
    """How it was read, by name."""
    operations: list[Operation] = field(default_factory=list)
    clears: list[Clear] = field(default_factory=list)


async def work(plan: Plan, book: Book, pipe: Connection) -> None:
    """A process from beginning to end."""
    if plan.without is not None:
        guards.GUARDS[plan.without].take_away()
    make = NearCache if plan.kind == "threads" else AsyncNearCache
    settings = {
        "ttl": plan.ttl,
        "max_staleness": MAX_STALENESS,
        "redis_timeout": REDIS_TIMEOUT,
        "redis_connect_timeout": CONNECT_TIMEOUT,
        "jitter": 0,
    }
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
        self._sampling = True
        self._raised: list[str] = []
        self._samples: list[Sample] = []
        self._dropped: list[tuple[int, str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._reads = Reads(cache, book, self._raised, loads=plan.loads)
        self._writes = (
            Writes(cache, book, plan.writer, self._raised, self._reads, clears=plan.clears)
            if plan.writer is not None
            else None
        )
        self._listen()

    def _listen(self) -> None:
        """Take the time of each drop, right where messages are applied."""
        for part in self._cache._core.all:
            self._listen_to(part.invalidation)

    def _listen_to(self, feed: Any) -> None:
        apply = feed.messages

        def applied(batch: Sequence[bytes]) -> Any:
            heard = apply(batch)
            when = now()
            self._dropped.extend((when, key) for data in batch for key in _names(data))
            return heard

        feed.messages = applied

    async def start(self) -> None:
        """Begin to read and to write; each time with the same keys, calls and pauses."""
        self._going(True)
        workers: list[Callable[[random.Random], Coroutine[Any, Any, None]]] = [self._reads.run]
        workers = workers * READERS if self._writes is None else [*workers, self._writes.run]
        for number, worker in enumerate(workers):
            work = self._work(worker, random.Random(f"{self._plan.seed} {self._plan.who} {number}"))
            self._tasks.append(asyncio.create_task(self._somewhere(work)))
        self._tasks.append(asyncio.create_task(self._sample()))

    async def _work(self, worker: Callable[[random.Random], Coroutine[Any, Any, None]], rng: random.Random) -> None:
        if self._plan.every_word:
            await self._reads.each_way(rng)
            if self._writes is not None and worker == self._writes.run:
                await self._writes.each_word(rng)
        await worker(rng)

    async def _somewhere(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a worker where this kind of cache is used."""
        if self._plan.kind == "asyncio":
            await work
        else:
            await asyncio.to_thread(asyncio.run, work)

    async def _sample(self) -> None:
        while self._sampling:
            stats = self._cache.stats()
            reads = stats.l1_hits + stats.l2_hits + stats.misses
            self._samples.append(Sample(now(), stats.l1_hits, reads, stats.flushes, self._cache.healthy))
            await asyncio.sleep(SAMPLE)

    async def flushes(self) -> int:
        """How often L1 was flushed so far."""
        return int(self._cache.stats().flushes)

    async def write_late(self) -> bool | None:
        """Write the late keys; whether it was acknowledged, None: another process writes them."""
        return await self._writes.late() if self._writes is not None else None

    async def rest(self) -> None:
        """Write no more."""
        if self._writes is not None:
            self._writes.going = False

    async def stop(self) -> None:
        """Read no more either."""
        self._going(False)
        for task in self._tasks:
            await task
        self._tasks.clear()

    async def again(self) -> None:
        """Do the same work once more."""
        await self.stop()
        await self.start()

    def _going(self, going: bool) -> None:
        self._reads.going = self._sampling = going
        if self._writes is not None:
            self._writes.going = going

    async def compare(self) -> Kept:
        """What this instance has of every key now."""
        local = [self._cache.peek(name(key)) for key in range(KEYS)]
        values = await done(self._cache.get_many([name(key) for key in range(KEYS)]))
        return Kept(self._plan.who, local, [values.get(name(key)) for key in range(KEYS)])

    async def report(self, window: Window) -> Figures:
        """Judge what was seen."""
        writes = owned(self._plan.writer) if self._plan.writer is not None else range(0)
        verdict = judge(self._reads.seen, Case(self._book, int(MAX_STALENESS * 1e9), window, writes))
        raw = [(when, key) for when, data in self._raw.heard for key in _names(data)] if self._raw is not None else []
        figures = Figures(self._plan.who, verdict, self._raised, self._samples, self._dropped, raw)
        figures.ways = self._reads.counted
        if self._writes is not None:
            figures.done, figures.operations = self._writes.counted, self._writes.operations
            figures.clears = self._writes.clears
        return figures


def _names(data: bytes) -> Sequence[str]:
    """The keys that a message says were written."""
    message = messages.unpack(data)
    return message.names if message.kind == messages.CHANGED else ()
