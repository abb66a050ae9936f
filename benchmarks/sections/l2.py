"""What the way to Redis costs: reads that L1 does not have, and sets, beside redis-py on the same server.

Each row is a ratio to redis-py's (or redis.asyncio's) own command: in each round the two take turns, in a random order,
some times, so that what else the machine does meets both. Reads of ours are proven to be L2 hits by the counters: a
loop that was answered otherwise measured something else, and fails the section. L1 is emptied before each loop, and
every read of it brings a value that goes there; redis-py's side unpacks the same value by msgpack.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis
import redis.asyncio

from nearcache import AsyncNearCache, NearCache
from nearcache.base import BaseCache
from nearcache.transport.batching import LoneReads
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Spread, Table

KEYS = 400
"""Read in each loop, each once; divisible by every number of threads and tasks here."""
SETS = 400
TURNS = 4
"""Of each of the two in a round."""
THREADS = (2, 4, 16)
TASKS = (10, 100)
NAMESPACE = "l2"
OPTIONS: Mapping[str, Any] = {"namespace": NAMESPACE, "ttl": 3600, "l1_max_entries": 10 * KEYS, "redis_timeout": 5}
VALUE = {"id": 7, "name": "Ada"}
"""As in hits.py: what is measured is the way, and not msgpack."""


@dataclass(frozen=True)
class Row:
    """Two measurements of which one is compared with the other, and what the ratio must be."""

    label: str
    ours: str
    peer: str
    least: float = 0.0
    """Of throughput: at least so many times the peer's."""
    most: float = 0.0
    """Of time: at most so many times the peer's."""

    def ratio(self, rounds: Rounds) -> Spread:
        """Per round, of throughput where that is what counts, else of time."""
        return Spread.of([(peer / ours if self.least else ours / peer) for (ours, _), (peer, _) in rounds[self.label]])

    def processor(self, rounds: Rounds) -> Spread:
        """The same of this process's processor time alone: what the server and other work take is not in it."""
        return Spread.of([(peer / ours if self.least else ours / peer) for (_, ours), (_, peer) in rounds[self.label]])

    def held(self, ratio: Spread) -> bool:
        """Whether the median keeps the budget."""
        return ratio.median >= self.least if self.least else ratio.median <= self.most

    @property
    def budget(self) -> str:
        """As the table shows it."""
        return f"≥ {self.least:g}× throughput" if self.least else f"≤ {self.most:g}× time"


Took = tuple[float, float]
"""µs per operation by the clock, and of this process's processor time."""
Rounds = dict[str, list[tuple[Took, Took]]]
"""Per row's label, what ours and the peer's took in each round."""
ROWS: tuple[Row, ...] = (
    Row("L2 hit, sync", "get", "redis-py GET", most=1.0),
    Row("the same, batching on to off", "get", "get, no batching", most=1.1),
    Row("set, sync, no subscribers", "set", "redis-py SET", most=1.25),
    Row("L2 hit, asyncio, batching on to off", "aio get", "aio get, no batching", most=1.1),
    *(
        Row(f"L2 hits, {n} tasks", f"aio get, {n}", f"redis.asyncio GET, {n}", least=10 if n == 100 else 1)
        for n in TASKS
    ),
    *(Row(f"L2 hits, {n} threads", f"get, {n}", f"redis-py GET, {n}", least=4 if n == 16 else 1.5) for n in THREADS),
)


def show(report: Report) -> bool:
    """Measure, print and keep; whether every read was an L2 hit."""
    rounds = 5 if report.quick else 15
    with EmbeddedServer() as server:
        measured, problems = asyncio.run(_measure(server.url, rounds))
    report.show(_ratios(measured, problems))
    for row in ROWS:
        unit, at_least = ("× throughput", True) if row.least else ("× time", False)
        report.budget(row.label, row.ratio(measured), row.least or row.most, unit, row.peer, at_least=at_least)
    report.keep("l2", {"rounds": measured, "problems": problems})
    return not problems


async def _measure(url: str, rounds: int) -> tuple[Rounds, list[str]]:
    """Per row and round, µs per operation of ours and the peer; and what makes them worthless."""
    keys = [f"user:{number}" for number in range(KEYS)]
    with NearCache.from_url(url, **OPTIONS) as cache, silent(url) as writer, redis.Redis.from_url(url) as client:
        async with AsyncNearCache.from_url(url, **OPTIONS) as aio, redis.asyncio.Redis.from_url(url) as aclient:
            if not cache.set_many(dict.fromkeys(keys, VALUE)):
                raise RuntimeError(f"{url} did not store the values")
            packed = msgpack.packb(VALUE)
            for key in keys:
                client.set(key, packed)
            cases = {
                **_one_by_one(cache, writer, client, keys),
                **_in_threads(cache, client, keys),
                **_in_tasks(aio, aclient, keys),
            }
            measured: Rounds = {row.label: [] for row in ROWS}
            for number in range(rounds + 1):
                for row in random.sample(ROWS, len(ROWS)):
                    took = await _turns(cases[row.ours], cases[row.peer])
                    if number:  # the first one fills caches and pools
                        measured[row.label].append(took)
            stats = {"get": cache.stats(), "aio": aio.stats()}
    problems = []
    for name, one in stats.items():
        wanted = (
            TURNS * (rounds + 1) * KEYS * sum(case.startswith(name) for row in ROWS for case in (row.ours, row.peer))
        )
        if (one.l2_hits, one.l1_hits, one.misses, one.l2_errors) != (wanted, 0, 0, 0):
            problems.append(f"of {wanted} reads: {one}")
    return measured, problems


Case = tuple[Callable[[], object], int]
"""A loop, perhaps of coroutines, and how many operations it does."""


