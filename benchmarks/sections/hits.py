"""What an L1 hit costs, in ns, with lru and s3fifo, beside functools.lru_cache, cachetools and cachebox in one run.

The caches are connected to a real server, with their bus at work. Afterwards their counters are compared with those
before: a loop that was not all L1 hits measured something else, and fails the section.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.harness.timing import Case, Times, compare
from benchmarks.rivals import memory
from benchmarks.rivals.base import COPIES, COPIES_LRU, DECORATED, DECORATED_INT, HIT, HIT_LRU, NotRun, Stage, number_of
from benchmarks.rivals.near import OPTIONS, past_l1
from nearcache import AsyncNearCache, NearCache
from nearcache.local.contents import STORES
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Chart, Report
from tests.support.tables import Table, duration

GET, PEER = "lru: cache.get(key)", memory.LRU_HIT
SIZES = {"hot": 200, "random": 10_000}
"""Distinct keys. With 10,000 of them every look-up misses the processor's cache."""
KINDS = (DECORATED, DECORATED_INT, HIT, HIT_LRU, COPIES, COPIES_LRU)
COPY = ("auto", "none")
"""What a hit of a dict costs by default, and where the callers have promised not to change it."""
BUDGET = (
    ("s3fifo: cache.get(key)", PEER, 4.0),
    ("lru: cache.get(key)", PEER, 5.0),
    *(
        (f"{eviction}: @cache.cached, str argument", peer, 0.8)
        for peer in (memory.COPYING_LRU, memory.COPYING)
        for eviction in ("s3fifo", "lru")
    ),
)
"""For the hot keys: a statement, its peer, and the most that the ratio of their times may be."""


def show(report: Report) -> bool:
    """Measure, print and keep; whether every loop was all hits."""
    rounds = 3 if report.quick else 11
    held = True
    figures: dict[str, Any] = {"rounds": rounds}
    with EmbeddedServer() as server:
        for name, size in SIZES.items():
            times, problems = asyncio.run(_measure(server, size, rounds))
            report.show(_table(f"L1 hits, {size} {name} keys, {rounds} rounds", times, problems))
            report.chart(_chart(f"hits-{name}", f"{size:,} {name} keys", times))
            if name == "hot":
                _judge(report, times)
            figures[name] = {"keys": size, "problems": problems, "cases": _figures(times)}
            held &= not problems
    report.keep("hits", figures)
    return held


async def _measure(server: EmbeddedServer, size: int, rounds: int) -> tuple[Times, list[str]]:
    """The times over ``size`` keys, and what makes them worthless."""
    values = {f"user:{number}": f"Ada {number}" for number in range(size)}
    # Other objects than those that are stored: else a look-up is spared the comparison of the two.
    keys = [f"user:{number}" for number in random.sample(range(size), size)]
    caches: list[NearCache | AsyncNearCache] = []
    cases: list[Case] = []
    async with AsyncExitStack() as stack:
        for eviction in STORES:
            mine = {**OPTIONS, "eviction": eviction, "l1_max_entries": 10 * size}
            cache = stack.enter_context(NearCache.from_url(server.url, namespace=f"hits-sync-{eviction}", **mine))
            aio = AsyncNearCache.from_url(server.url, namespace=f"hits-aio-{eviction}", **mine)
            await stack.enter_async_context(aio)
            if not (cache.set_many(values) and await aio.set_many(values)):
                raise RuntimeError(f"{server.url} did not store the values")
            cases += [*_near(cache, eviction, keys), *await _near_async(aio, eviction, keys)]
            caches += [cache, aio]
        rows = {key: {"id": number, "name": "Ada"} for number, key in enumerate(values)}
        for copy in COPY:
            mine = {**OPTIONS, "copy": copy, "l1_max_entries": 10 * size}
            cache = stack.enter_context(NearCache.from_url(server.url, namespace=f"hits-{copy}", **mine))
            if not cache.set_many(rows):
                raise RuntimeError(f"{server.url} did not store the values")
            cases.append(Case(f"lru: cache.get(key), a dict, copy={copy!r}", "get(key)", {"get": cache.get}))
            caches.append(cache)
        for rival in (memory.LRU_CACHE, memory.CACHETOOLS, memory.CACHEBOX):
            try:
                offers = await rival.enter(stack, Stage(server, values))
            except NotRun as error:
                print(f"NOT RUN: {rival.name}: {error}")
            else:
                cases += [offers[kind] for kind in KINDS if kind in offers]
        before = [one.stats() for one in caches]
        times = await compare([*cases, *_floors(values)], keys, rounds)
        problems = [line for one, then in zip(caches, before, strict=True) for line in past_l1(one, then)]
    return times, problems


