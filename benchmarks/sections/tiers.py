"""What each tier costs a caller: loader, L2 and L1, by size of the value, in percentiles, from threads and on a loop.

Each call is timed by itself on the wall's clock, some of each kind in turn, so that a machine that slows down slows all
kinds. The loader stands for a query of a database and sleeps 5 ms. "miss" is a read that has to load: the loader, and
what the cache adds to it, a lease and a fill; "miss, instant loader" is that addition alone. There is no p99.9 of fewer
than 1,000 samples.

"Ways to read a value" sets the four ways beside each other, the function, Redis, L2 and L1, and peers that keep values
in the process and follow a server: with a server on this machine, and with one that is FAR away, behind a proxy.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from benchmarks.harness.timing import Case, Times, compare
from benchmarks.rivals import near, redis_py, tracking
from benchmarks.rivals.base import DECORATED, HIT, WIRE_GET, NotRun, Rival, Stage
from nearcache import AsyncNearCache, NearCache
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done
from tests.support.report import Chart, Report
from tests.support.tables import Table, duration, percentile

SIZES = {"100 B": 100, "1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}
QUERY = 0.005
"""Seconds that the simulated query takes."""
KEYS = 8
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
LOADER, MISS, OWN, L2, L1, NOTHING = (
    "loader alone, 5 ms",
    "miss, loader of 5 ms",
    "miss, instant loader",
    "L2 hit",
    "L1 hit",
    "an empty call, and the clock",
)
SAMPLES = {LOADER: 1, MISS: 1, OWN: 2, L2: 5, L1: 50, NOTHING: 50}
"""Of each kind, in one turn."""
FAR = 0.005
"""Seconds that a server far away takes longer to answer."""
FUNCTION, REDIS, OF_L2, OF_L1 = (
    "the function, 5 ms",
    "redis-py: GET and unpack",
    "NearCache: from L2",
    "NearCache: from L1",
)
WAYS: Sequence[tuple[str, Rival, str]] = (
    (REDIS, redis_py.RIVAL, WIRE_GET),
    (OF_L2, near.SYNC, WIRE_GET),
    (OF_L1, near.SYNC, HIT),
    ("AsyncNearCache: from L1", near.ASYNC, HIT),
    ("Valkey GLIDE: its cache", tracking.GLIDE, HIT),
    ("coredis: TrackingCache", tracking.COREDIS, HIT),
    ("cashews: client_side", tracking.CASHEWS, HIT),
    ("cachekit: its L1", tracking.CACHEKIT, DECORATED),
    ("redis-py: client-side caching", tracking.REDIS_PY, HIT),
)
"""What a way is called, and whose statement it is."""
Call = Callable[[], Any]
Samples = dict[str, list[float]]


def records(size: int) -> list[dict[str, Any]]:
    """A value that is about so large when it is packed: rows of 100 bytes, as a query brings them.

    >>> len(records(1_000))
    10
    """
    row = {"name": "Ada Lovelace", "mail": "ada@a.org", "active": True, "score": 0.7, "roles": ["reader", "writer"]}
    return [{"id": 1_000_000 + number, **row} for number in range(size // 100)]


async def measure(make: type[Cache], url: str, size: int, turns: int) -> Samples:
    """Samples in ns of the calls of one class."""
    value, sync = records(size), make is NearCache
    names = [f"key:{number}" for number in range(KEYS)]
    keys, others = itertools.cycle(names), itertools.cycle(names)  # two: an L2 key never comes twice in a row
    fresh = map("new:{}".format, itertools.count()).__next__
    query, instant, nothing = (_plain if sync else _awaited)(value, keys)
    options: dict[str, Any] = {"namespace": f"tiers-{make.__name__}-{size}", "ttl": 600}
    # L1 of the one has room for all keys; that of the other for one key only, so that it reads from L2.
    async with connected(make, url, **options) as cache, connected(make, url, **options, l1_max_entries=1) as narrow:
        for key in names:
            await done(cache.set(key, value))
            await done(narrow.get(key))
        calls: dict[str, Call] = {
            LOADER: query,
            MISS: lambda: narrow.get_or_set(fresh(), query, ttl=10),
            OWN: lambda: narrow.get_or_set(fresh(), instant, ttl=10),
            L2: lambda: narrow.get(next(others)),
            L1: lambda: cache.get(next(keys)),
            NOTHING: nothing,
        }
        before = cache.stats().l1_hits, narrow.stats().l2_hits
        samples: Samples = {kind: [] for kind in calls}
        for _ in range(turns):
            for kind in random.sample(list(calls), len(calls)):
                timed = _timed(calls[kind], SAMPLES[kind]) if sync else await _timed_async(calls[kind], SAMPLES[kind])
                samples[kind] += timed
        after = cache.stats().l1_hits, narrow.stats().l2_hits
    for kind, new, old in zip((L1, L2), after, before, strict=True):
        if new - old < len(samples[kind]):
            raise RuntimeError(f"only {new - old} of {len(samples[kind])} reads were an {kind}: worthless figures")
    return samples


def _plain(value: Any, keys: Iterator[str]) -> tuple[Call, Call, Call]:
    """The query, the instant loader and the empty call."""

    def query() -> Any:
        time.sleep(QUERY)
        return value

    return query, lambda: value, lambda: next(keys)


def _awaited(value: Any, keys: Iterator[str]) -> tuple[Call, Call, Call]:
    """The same, awaited."""

    async def query() -> Any:
        await asyncio.sleep(QUERY)
        return value

    async def instant() -> Any:
        return value

    async def nothing() -> None:
        next(keys)

    return query, instant, nothing


def _timed(call: Call, times: int) -> list[float]:
    """Nanoseconds of some calls, each by itself."""
    samples: list[float] = []
    for _ in range(times):
        since = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - since)
    return samples


async def _timed_async(call: Call, times: int) -> list[float]:
    samples: list[float] = []
    for _ in range(times):
        since = time.perf_counter_ns()
        await call()
        samples.append(time.perf_counter_ns() - since)
    return samples


async def ways(server: EmbeddedServer | FaultProxy, rounds: int) -> tuple[Times, list[str]]:
    """Each way to read a value, side by side; and which peers could not be run."""
    stage = Stage(server, {f"user:{number}": f"Ada {number}" for number in range(KEYS)})
    cases, absent = [Case(FUNCTION, "sleep(QUERY)", {"sleep": time.sleep, "QUERY": QUERY})], []
    async with AsyncExitStack() as stack:
        entered: dict[str, Any] = {}
        for name, rival, kind in WAYS:
            try:
                offered = entered.get(rival.name) or await rival.enter(stack, stage)
            except NotRun as error:
                absent.append(f"NOT RUN: {name}: {error}")
                continue
            entered[rival.name] = offered
            cases.append(replace(offered[kind], label=name))
        # Other objects than those that are stored: else a look-up is spared the comparison of the two.
        keys = ["".join(key) for key in stage.values]
        return await compare(cases, keys, rounds, seconds=0.02, waits=True), absent


def _show_ways(report: Report, server: EmbeddedServer) -> None:
    rounds = 5 if report.quick else 15
    close, absent = asyncio.run(ways(server, rounds))
    with FaultProxy(server.port) as proxy:
        proxy.delay_replies(FAR)
        far, _ = asyncio.run(ways(proxy, rounds))
    names = sorted(
        close.rounds[0].keys() & {FUNCTION, *(name for name, _, _ in WAYS)}, key=lambda name: -far.ns(name).median
    )
    rows = [[name, duration(close.ns(name).median), duration(far.ns(name).median)] for name in names]
    notes = [
        f"medians of {rounds} interleaved rounds on the wall's clock; far: {FAR * 1000:g} ms more for each answer",
        *absent,
    ]
    report.show(Table("Ways to read a value", ["", "server here", "server far away"], rows, notes))
    report.keep("ways", {name: {"near": vars(close.ns(name)), "far": vars(far.ns(name))} for name in names})
    l1, redis, distant = close.ns(OF_L1).median, close.ns(REDIS).median, far.ns(REDIS).median
    bars: dict[str, Any] = {}
    for name in names:
        here, there = close.ns(name), far.ns(name)
        if name in (REDIS, OF_L2):
            bars[f"{name}, far"] = [[name, there.median, there.lower, there.upper]]
            bars[f"{name}, near"] = [[name, here.median, here.lower, here.upper]]
        else:  # far away it is the same, but for chance
            bars[name] = [[name, here.median, here.lower, here.upper]]
    report.chart(
        Chart(
            "ways",
            f"From L1 in {duration(l1)}; Redis takes {duration(redis)} near, {duration(distant)} far away",
            "bars",
            dict(sorted(bars.items(), key=lambda bar: -float(bar[1][0][1]))),
            unit="ns",
            ours=[name for name in bars if "NearCache" in name],
            log=True,
            subtitle=f"One read, median and quartiles, logarithmic; far: {FAR * 1000:g} ms more for each answer",
        )
    )


def show(report: Report) -> bool:
    """Measure, print and keep."""
    with EmbeddedServer() as server:
        _show_ways(report, server)
    turns = 30 if report.quick else 1_000
    found: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {"NearCache": {}, "AsyncNearCache": {}}
    with EmbeddedServer() as server:
        for name, size in SIZES.items():
            some = max(10, turns // max(1, size // 50_000))
            for make in (NearCache, AsyncNearCache):
                samples = asyncio.run(measure(make, server.url, size, some))
                found[make.__name__][name] = {kind: _percentiles(line) for kind, line in samples.items()}
    for name_of_class, sizes in found.items():
        rows = [
            [f"{name}: {kind}", *("–" if ns is None else duration(ns) for ns in line.values())]
            for name, kinds in sizes.items()
            for kind, line in kinds.items()
        ]
        report.show(Table(f"Tiers, {name_of_class}, values of rows of 100 bytes", ["", *PERCENTILES], rows))
        report.chart(_chart(name_of_class, sizes))
    report.keep("tiers", {"turns": turns, "samples a turn": SAMPLES, "ns": found})
    return True


def _percentiles(line: Sequence[float]) -> dict[str, float | None]:
    return {
        name: percentile(line, part) if len(line) * (1 - part) >= 1 - 1e-9 else None  # too few to tell
        for name, part in PERCENTILES.items()
    }


def _chart(name_of_class: str, sizes: dict[str, dict[str, dict[str, float | None]]]) -> Chart:
    small = sizes["1 KB"]
    l1, l2 = (small[kind]["p50"] or math.nan for kind in (L1, L2))
    loader = small[LOADER]["p50"] or math.nan
    return Chart(
        f"tiers-{name_of_class.lower()}",
        f"{name_of_class}: L1 in {duration(l1)}; L2 takes {l2 / l1:,.0f} times as long, the query {loader / l1:,.0f}",
        "lines",
        {
            kind: [
                [SIZES[name], kinds[kind]["p50"], kinds[kind]["p50"], kinds[kind]["p90"]]
                for name, kinds in sizes.items()
            ]
            for kind in (MISS, OWN, L2, L1)
        },
        unit="ns",
        axis="bytes of a value",
        ours=[L1, L2],
        log=True,
        log_x=True,
        subtitle="Median of each call, the band up to p90; on the wall's clock, both scales logarithmic",
    )
