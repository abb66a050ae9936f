"""What an L1 hit costs, in ns, beside functools.lru_cache and cachetools in the same run.

The caches stand on a real server, with their bus at work. Afterwards their counters are held against the number of
operations: a loop that was not all L1 hits measured something else, and fails the section.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cachetools

from benchmarks.report import Chart, Report, Table, duration
from benchmarks.timing import Case, Spread, Times, compare
from nearcache import AsyncNearCache, NearCache
from nearcache.remote.embedded import EmbeddedServer

GET = "cache.get(key)"
PEER = "functools.lru_cache hit"
PEER_BY_INT = "functools.lru_cache hit, int"
FLOOR = "await of an empty coroutine"
SIZES = {"hot": 200, "random": 10_000}
"""Distinct keys. At the larger number every look-up misses the processor's cache."""
ROOM = 100_000
"""Entries that every cache here may hold: more than there are."""
TTL = 3600
"""Seconds: nothing expires during a run."""


def show(report: Report) -> bool:
    """Measure, print and keep; whether every loop was all hits."""
    rounds = 5 if report.quick else 11
    held = True
    figures: dict[str, Any] = {"rounds": rounds}
    with EmbeddedServer() as server:
        for name, size in SIZES.items():
            times, problems = asyncio.run(_measure(server.url, size, rounds))
            report.show(_table(f"L1 hits, {size} {name} keys, {rounds} rounds", times, problems))
            report.chart(_chart(f"hits-{name}", f"{size:,} {name} keys", times))
            figures[name] = {"keys": size, "problems": problems, "cases": _figures(times)}
            held &= not problems
    report.keep("hits", figures)
    return held


async def _measure(url: str, size: int, rounds: int) -> tuple[Times, list[str]]:
    """The times over ``size`` keys, and what makes them worthless."""
    values = {f"user:{number}": {"id": number, "name": "Ada"} for number in range(size)}
    # Other objects than those stored: else a look-up is spared the comparison of the two.
    keys = [f"user:{number}" for number in random.sample(range(size), size)]
    options: Mapping[str, Any] = {"ttl": TTL, "l1_max_entries": ROOM}
    with NearCache.from_url(url, namespace="hits-sync", **options) as cache:
        async with AsyncNearCache.from_url(url, namespace="hits-aio", **options) as aio:
            if not (cache.set_many(values) and await aio.set_many(values)):
                raise RuntimeError(f"{url} did not store the values")
            plain, awaited = _decorated(cache), _decorated_async(aio)
            for key in keys:
                plain["by_str"](key)
                plain["by_int"](_number(key))
                await awaited["by_str"](key)
            before = cache.stats(), aio.stats()
            times = await compare(
                [*_near(cache, plain), *_near_async(aio, awaited), *_peers(values), *_floors(values)], keys, rounds
            )
            problems = [
                f"{name} went past L1: {key} rose from {old} to {new}"
                for name, was, now in zip(
                    ("NearCache", "AsyncNearCache"), before, (cache.stats(), aio.stats()), strict=True
                )
                for key in ("l2_hits", "misses", "loads", "evictions", "flushes")
                if (old := getattr(was, key)) != (new := getattr(now, key))
            ]
    return times, problems


def _number(key: str) -> int:
    return int(key.removeprefix("user:"))


def _decorated(cache: NearCache) -> dict[str, Any]:
    @cache.cached(ttl=TTL)
    def by_str(key: str) -> str:
        return key

    @cache.cached(ttl=TTL)
    def by_int(number: int) -> int:
        return number

    return {"by_str": by_str, "by_int": by_int}


def _decorated_async(cache: AsyncNearCache) -> dict[str, Any]:
    @cache.cached(ttl=TTL)
    async def by_str(key: str) -> str:
        return key

    return {"by_str": by_str}


def _near(cache: NearCache, decorated: Mapping[str, Any]) -> list[Case]:
    names = {"get": cache.get, "peek": cache.peek, "get_or_set": cache.get_or_set, "load": _never, **decorated}
    return [
        Case(GET, "get(key)", names),
        Case("cache.get_or_set(key, load)", "get_or_set(key, load)", names),
        Case("cache.peek(key)", "peek(key)", names),
        Case("@cache.cached, str argument", "by_str(key)", names),
        Case("@cache.cached, int argument", "by_int(key)", names, _number),
    ]


