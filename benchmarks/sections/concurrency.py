"""Throughput and latency from 1 to 256 threads or tasks: L1 hits, L2 hits, and a mixed load, beside redis-py's GET.

Workers read in a closed loop for a while; in each round every load and number of workers has its turn, in a random
order. Each call is timed by the wall's clock. "mixed" is 90 % hits in L1, 9 % in L2 and 1 % writes. The control is GET
and unpack for each read, by redis-py or redis.asyncio with as many connections as workers.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis
import redis.asyncio

from benchmarks.rivals import redis_py
from nearcache import AsyncNearCache, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done
from tests.support.report import Chart, Report
from tests.support.tables import Table, duration, percentile

LEVELS = (1, 4, 16, 64, 256)
L1, L2, MIXED, PEER = "L1 hits", "L2 hits", "mixed", "redis-py GET"
THREADS, TASKS = "threads", "tasks"
KEYS = tuple(f"key:{number}" for number in range(200))
VALUE = {"id": 7, "name": "Ada Lovelace", "roles": ["reader", "author"]}
PATIENCE = 5.0
"""Seconds that an operation may wait: 256 workers on one core wait for each other, and none may time out."""


@dataclass
class Found:
    """Of each round: operations a second, and the p50 and p99 of a call in ns."""

    rates: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def take(self, taken: Sequence[Sequence[int]], seconds: float) -> None:
        """Add a round."""
        calls = [ns for one in taken for ns in one]
        self.rates.append(len(calls) / seconds)
        self.medians.append(percentile(calls, 0.5))
        self.tails.append(percentile(calls, 0.99))

    def told(self) -> dict[str, float]:
        """The medians of the rounds."""
        return {
            "per second": statistics.median(self.rates),
            "p50 ns": statistics.median(self.medians),
            "p99 ns": statistics.median(self.tails),
        }


def in_threads(call: Callable[[str], Any], workers: int, seconds: float) -> tuple[list[list[int]], float]:
    """Call it from so many threads for a while: the ns of each call, and the seconds that passed."""
    gate = threading.Barrier(workers + 1)
    stop = threading.Event()
    taken: list[list[int]] = [[] for _ in range(workers)]

    def work(mine: list[int], keys: Sequence[str]) -> None:
        clock = time.perf_counter_ns
        call(keys[0])  # opens its connection
        gate.wait(PATIENCE * 2)
        while not mine or not stop.is_set():
            for key in keys:
                since = clock()
                call(key)
                mine.append(clock() - since)

    with ThreadPoolExecutor(workers) as pool:
        working = [pool.submit(work, mine, random.sample(KEYS, 10)) for mine in taken]
        try:
            gate.wait(PATIENCE * 2)
            since = time.perf_counter()
            stop.wait(seconds)
        finally:
            stop.set()
        for one in working:
            one.result()
        return taken, time.perf_counter() - since


async def in_tasks(
    call: Callable[[str], Awaitable[Any]], workers: int, seconds: float
) -> tuple[list[list[int]], float]:
    """The same with tasks of one loop; each yields after ten calls, since an L1 hit never waits."""

    async def work(keys: Sequence[str]) -> list[int]:
        clock = time.perf_counter_ns
        mine: list[int] = []
        while not mine or time.perf_counter() < end:
            for key in keys:
                since = clock()
                await call(key)
                mine.append(clock() - since)
            await asyncio.sleep(0)
        return mine

    await asyncio.gather(*(call(random.choice(KEYS)) for _ in range(workers)))  # opens what connections there are to be
    since = time.perf_counter()
    end = since + seconds
    taken = await asyncio.gather(*(work(random.sample(KEYS, 10)) for _ in range(workers)))
    return list(taken), time.perf_counter() - since


def _options(room: int) -> dict[str, Any]:
    return {
        "namespace": "concurrency",
        "ttl": 600,
        "l1_max_entries": room,
        "redis_timeout": PATIENCE,
        "max_staleness": 4 * PATIENCE,
        "max_connections": max(LEVELS),
    }


async def measure(make: type[Cache], url: str, rounds: int, seconds: float) -> dict[tuple[str, int], Found]:
    """All loads and levels, with threads for NearCache and with tasks for AsyncNearCache."""
    found = {(load, level): Found() for load in (L1, L2, MIXED, PEER) for level in LEVELS}
    sync = make is NearCache
    client: Any = (redis.Redis if sync else redis.asyncio.Redis).from_url(url, max_connections=max(LEVELS))
    async with connected(make, url, **_options(1000)) as cache, connected(make, url, **_options(1)) as narrow:
        try:
            if not await done(cache.set_many(dict.fromkeys(KEYS, VALUE))):
                raise RuntimeError(f"{cache!r} did not store the values")
            await done(client.mset(dict.fromkeys(KEYS, msgpack.packb(VALUE))))
            get = redis_py.getting(client) if sync else redis_py.getting_async(client)
            calls: dict[str, Callable[[str], Any]] = {
                L1: cache.get,
                L2: narrow.get,
                MIXED: _mixed(cache, narrow) if sync else _mixed_async(cache, narrow),
                PEER: get,
            }
            for _ in range(rounds):
                for load, level in random.sample(list(found), len(found)):
                    taken = in_threads(calls[load], level, seconds) if sync else in_tasks(calls[load], level, seconds)
                    found[load, level].take(*await done(taken))
        finally:
            await done(client.close() if sync else client.aclose())
    return found


def _mixed(cache: NearCache, narrow: NearCache) -> Callable[[str], None]:
    choose = random.random

    def mixed(key: str) -> None:
        chance = choose()
        if chance < 0.9:
            cache.get(key)
        elif chance < 0.99:
            narrow.get(key)
        else:
            cache.set(key, VALUE)

    return mixed


def _mixed_async(cache: AsyncNearCache, narrow: AsyncNearCache) -> Callable[[str], Awaitable[None]]:
    choose = random.random

    async def mixed(key: str) -> None:
        chance = choose()
        if chance < 0.9:
            await cache.get(key)
        elif chance < 0.99:
            await narrow.get(key)
        else:
            await cache.set(key, VALUE)

    return mixed


def show(report: Report) -> bool:
    """Measure, print and keep."""
    rounds, seconds = (1, 0.1) if report.quick else (5, 0.5)
    with EmbeddedServer() as server:
        both: dict[str, dict[tuple[str, int], Found]] = {
            how: asyncio.run(measure(make, server.url, rounds, seconds))
            for how, make in ((THREADS, NearCache), (TASKS, AsyncNearCache))
        }
    told: dict[str, dict[str, dict[int, Any]]] = {how: {load: {} for load in (L1, L2, MIXED, PEER)} for how in both}
    for how, found in both.items():
        rows = []
        for (load, level), one in found.items():
            figures = told[how][load][level] = one.told()
            peer = found[PEER, level].told()["per second"]
            rate = figures["per second"]
            cells = f"{rate:,.0f}", f"{rate / peer:.2f}", duration(figures["p50 ns"]), duration(figures["p99 ns"])
            rows.append([f"{load}, {level} {how}", *cells])
        notes = [f"medians, rounds: {rounds} of {seconds} s; × redis-py: to as many {how} with GET and unpack"]
        report.show(Table(f"Concurrency, {how}", ["", "per second", "× redis-py", "p50", "p99"], rows, notes))
        report.chart(_chart(how, told[how]))
    report.keep("concurrency", {"rounds": rounds, "seconds": seconds, **told})
    return True


def _chart(how: str, told: dict[str, dict[int, Any]]) -> Chart:
    rate = {load: levels[16]["per second"] for load, levels in told.items()}
    return Chart(
        f"concurrency-{how}",
        f"16 {how}: L1 answers {rate[L1]:,.0f} reads a second, {rate[L1] / rate[PEER]:,.0f} times redis-py's GET",
        "lines",
        {load: [[level, one["per second"]] for level, one in levels.items()] for load, levels in told.items()},
        unit="reads a second",
        axis=how,
        ours=[L1, L2, MIXED],
        log=True,
        log_x=True,
        subtitle="Closed loop in one process; median of the rounds; both scales logarithmic",
    )
