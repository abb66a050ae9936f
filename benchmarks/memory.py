"""Bytes that an entry costs beyond its key and its value, beside the peers: each filled in a process of its own.

Keys and values are made before; what is allocated from then on is the cache's. Two processes each: in one tracemalloc
counts what Python allocates, in the other the resident size grows, with what Rust and C allocate on their own and what
the allocator rounds up. tracemalloc sees nothing of cachebox and moka-py: for them only the second figure counts.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.report import Chart, Report, Table, figure

SIZES = (10_000, 100_000, 1_000_000)
JUDGED = 100_000
"""At so many entries the budget is judged."""
BUDGET = 1.3
TTL = 3600
OURS, CONTROL = "NearCache", "cachetools.TTLCache"
TRACED, RESIDENT = "tracemalloc", "resident"
UNSEEN = {"cachebox.TTLCache", "moka-py", "theine"}
"""They allocate outside of Python's allocator, wholly or in part."""
Fill = Callable[[Sequence[str], Sequence[Any]], Awaitable[object]]


async def near(keys: Sequence[str], values: Sequence[Any]) -> object:
    """L1 alone, filled by its own put: what an instance with a server holds, without the server."""
    from nearcache import NearCache
    from nearcache.local.store import Entry
    from nearcache.protocol.versions import version_of

    cache = NearCache.from_url("memory://", ttl=TTL, l1_max_entries=len(keys))
    cache.set("first", 0)
    cache.clear_local()
    tier = cache._core.tier
    clock = iter(range(len(keys)))
    for key, value in zip(keys, values, strict=True):
        at = next(clock)  # a deadline and a version of its own, as when entries come one after the other
        expires = 1e6 + at / 7
        entry = Entry(value, expires, version_of(at + 1, 1_700_000_000_000 + at), (), 20, expires)
        if not tier.put(key, entry, tier.snapshot(key)):
            raise RuntimeError(f"{key} was not put into L1")
    return cache


async def plain_dict(keys: Sequence[str], values: Sequence[Any]) -> object:
    """The least that anything can cost."""
    return dict(zip(keys, values, strict=True))


async def lru_cache(keys: Sequence[str], values: Sequence[Any]) -> object:
    """functools.lru_cache."""
    given = iter(values)
    cached = functools.lru_cache(len(keys))(lambda _key: next(given))
    for key in keys:
        cached(key)
    return cached


async def _mapping(cache: Any, keys: Sequence[str], values: Sequence[Any]) -> object:
    for key, value in zip(keys, values, strict=True):
        cache[key] = value
    return cache


async def ttl_cache(keys: Sequence[str], values: Sequence[Any]) -> object:
    """cachetools.TTLCache."""
    import cachetools

    return await _mapping(cachetools.TTLCache(len(keys), TTL), keys, values)


async def cachetools_lru(keys: Sequence[str], values: Sequence[Any]) -> object:
    """cachetools.LRUCache, which knows no ttl."""
    import cachetools

    return await _mapping(cachetools.LRUCache(len(keys)), keys, values)


async def cachebox(keys: Sequence[str], values: Sequence[Any]) -> object:
    """cachebox.TTLCache."""
    import cachebox as package

    return await _mapping(package.TTLCache(len(keys), TTL), keys, values)


async def moka(keys: Sequence[str], values: Sequence[Any]) -> object:
    """moka-py."""
    import moka_py

    cache: Any = moka_py.Moka(len(keys), ttl=TTL)
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value)
    return cache


