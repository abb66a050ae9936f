"""What the way to Redis costs: reads that L1 does not have, and sets, beside redis-py on the same server.

Each row is a ratio to a command of redis-py or redis.asyncio: in each round the two take turns some times, in a random
order, so that other work of the machine meets both. The counters prove that our reads were L2 hits: a loop with other
answers measured something else, and fails the section. L1 is emptied before each loop, and each read puts its value
there; redis-py's side unpacks the same value by msgpack.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis
import redis.asyncio

from benchmarks.rivals import redis_py
from nearcache import AsyncNearCache, NearCache
from nearcache.base import BaseCache
from nearcache.engine.plain import LoneReads
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Spread, Table

KEYS = 400
"""Read or set in each loop, each once; divisible by each number of threads and tasks here."""
MANY = 100
"""Keys that one call reads."""
TURNS = 4
"""Of each of the two in a round."""
THREADS = (2, 4, 16)
TASKS = (10, 100)
NAMESPACE = "l2"
PATIENT = {"redis_timeout": 5, "max_staleness": 20}
"""Other work of the machine makes no read time out, and ends no proof."""
OPTIONS: Mapping[str, Any] = {"namespace": NAMESPACE, "ttl": 3600, "l1_max_entries": 10 * KEYS, **PATIENT}
VALUE = {"id": 7, "name": "Ada"}
"""Small, so that the way is measured and not msgpack."""


@dataclass(frozen=True)
class Row:
    """Two loops, and the limit of the ratio between them."""

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


Took = tuple[float, float]
"""µs per operation by the clock, and of this process's processor time."""
Rounds = dict[str, list[tuple[Took, Took]]]
"""Per row's label, what ours and the peer's took in each round."""
ROWS: tuple[Row, ...] = (
    Row("L2 hit, sync", "get", "redis-py GET", most=1.0),
    Row(f"get_many of {MANY} keys, L2", "get_many", "redis-py MGET", most=2.4),
    Row("the same, batching on to off", "get", "get, no batching", most=1.1),
    Row("set, sync, no subscribers", "set", "redis-py SET", most=1.25),
    Row("L2 hit, asyncio, batching on to off", "aio get", "aio get, no batching", most=1.1),
    *(
        Row(f"L2 hits, {n} tasks", f"aio get, {n}", f"redis.asyncio GET, {n}", least=7 if n == 100 else 1)
        for n in TASKS
    ),
    *(
        Row(f"L2 hits, {n} threads", f"get, {n}", f"redis-py GET, {n}", least={16: 3.5, 4: 1.5, 2: 1.1}[n])
        for n in THREADS
    ),
)


def show(report: Report) -> bool:
    """Measure, print and keep; whether every read was an L2 hit."""
    rounds = 5 if report.quick else 15
    with EmbeddedServer() as server:
        measured, problems = asyncio.run(_measure(server.url, rounds))
    report.show(ratios("The way to Redis, beside redis-py", ROWS, measured, problems))
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
                **ours_one_by_one(cache, writer, keys),
                **{f"redis-py {word}": case for word, case in peers_one_by_one(client, keys).items()},
                **_in_threads(cache, client, keys),
                **_in_tasks(aio, aclient, keys),
            }
            measured = await compare(ROWS, cases, rounds)
            stats = {"get": cache.stats(), "aio": aio.stats()}
    problems = []
    for name, one in stats.items():
        loops = sum(case.startswith(name) for row in ROWS for case in (row.ours, row.peer))
        wanted = TURNS * (rounds + 1) * KEYS * loops
        if (one.l2_hits, one.l1_hits, one.misses, one.l2_errors) != (wanted, 0, 0, 0):
            problems.append(f"of {wanted} reads: {one}")
    return measured, problems


Case = tuple[Callable[[], object], int]
"""A loop, perhaps of coroutines, and how many operations it does."""


async def compare(rows: Sequence[Row], cases: Mapping[str, Case], rounds: int) -> Rounds:
    """Per row and round, µs per operation of both loops."""
    measured: Rounds = {row.label: [] for row in rows}
    for number in range(rounds + 1):
        for row in random.sample(rows, len(rows)):
            took = await _turns(cases[row.ours], cases[row.peer])
            if number:  # the first one fills caches and pools
                measured[row.label].append(took)
    return measured


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
    """A cache without subscribers, itself included; its L1 is trusted by hand, so that a set puts its value there."""
    cache = NearCache.from_url(url, **{**OPTIONS, "namespace": "l2-silent"})
    core, tier = cache._core, cache._tier
    core.new_bus = None
    with cache:
        cache.get("connected")  # the server's clock is known now: the deadline of each set is made of it
        core.invalidation.server_offset = core.remote.now() / 1e6 - time.monotonic()
        tier.synced, tier.proof.until, tier.floors.known = True, float("inf"), True
        yield cache
        if cache.stats().journalled:
            raise RuntimeError(f"not every set was acknowledged: {cache.stats()}")


