"""What each tier costs a caller: loader, L2 and L1, by size of the value, in percentiles, from threads and on a loop.

Each call is timed on its own by the wall's clock, some of each kind in turn, so that a machine that slows down slows
all. The loader is a query of a database, which is a sleep of 5 ms. "miss" is a read that has to load: the loader, and
what the cache adds to it, a lease and a fill; "miss, instant loader" is that addition alone. Where there are fewer
than 1,000 samples there is no p99.9.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.report import Chart, Report, Table, duration
from nearcache import AsyncNearCache, NearCache
from nearcache.transport.embedded import EmbeddedServer

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
Call = Callable[[], Any]
Samples = dict[str, list[float]]


def percentile(ascending: Sequence[float], part: float) -> float | None:
    """The value below which this part of them is; None of too few.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0], 0.999)
    (2.0, None)
    """
    if len(ascending) * (1 - part) < 1 - 1e-9:
        return None
    return ascending[math.ceil(part * len(ascending)) - 1]


def records(size: int) -> list[dict[str, Any]]:
    """A value that is about so large when it is packed: rows of 100 bytes, as a query brings them.

    >>> len(records(1_000))
    10
    """
    row = {"name": "Ada Lovelace", "mail": "ada@a.org", "active": True, "score": 0.7, "roles": ["reader", "writer"]}
    return [{"id": 1_000_000 + number, **row} for number in range(size // 100)]


def threaded(url: str, size: int, turns: int) -> Samples:
    """Samples in ns, of a NearCache."""
    value = records(size)
    names = [f"key:{number}" for number in range(KEYS)]
    keys, others = itertools.cycle(names), itertools.cycle(names)  # each its own: an L2 key never comes twice in a row
    fresh = map("new:{}".format, itertools.count()).__next__

    def query() -> Any:
        time.sleep(QUERY)
        return value

    # All keys in L1 of the one; in that of the other there is only room for the last: it reads from L2.
    with (
        NearCache.from_url(url, namespace=f"tiers-{size}", ttl=600) as cache,
        NearCache.from_url(url, namespace=f"tiers-{size}", ttl=600, l1_max_entries=1) as narrow,
    ):
        if not (cache.wait_healthy(10) and narrow.wait_healthy(10)):
            raise RuntimeError(f"{cache!r} did not become healthy")
        for key in names:
            cache.set(key, value)
            narrow.get(key)
        calls: dict[str, Call] = {
            LOADER: query,
            MISS: lambda: narrow.get_or_set(fresh(), query, ttl=10),
            OWN: lambda: narrow.get_or_set(fresh(), lambda: value, ttl=10),
            L2: lambda: narrow.get(next(others)),
            L1: lambda: cache.get(next(keys)),
            NOTHING: lambda: next(keys),
        }
        before = cache.stats().l1_hits, narrow.stats().l2_hits
        samples: Samples = {kind: [] for kind in calls}
        for _ in range(turns):
            for kind in random.sample(list(calls), len(calls)):
                call = calls[kind]
                for _ in range(SAMPLES[kind]):
                    since = time.perf_counter_ns()
                    call()
                    samples[kind].append(time.perf_counter_ns() - since)
        _check(samples, cache.stats().l1_hits - before[0], narrow.stats().l2_hits - before[1])
    return samples


async def awaited(url: str, size: int, turns: int) -> Samples:
    """The same of an AsyncNearCache."""
    value = records(size)
    names = [f"key:{number}" for number in range(KEYS)]
    keys, others = itertools.cycle(names), itertools.cycle(names)  # each its own: an L2 key never comes twice in a row
    fresh = map("new:{}".format, itertools.count()).__next__

    async def query() -> Any:
        await asyncio.sleep(QUERY)
        return value

    async def instant() -> Any:
        return value

    async def nothing() -> None:
        next(keys)

    async with (
        AsyncNearCache.from_url(url, namespace=f"tiers-aio-{size}", ttl=600) as cache,
        AsyncNearCache.from_url(url, namespace=f"tiers-aio-{size}", ttl=600, l1_max_entries=1) as narrow,
    ):
        if not (await cache.wait_healthy(10) and await narrow.wait_healthy(10)):
            raise RuntimeError(f"{cache!r} did not become healthy")
        for key in names:
            await cache.set(key, value)
            await narrow.get(key)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
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
                call = calls[kind]
                for _ in range(SAMPLES[kind]):
                    since = time.perf_counter_ns()
                    await call()
                    samples[kind].append(time.perf_counter_ns() - since)
        _check(samples, cache.stats().l1_hits - before[0], narrow.stats().l2_hits - before[1])
    return samples


def _check(samples: Samples, l1_hits: int, l2_hits: int) -> None:
    for kind, hits in ((L1, l1_hits), (L2, l2_hits)):
        if hits < len(samples[kind]):
            raise RuntimeError(f"only {hits} of {len(samples[kind])} reads were an {kind}: the figures are worthless")


def show(report: Report) -> bool:
    """Measure, print and keep."""
    turns = 30 if report.quick else 1_000
    found: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {"NearCache": {}, "AsyncNearCache": {}}
    with EmbeddedServer() as server:
        for name, size in SIZES.items():
            some = max(10, turns // max(1, size // 50_000))
            both = {
                "NearCache": threaded(server.url, size, some),
                "AsyncNearCache": asyncio.run(awaited(server.url, size, some)),
            }
            for face, samples in both.items():
                found[face][name] = {kind: _percentiles(line) for kind, line in samples.items()}
    for face, sizes in found.items():
        rows = [
            [f"{name}: {kind}", *("–" if ns is None else duration(ns) for ns in line.values())]
            for name, kinds in sizes.items()
            for kind, line in kinds.items()
        ]
        report.show(Table(f"Tiers, {face}, values of rows of 100 bytes", ["", *PERCENTILES], rows))
        report.chart(_chart(face, sizes))
    report.keep("tiers", {"turns": turns, "samples a turn": SAMPLES, "ns": found})
    return True


def _percentiles(line: Sequence[float]) -> dict[str, float | None]:
    ascending = sorted(line)
    return {name: percentile(ascending, part) for name, part in PERCENTILES.items()}


def _chart(face: str, sizes: dict[str, dict[str, dict[str, float | None]]]) -> Chart:
    small = sizes["1 KB"]
    l1, l2 = (small[kind]["p50"] or math.nan for kind in (L1, L2))
    loader = small[LOADER]["p50"] or math.nan
    return Chart(
        f"tiers-{face.lower()}",
        f"{face}: L1 in {duration(l1)}; L2 takes {l2 / l1:,.0f} times as long, the query {loader / l1:,.0f} times",
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