async def theine(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Theine."""
    from theine import Cache

    cache: Any = Cache(len(keys))
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value, timedelta(seconds=TTL))
    return cache


async def dogpile(keys: Sequence[str], values: Sequence[Any]) -> object:
    """dogpile.cache's memory backend."""
    from dogpile.cache import make_region

    region: Any = make_region().configure("dogpile.cache.memory", expiration_time=TTL)
    for key, value in zip(keys, values, strict=True):
        region.set(key, value)
    return region


async def aiocache(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Aiocache's memory backend."""
    from aiocache import SimpleMemoryCache

    cache: Any = SimpleMemoryCache()
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, ttl=TTL)
    return cache


async def cashews(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Cashews mem."""
    from cashews import Cache

    cache: Any = Cache()
    cache.setup(f"mem://?size={len(keys)}")
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, expire=TTL)
    return cache


KINDS: dict[str, Fill] = {
    "dict": plain_dict,
    "functools.lru_cache": lru_cache,
    "cachetools.LRUCache": cachetools_lru,
    CONTROL: ttl_cache,
    OURS: near,
    "cachebox.TTLCache": cachebox,
    "moka-py": moka,
    "theine": theine,
    "dogpile.cache memory": dogpile,
    "cashews mem": cashews,
    "aiocache memory": aiocache,
}


def resident() -> int:
    """Bytes of this process that are in memory now; where the system does not say, the most that were."""
    told = Path("/proc/self/statm")
    if told.exists():
        return int(told.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def child(kind: str, entries: int, how: str) -> float:
    """Fill one cache: bytes per entry."""
    fill = KINDS[kind]
    await fill([f"warm:{number}" for number in range(100)], ["v"] * 100)  # what is imported and made but once
    keys = [f"user:{number}" for number in range(entries)]
    values = [f"{number:0100}" for number in range(entries)]
    gc.collect()
    if how == TRACED:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if how == TRACED else resident()
    held = await fill(keys, values)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if how == TRACED else resident()
    del held
    return (after - before) / entries


def ask(kind: str, entries: int, how: str) -> float:
    """The same in a process of its own.

    Raises:
        RuntimeError: it ended in an error, and this is its last line.
    """
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(entries), how]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    return float(json.loads(done.stdout))


def show(report: Report) -> bool:
    """Measure, print and keep; whether every peer was run."""
    sizes = (JUDGED,) if report.quick else SIZES
    wanted = [
        (kind, how, size)
        for size in reversed(sizes)
        for kind in KINDS
        for how in (TRACED, RESIDENT)
        if how == RESIDENT or kind in ((OURS, CONTROL) if report.quick else KINDS.keys() - UNSEEN)
    ]
    found: dict[str, dict[str, dict[int, float]]] = {}
    absent: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # bytes do not depend on what else runs
        asked = {one: pool.submit(ask, one[0], one[2], one[1]) for one in wanted}
    for (kind, how, size), answer in asked.items():
        try:
            found.setdefault(kind, {TRACED: {}, RESIDENT: {}})[how][size] = answer.result()
        except RuntimeError as error:
            absent[kind] = str(error)
    for kind in absent:
        found.pop(kind, None)
    rows = []
    for kind, both in found.items():
        row = [f"{both[TRACED][size]:,.0f}" if size in both[TRACED] else "" for size in sizes]
        rows.append([kind, *row, *(f"{both[RESIDENT][size]:,.0f}" for size in sizes)])
    head = ["", *(f"{how} {size:,}" for how in (TRACED, RESIDENT) for size in sizes)]
    notes = [
        "bytes an entry beyond its key and value; keys of 6–11 characters, values of 100",
        f"{', '.join(sorted(UNSEEN))} allocate where tracemalloc does not see it",
        *(f"NOT RUN: {kind}: {why}" for kind, why in absent.items()),
    ]
    report.show(Table("Memory of an entry", head, rows, notes))
    report.keep("memory", {"sizes": sizes, "bytes per entry": found, "not run": absent})
    if OURS in found and CONTROL in found:
        ours, control = (found[kind][TRACED] for kind in (OURS, CONTROL))
        ratio = ours[JUDGED] / control[JUDGED]
        report.budget(
            "memory per L1 entry beyond key and value",
            ratio,
            BUDGET,
            "×",
            CONTROL,
            note=f"{figure(ours[JUDGED])} and {figure(control[JUDGED])} bytes, at {JUDGED:,} entries",
        )
        report.chart(_chart(found))
    return not absent


def _chart(found: dict[str, dict[str, dict[int, float]]]) -> Chart:
    ours, control = (found[kind][RESIDENT][JUDGED] for kind in (OURS, CONTROL))
    ordered = sorted(found, key=lambda kind: found[kind][RESIDENT][JUDGED])
    return Chart(
        "memory",
        f"An L1 entry costs {ours:,.0f} bytes beyond key and value, {ours / control:.2f} times cachetools.TTLCache's",
        "bars",
        {kind: [[kind, found[kind][RESIDENT][JUDGED]]] for kind in ordered},
        unit="bytes",
        ours=[OURS],
        subtitle=f"Growth of the process's resident size, per entry, with {JUDGED:,} entries: less is better",
    )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(child(sys.argv[1], int(sys.argv[2]), sys.argv[3]))), flush=True)
    os._exit(0)  # nothing has to be released in order