def _near_async(cache: AsyncNearCache, decorated: Mapping[str, Any]) -> list[Case]:
    names = {"get": cache.get, "get_or_set": cache.get_or_set, "load": _never, **decorated}
    return [
        Case("await cache.get(key)", "await get(key)", names),
        Case("await cache.get_or_set(key, load)", "await get_or_set(key, load)", names),
        Case("await of @cache.cached, str argument", "await by_str(key)", names),
    ]


def _peers(values: Mapping[str, object]) -> list[Case]:
    @functools.lru_cache(maxsize=ROOM)
    def lru(key: object) -> object:
        return key

    @cachetools.cached(cachetools.TTLCache(maxsize=ROOM, ttl=TTL))
    def ttl_decorated(key: str) -> object:
        return values[key]

    ttl_cache: cachetools.TTLCache[str, object] = cachetools.TTLCache(maxsize=ROOM, ttl=TTL)
    ttl_cache.update(values)
    lru_cache: cachetools.LRUCache[str, object] = cachetools.LRUCache(maxsize=ROOM)
    lru_cache.update(values)
    return [
        Case(PEER, "lru(key)", {"lru": lru}),
        Case(PEER_BY_INT, "lru(key)", {"lru": lru}, _number),
        Case("cachetools.LRUCache.get", "get(key)", {"get": lru_cache.get}),
        Case("cachetools.TTLCache.get", "get(key)", {"get": ttl_cache.get}),
        Case("@cachetools.cached(TTLCache)", "call(key)", {"call": ttl_decorated}),
    ]


def _floors(values: Mapping[str, object]) -> list[Case]:
    async def empty(_: str) -> None:
        pass

    held = dict(values)
    return [
        Case("dict.get", "get(key)", {"get": held.get}),
        Case("time.monotonic()", "monotonic()", {"monotonic": time.monotonic}),
        Case(FLOOR, "await empty(key)", {"empty": empty}),
    ]


def _never() -> Any:
    raise RuntimeError("a loader was called: that was no hit")


def _table(title: str, times: Times, problems: Sequence[str]) -> Table:
    rows = []
    for label in times.rounds[0]:
        ns, ratio = times.ns(label), times.ratio(label, to=PEER)
        rows.append([label, f"{ns.median:.0f}", _range(ns, ".0f"), f"{ratio.median:.2f}", _range(ratio, ".2f")])
    notes = [
        f"× lru_cache: to {PEER}, within a round. Processor time, net of the empty loop.",
        *(f"WORTHLESS: {one}" for one in problems),
    ]
    return Table(title, ["", "ns", "least–greatest", "× lru_cache", "least–greatest"], rows, notes)


def _chart(name: str, keys: str, times: Times) -> Chart:
    spreads = {label: times.ns(label) for label in times.rounds[0]}
    labels = sorted(spreads, key=lambda label: spreads[label].median)
    ratio = times.ratio(GET, to=PEER)
    return Chart(
        name,
        f"{keys}: a hit takes {duration(spreads[GET].median)}, {ratio.median:.1f} times functools.lru_cache's",
        "bars",
        {label: [[label, spreads[label].median, spreads[label].lower, spreads[label].upper]] for label in labels},
        unit="ns",
        ours=[label for label in labels if "cache." in label and "functools" not in label],
        subtitle=f"Median of {len(times.rounds)} interleaved rounds, and its quartiles; processor time: less is better",
    )


def _range(spread: Spread, form: str) -> str:
    return f"{spread.least:{form}}–{spread.greatest:{form}}"


def _figures(times: Times) -> dict[str, Any]:
    """Per case, the spreads as JSON has them, and the rounds they come from."""
    return {
        label: {
            "ns": vars(times.ns(label)),
            "to lru_cache": vars(times.ratio(label, to=PEER)),
            "rounds": [one[label] for one in times.rounds],
        }
        for label in times.rounds[0]
    }
