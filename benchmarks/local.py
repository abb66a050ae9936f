"""What L1 costs without a network: the longest insert into a full store, and memory per entry beside cachetools.

The insert: all entries were used lately, so that s3fifo's queues have nothing to give away, and it evicts. It is taken
by processor time, in rounds that do the same; what else the machine does only adds to it, so the least counts.

Memory: what tracemalloc sees of a store beyond keys and values; when it is just full, and after as many entries again
have come and gone, which leaves larger dicts in every cache, and ghosts in s3fifo.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import cachetools

from benchmarks.report import Report, Table
from nearcache.local.s3fifo import USES_MAX
from nearcache.local.store import Store
from nearcache.local.tier import STORES
from nearcache.protocol.versions import version_of

ENTRIES = 10_000
INSERTS, BATCH = 5_000, 100
INSERT_BUDGET_US = 100.0
SIZES = (10_000, 100_000)
MEMORY_BUDGET = 1.3
TTL_CACHE = "cachetools.TTLCache"
CREATED = 1_700_000_000_000_000
"""A server's time in µs: versions of today's size."""


def show(report: Report) -> bool:
    """Measure, print and keep, against their budgets."""
    rounds = 3 if report.quick else 7
    inserts = {name: _inserts(new, rounds) for name, new in STORES.items()}
    rows = [
        [
            name,
            *(f"{found[column]:.0f}" for column in ("median", "longest", "longest, a table grew", "tables that grew")),
            "yes" if found["longest"] <= INSERT_BUDGET_US else "NO",
        ]
        for name, found in inserts.items()
    ]
    notes = [
        f"µs; {INSERTS} inserts, each the least of {rounds} rounds. Budget of the longest: {INSERT_BUDGET_US:.0f} µs.",
        "Where a table grew, Python's dict moved all that it holds, as every cache over a dict has it now and then.",
    ]
    title = f"Inserts into {ENTRIES} entries, all recently used"
    head = ["", "median", "longest", "where a table grew", "times", "within budget"]
    report.show(Table(title, head, rows, notes))

    memory = {size: _memories(size) for size in (SIZES[:1] if report.quick else SIZES)}
    rows = [
        [f"{name}, {size:,} entries", f"{figure:.0f}", f"{figure / figures[TTL_CACHE]:.2f}"]
        for size, figures in memory.items()
        for name, figure in figures.items()
    ]
    note = f"Budget: {MEMORY_BUDGET} for the stores themselves; a ghost is a key that s3fifo remembers after it left."
    report.show(Table("Bytes per entry beyond key and value", ["", "bytes", "× TTLCache"], rows, [note]))
    report.keep("local", {"inserts": inserts, "memory": memory})
    for name, found in inserts.items():
        grew = (
            f"{found['longest, a table grew']:.0f} µs where Python's dict grew, {found['tables that grew']:.0f} times"
        )
        line = f"{name}: longest insert, {ENTRIES:,} entries, all recently used"
        report.budget(line, found["longest"], INSERT_BUDGET_US, "µs", note=grew)
    for size, figures in memory.items():
        for name in STORES:
            line = f"{name}: bytes per entry beyond key and value, {size:,} entries"
            report.budget(line, figures[name] / figures[TTL_CACHE], MEMORY_BUDGET, "×", TTL_CACHE)
    return True


# ------------------------------------------------------------------------------------------------------------- inserts


def _inserts(new: Callable[[int, int | None], Store[Any]], rounds: int) -> dict[str, float]:
    """Median and longest in µs; each insert took the least of what it took in some rounds, which are alike."""
    measured = [_round(new(ENTRIES, None)) for _ in range(rounds)]
    took = [min(one) / 1e3 for one in zip(*(times for times, _ in measured), strict=True)]
    grew = measured[0][1]
    return {
        "median": statistics.median(took),
        "longest": max(time for at, time in enumerate(took) if at not in grew),
        "longest, a table grew": max((took[at] for at in grew), default=0.0),
        "tables that grew": len(grew),
    }


def _round(store: Store[Any]) -> tuple[list[int], set[int]]:
    """Nanoseconds of each insert, and at which of them a dict of the store grew."""
    for number in range(ENTRIES):
        store[f"user:{number}"] = _entry(store, number)
    took: list[int] = []
    grew: set[int] = set()
    for batch in range(INSERTS // BATCH):
        _use_all(store)
        entries = [(f"new:{batch}:{number}", _entry(store, number)) for number in range(BATCH)]
        gc.disable()
        for key, entry in entries:
            tables = _tables(store)
            before = time.thread_time_ns()
            store[key] = entry
            took.append(time.thread_time_ns() - before)
            if _tables(store) != tables:
                grew.add(len(took) - 1)
        gc.enable()
    return took, grew


def _tables(store: Store[Any]) -> list[int]:
    """The sizes of all its dicts."""
    return [dict.__sizeof__(part) for part in vars(store).values() if isinstance(part, dict)]


def _use_all(store: Store[Any]) -> None:
    """As readers do it, as often as it counts."""
    for key, entry in tuple(store.entries.items()):
        if store.touch is not None:
            store.touch(key)
        else:
            entry.uses = USES_MAX


def _entry(store: Store[Any], number: int, value: object = None) -> Any:
    deadline = time.monotonic() + 60  # one object, as where nothing is refreshed early
    return store.make_entry(value, deadline, version_of(1_000_000 + number, CREATED), (), 20, deadline)


# -------------------------------------------------------------------------------------------------------------- memory


def _memories(size: int) -> dict[str, float]:
    """Bytes per entry: peers, our stores when they are just full, and after as many again have come and gone."""
    keys = [f"user:{number}" for number in range(2 * size)]
    value = {"id": 1}
    ttl_cache: Callable[[int], Any] = partial(cachetools.TTLCache, ttl=60)
    figures = {
        "cachetools.LRUCache": _bytes_of(size, partial(_peer, cachetools.LRUCache, size, keys[:size], value)),
        TTL_CACHE: _bytes_of(size, partial(_peer, ttl_cache, size, keys[:size], value)),
        f"{TTL_CACHE}, churned": _bytes_of(size, partial(_peer, ttl_cache, size, keys, value)),
    }
    for name, new in STORES.items():
        figures[name] = _bytes_of(size, partial(_ours, new, size, keys[:size], value))
        figures[f"{name}, churned"] = _bytes_of(size, partial(_ours, new, size, keys, value))
    return figures


def _bytes_of(size: int, make: Callable[[], object]) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del made
    return (after - before) / size


def _peer(new: Callable[[int], Any], size: int, keys: list[str], value: object) -> object:
    cache = new(size)
    for key in keys:
        cache[key] = value
    return cache


def _ours(new: Callable[[int, int | None], Store[Any]], size: int, keys: list[str], value: object) -> object:
    store = new(size, None)
    for key, number in zip(keys, itertools.count(), strict=False):
        store[key] = _entry(store, number, value)
    return store
