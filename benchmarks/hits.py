"""What an L1 hit costs, in ns, with lru and s3fifo, beside functools.lru_cache, cachetools and cachebox in one run.

The caches stand on a real server, with their bus at work. Afterwards their counters are held against the number of
operations: a loop that was not all L1 hits measured something else, and fails the section.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import cachetools

from benchmarks.report import Chart, Report, Table, duration
from benchmarks.timing import Case, Spread, Times, compare
from nearcache import AsyncNearCache, NearCache
from nearcache.local.tier import STORES
from nearcache.transport.embedded import EmbeddedServer

GET = "lru: cache.get(key)"
PEER = "functools.lru_cache hit"
PEER_BY_INT = "functools.lru_cache hit, int"
BOX, BOX_TTL = "@cachebox.cached(LRUCache)", "@cachebox.cached(TTLCache)"
FLOOR = "await of an empty coroutine"
SIZES = {"hot": 200, "random": 10_000}
"""Distinct keys. At the larger number every look-up misses the processor's cache."""
ROOM = 100_000
"""Entries that every cache here may hold: more than there are."""
TTL = 3600
"""Seconds: nothing expires during a run."""
BUDGET = (
    ("s3fifo: cache.get(key)", PEER, 4.0),
    ("lru: cache.get(key)", PEER, 5.0),
    *(
        (f"{eviction}: @cache.cached, str argument", peer, 0.8)
        for peer in (BOX, BOX_TTL)
        for eviction in ("s3fifo", "lru")
    ),
)
"""For the hot keys: what, to which peer, at most how many times its time. Cachebox's TTLCache has a ttl, as ours."""


def show(report: Report) -> bool:
    """Measure, print and keep; whether every loop was all hits."""
    rounds = 3 if report.quick else 11
    held = True
    figures: dict[str, Any] = {"rounds": rounds}
    with EmbeddedServer() as server:
        for name, size in SIZES.items():
            times, problems = asyncio.run(_measure(server.url, size, rounds))
            report.show(_table(f"L1 hits, {size} {name} keys, {rounds} rounds", times, problems))
            report.chart(_chart(f"hits-{name}", f"{size:,} {name} keys", times))
            if name == "hot":
                report.show(_verdicts(report, times))
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
    caches: dict[str, NearCache | AsyncNearCache] = {}
    cases: list[Case] = []
    with ExitStack() as stack:
        async with AsyncExitStack() as later:
            for eviction in STORES:
                mine = {**options, "eviction": eviction}
                cache = stack.enter_context(NearCache.from_url(url, namespace=f"hits-sync-{eviction}", **mine))
                aio = AsyncNearCache.from_url(url, namespace=f"hits-aio-{eviction}", **mine)
                await later.enter_async_context(aio)
                if not (cache.set_many(values) and await aio.set_many(values)):
                    raise RuntimeError(f"{url} did not store the values")
                plain, awaited = _decorated(cache), _decorated_async(aio)
                for key in keys:
                    plain["by_str"](key)
                    plain["by_int"](_number(key))
                    await awaited["by_str"](key)
                cases += [*_near(cache, plain, eviction), *_near_async(aio, awaited, eviction)]
                caches |= {f"NearCache, {eviction}": cache, f"AsyncNearCache, {eviction}": aio}
            before = {name: one.stats() for name, one in caches.items()}
            times = await compare([*cases, *_peers(values), *_floors(values)], keys, rounds)
            problems = [
                f"{name} went past L1: {key} rose from {old} to {new}"
                for name, one in caches.items()
                for key in ("l2_hits", "misses", "loads", "evictions", "flushes")
                if (old := getattr(before[name], key)) != (new := getattr(one.stats(), key))
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


def _near(cache: NearCache, decorated: Mapping[str, Any], eviction: str) -> list[Case]:
    names = {"get": cache.get, "peek": cache.peek, "get_or_set": cache.get_or_set, "load": _never, **decorated}
    return [
        Case(f"{eviction}: cache.get(key)", "get(key)", names),
        Case(f"{eviction}: cache.get_or_set(key, load)", "get_or_set(key, load)", names),
        Case(f"{eviction}: cache.peek(key)", "peek(key)", names),
        Case(f"{eviction}: @cache.cached, str argument", "by_str(key)", names),
        Case(f"{eviction}: @cache.cached, int argument", "by_int(key)", names, _number),
    ]


def _near_async(cache: AsyncNearCache, decorated: Mapping[str, Any], eviction: str) -> list[Case]:
    names = {"get": cache.get, "get_or_set": cache.get_or_set, "load": _never, **decorated}
    return [
        Case(f"{eviction}: await cache.get(key)", "await get(key)", names),
        Case(f"{eviction}: await cache.get_or_set(key, load)", "await get_or_set(key, load)", names),
        Case(f"{eviction}: await of @cache.cached, str", "await by_str(key)", names),
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
        *_boxes(values),
    ]


def _boxes(values: Mapping[str, object]) -> list[Case]:
    """Those of cachebox, if it is there."""
    try:
        import cachebox  # an extra
    except ImportError:
        print("cachebox is not installed: pip install .[bench] brings it")
        return []

    def call(key: str) -> object:
        return values[key]

    return [
        Case(BOX, "call(key)", {"call": cachebox.cached(cachebox.LRUCache(ROOM))(call)}),
        Case(BOX_TTL, "call(key)", {"call": cachebox.cached(cachebox.TTLCache(ROOM, TTL))(call)}),
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
        ours=[label for label in labels if label.startswith(("lru:", "s3fifo:", "await "))],
        subtitle=f"Median of {len(times.rounds)} interleaved rounds, and its quartiles; processor time: less is better",
    )


def _verdicts(report: Report, times: Times) -> Table:
    rows = []
    for label, peer, budget in BUDGET:
        if peer not in times.rounds[0]:
            report.budget(label, None, budget, "×", peer, note="not installed")
            rows.append([label, peer, "not installed", "", f"{budget:g}", ""])
            continue
        ratio = times.ratio(label, to=peer)
        report.budget(label, ratio, budget, "×", peer)
        verdict = "yes" if ratio.median <= budget else "NO"
        rows.append([label, peer, f"{ratio.median:.2f}", _range(ratio, ".2f"), f"{budget:g}", verdict])
    head = ["", "peer", "ratio", "least–greatest", "budget", "held"]
    return Table("L1 hits of hot keys against their budget", head, rows)


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