async def _turns(ours: Case, peer: Case) -> tuple[Took, Took]:
    """What each takes, over all its turns."""
    took = {ours: (0.0, 0.0), peer: (0.0, 0.0)}
    for _ in range(TURNS):
        for case in random.sample((ours, peer), 2):
            clock, processor = await _timed(case)
            took[case] = took[case][0] + clock / TURNS, took[case][1] + processor / TURNS
    return took[ours], took[peer]


async def _timed(case: Case) -> Took:
    """What one turn takes."""
    loop, operations = case
    await asyncio.sleep(0.002)
    gc.collect()
    gc.disable()
    try:
        began, busy = time.perf_counter(), time.process_time()
        work = loop()
        if isinstance(work, Coroutine):
            await work
        clock, processor = time.perf_counter() - began, time.process_time() - busy
        return clock / operations * 1e6, processor / operations * 1e6
    finally:
        gc.enable()


@contextmanager
def silent(url: str) -> Iterator[NearCache]:
    """A cache whose messages nobody hears, itself included; its L1 is trusted by hand, so that a set goes there."""
    cache = NearCache.from_url(url, **{**OPTIONS, "namespace": "l2-silent"})
    cache._core.new_bus = None
    tier = cache._tier
    tier.synced, tier.fresh_until, tier.floors.known = True, float("inf"), True
    with cache:
        yield cache


def emptied(cache: BaseCache) -> None:
    """Empty L1, with nothing left to be released by those that are measured."""
    cache.clear_local()
    cache._tier.release()


@contextmanager
def unbatched(cache: BaseCache) -> Iterator[None]:
    """Every read goes by itself."""
    remote: Any = cache._core.remote
    batched, remote.read_one = remote.read_one, LoneReads(remote.read).read_one
    try:
        yield
    finally:
        remote.read_one = batched


def _one_by_one(cache: NearCache, writer: NearCache, client: Any, keys: list[str]) -> dict[str, Case]:
    def get() -> None:
        emptied(cache)
        for key in keys:
            cache.get(key)

    def get_alone() -> None:
        with unbatched(cache):
            get()

    def peer_get() -> None:
        for key in keys:
            msgpack.unpackb(client.execute_command("GET", key))

    def put() -> None:
        for key in keys[:SETS]:
            writer.set(key, VALUE)

    def peer_put() -> None:
        for key in keys[:SETS]:
            client.set(f"set:{key}", msgpack.packb(VALUE), px=3_600_000)

    return {
        "get": (get, KEYS),
        "get, no batching": (get_alone, KEYS),
        "redis-py GET": (peer_get, KEYS),
        "set": (put, SETS),
        "redis-py SET": (peer_put, SETS),
    }


def _in_threads(cache: NearCache, client: Any, keys: list[str]) -> dict[str, Case]:
    def ours(part: list[str]) -> None:
        for key in part:
            cache.get(key)

    def peer(part: list[str]) -> None:
        for key in part:
            msgpack.unpackb(client.execute_command("GET", key))

    def spread(work: Callable[[list[str]], None], count: int) -> None:
        emptied(cache)
        threads = [threading.Thread(target=work, args=(keys[at::count],)) for at in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    cases: dict[str, Case] = {}
    for count in THREADS:
        cases[f"get, {count}"] = (partial(spread, ours, count), KEYS)
        cases[f"redis-py GET, {count}"] = (partial(spread, peer, count), KEYS)
    return cases


def _in_tasks(cache: AsyncNearCache, client: Any, keys: list[str]) -> dict[str, Case]:
    async def ours(part: list[str]) -> None:
        for key in part:
            await cache.get(key)

    async def peer(part: list[str]) -> None:
        for key in part:
            msgpack.unpackb(await client.execute_command("GET", key))

    async def spread(work: Callable[[list[str]], Coroutine[Any, Any, None]], count: int) -> None:
        emptied(cache)
        await asyncio.gather(*(work(keys[at::count]) for at in range(count)))

    async def alone() -> None:
        with unbatched(cache):
            await spread(ours, 1)

    cases: dict[str, Case] = {
        "aio get": (lambda: spread(ours, 1), KEYS),
        "aio get, no batching": (alone, KEYS),
        "redis.asyncio GET": (lambda: spread(peer, 1), KEYS),
    }
    for count in TASKS:
        cases[f"aio get, {count}"] = (partial(spread, ours, count), KEYS)
        cases[f"redis.asyncio GET, {count}"] = (partial(spread, peer, count), KEYS)
    return cases


def _ratios(rounds: Rounds, problems: list[str]) -> Table:
    rows = []
    for row in ROWS:
        ratio = row.ratio(rounds)
        ours, peer = (Spread.of([one[at][0] for one in rounds[row.label]]).median for at in (0, 1))
        spread = f"{ratio.least:.2f}–{ratio.greatest:.2f}"
        verdict = "held" if row.held(ratio) else "MISSED"
        rows.append(
            [
                row.label,
                f"{ours:.1f}",
                f"{peer:.1f}",
                f"{ratio.median:.2f}",
                spread,
                f"{row.processor(rounds).median:.2f}",
                row.budget,
                verdict,
            ]
        )
    notes = [
        "µs per operation, of all tasks or threads together; ratios within a round: time, or throughput",
        "processor's: the ratio of this process's processor time, without what the server and other work take",
        *(f"WORTHLESS: {one}" for one in problems),
    ]
    head = ["", "ours µs", "peer's µs", "ratio", "least–greatest", "processor's", "budget", ""]
    return Table(f"The way to Redis, beside redis-py, {len(rounds[ROWS[0].label])} rounds", head, rows, notes)