def emptied(cache: BaseCache) -> None:
    """Empty L1, and release what was put off, so that no measured call does it."""
    cache.clear_local()
    cache._tier.release()


@contextmanager
def unbatched(cache: BaseCache) -> Iterator[None]:
    """Each read is a request of its own."""
    core = cache._core
    batched, core.single = core.single, LoneReads(core)
    try:
        yield
    finally:
        core.single = batched


def ours_one_by_one(cache: NearCache, writer: NearCache, keys: list[str]) -> dict[str, Case]:
    """Our loops of get, get_many and set."""

    def get() -> None:
        emptied(cache)
        each(cache.get, keys)

    def get_alone() -> None:
        with unbatched(cache):
            get()

    def get_many() -> None:
        emptied(cache)
        by_hundreds(cache.get_many, keys)

    def put() -> None:
        each(lambda key: writer.set(key, VALUE), keys)

    loops = {"get": get, "get, no batching": get_alone, "get_many": get_many, "set": put}
    return {name: (loop, KEYS) for name, loop in loops.items()}


def peers_one_by_one(client: Any, keys: list[str]) -> dict[str, Case]:
    """The same of a client of redis-py, which unpacks and packs."""
    get, get_many, put = redis_py.getting(client), redis_py.getting_many(client), redis_py.setting(client)
    return {
        "GET": (partial(each, get, keys), KEYS),
        "MGET": (partial(by_hundreds, get_many, keys), KEYS),
        "SET": (partial(each, lambda key: put(f"set:{key}", VALUE), keys), KEYS),
    }


def by_hundreds(call: Callable[[list[str]], object], keys: list[str]) -> None:
    """Call with so many keys at a time."""
    for at in range(0, len(keys), MANY):
        call(keys[at : at + MANY])


def each(call: Callable[[str], object], keys: Iterable[str]) -> None:
    """Call with each key."""
    for key in keys:
        call(key)


def spread(call: Callable[[list[str]], object], keys: list[str], count: int) -> None:
    """Call with parts of the keys, in so many threads at once."""
    threads = [threading.Thread(target=call, args=(keys[at::count],)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_threads(cache: NearCache, client: Any, keys: list[str]) -> dict[str, Case]:
    def loop(call: Callable[[str], object], count: int) -> None:
        emptied(cache)
        spread(partial(each, call), keys, count)

    cases: dict[str, Case] = {}
    for count in THREADS:
        cases[f"get, {count}"] = (partial(loop, cache.get, count), KEYS)
        cases[f"redis-py GET, {count}"] = (partial(loop, redis_py.getting(client), count), KEYS)
    return cases


def _in_tasks(cache: AsyncNearCache, client: Any, keys: list[str]) -> dict[str, Case]:
    ours, peer = cache.get, redis_py.getting_async(client)

    async def one(call: Callable[[str], Awaitable[object]], part: list[str]) -> None:
        for key in part:
            await call(key)

    async def loop(call: Callable[[str], Awaitable[object]], count: int) -> None:
        emptied(cache)
        await asyncio.gather(*(one(call, keys[at::count]) for at in range(count)))

    async def alone() -> None:
        with unbatched(cache):
            await loop(ours, 1)

    cases: dict[str, Case] = {
        "aio get": (lambda: loop(ours, 1), KEYS),
        "aio get, no batching": (alone, KEYS),
        "redis.asyncio GET": (lambda: loop(peer, 1), KEYS),
    }
    for count in TASKS:
        cases[f"aio get, {count}"] = (partial(loop, ours, count), KEYS)
        cases[f"redis.asyncio GET, {count}"] = (partial(loop, peer, count), KEYS)
    return cases


def ratios(title: str, compared: Sequence[Row], rounds: Rounds, problems: Sequence[str]) -> Table:
    """The table of some rows."""
    rows = []
    for row in compared:
        ratio = row.ratio(rounds)
        ours, peer = (Spread.of([one[at][0] for one in rounds[row.label]]).median for at in (0, 1))
        rows.append(
            [
                row.label,
                f"{ours:.1f}",
                f"{peer:.1f}",
                f"{ratio.median:.2f}",
                ratio.range(),
                f"{row.processor(rounds).median:.2f}",
            ]
        )
    notes = [
        "µs per operation, of all tasks or threads together; ratios within a round: time, or throughput",
        "processor's: the ratio of this process's processor time, without what the server and other work take",
        *(f"WORTHLESS: {one}" for one in problems),
    ]
    head = ["", "ours µs", "peer's µs", "ratio", "least–greatest", "processor's"]
    return Table(f"{title}, {len(rounds[compared[0].label])} rounds", head, rows, notes)