def _near(cache: NearCache, eviction: str, keys: Sequence[str]) -> list[Case]:
    @cache.cached(ttl=3600)
    def by_str(key: str) -> str:
        return key

    @cache.cached(ttl=3600)
    def by_int(number: int) -> int:
        return number

    for key in keys:
        by_str(key)
        by_int(number_of(key))
    names = {"get": cache.get, "peek": cache.peek, "get_or_set": cache.get_or_set, "load": _never, "by_str": by_str}
    return [
        Case(f"{eviction}: cache.get(key)", "get(key)", names),
        Case(f"{eviction}: cache.get_or_set(key, load)", "get_or_set(key, load)", names),
        Case(f"{eviction}: cache.peek(key)", "peek(key)", names),
        Case(f"{eviction}: @cache.cached, str argument", "by_str(key)", names),
        Case(f"{eviction}: @cache.cached, int argument", "by_int(key)", {"by_int": by_int}, number_of),
    ]


async def _near_async(cache: AsyncNearCache, eviction: str, keys: Sequence[str]) -> list[Case]:
    @cache.cached(ttl=3600)
    async def by_str(key: str) -> str:
        return key

    for key in keys:
        await by_str(key)
    names = {"get": cache.get, "get_or_set": cache.get_or_set, "load": _never, "by_str": by_str}
    return [
        Case(f"{eviction}: await cache.get(key)", "await get(key)", names),
        Case(f"{eviction}: await cache.get_or_set(key, load)", "await get_or_set(key, load)", names),
        Case(f"{eviction}: await of @cache.cached, str", "await by_str(key)", names),
    ]


def _floors(values: Mapping[str, object]) -> list[Case]:
    async def empty(_: str) -> None:
        pass

    return [
        Case("dict.get", "get(key)", {"get": dict(values).get}),
        Case("time.monotonic()", "monotonic()", {"monotonic": time.monotonic}),
        Case("await of an empty coroutine", "await empty(key)", {"empty": empty}),
    ]


def _never() -> Any:
    raise RuntimeError("a loader was called: that was no hit")


def _table(title: str, times: Times, problems: Sequence[str]) -> Table:
    rows = []
    for label in times.rounds[0]:
        ns, ratio = times.ns(label), times.ratio(label, to=PEER)
        rows.append([label, f"{ns.median:.0f}", ns.range(".0f"), f"{ratio.median:.2f}", ratio.range()])
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
        ours=[label for label in labels if label.startswith(("lru:", "s3fifo:"))],
        subtitle=f"Median of {len(times.rounds)} interleaved rounds, and its quartiles; processor time: less is better",
    )


def _judge(report: Report, times: Times) -> None:
    for label, peer, budget in BUDGET:
        found = peer in times.rounds[0]
        report.budget(
            label,
            times.ratio(label, to=peer) if found else None,
            budget,
            control=peer,
            note="" if found else "not installed",
        )


def _figures(times: Times) -> dict[str, Any]:
    """Per statement, the spreads as JSON has them, and the rounds that they come from."""
    return {
        label: {
            "ns": vars(times.ns(label)),
            "to lru_cache": vars(times.ratio(label, to=PEER)),
            "rounds": [one[label] for one in times.rounds],
        }
        for label in times.rounds[0]
    }
