"""The longest insert into a full store, without a network: all entries were used lately, and one has to leave.

With s3fifo the queues have nothing to give away then, and it evicts. An insert is taken by processor time, in rounds
that do the same; what else the machine does only adds to it, so the least of the rounds counts.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from nearcache.local.contents import STORES
from nearcache.local.s3fifo import USES_MAX
from nearcache.local.store import Store
from nearcache.protocol.versions import version_of
from tests.support.report import Report
from tests.support.tables import Table

ENTRIES = 10_000
INSERTS, BATCH = 5_000, 100
LIMIT_US = 100.0
CREATED = 1_700_000_000_000_000
"""A server's time in µs: versions of today's size."""


def show(report: Report) -> bool:
    """Measure, print and keep, against the limit."""
    rounds = 3 if report.quick else 7
    inserts = {name: _inserts(new, rounds) for name, new in STORES.items()}
    columns = ("median", "longest", "longest, a table grew", "tables that grew")
    rows = [[name, *(f"{found[column]:.0f}" for column in columns)] for name, found in inserts.items()]
    notes = [
        f"µs; {INSERTS} inserts, each the least of {rounds} rounds",
        "Where a table grew, Python's dict moved all that it holds, as every cache over a dict does now and then.",
    ]
    title = f"Inserts into {ENTRIES} entries, all recently used"
    report.show(Table(title, ["", "median", "longest", "where a table grew", "times"], rows, notes))
    report.keep("local", {"inserts": inserts})
    for name, found in inserts.items():
        grew = f"{found[columns[2]]:.0f} µs where Python's dict grew, {found[columns[3]]:.0f} times"
        line = f"{name}: longest insert, {ENTRIES:,} entries, all recently used"
        report.budget(line, found["longest"], LIMIT_US, "µs", note=grew)
    return True


def _inserts(new: Callable[[int, int | None], Store[Any]], rounds: int) -> dict[str, float]:
    """Median and longest in µs; of each insert the least of some rounds, which are alike."""
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
    """Use every entry, as often as it counts."""
    for key, entry in tuple(store.entries.items()):
        if store.touch is not None:
            store.touch(key)
        else:
            entry.uses = USES_MAX


def _entry(store: Store[Any], number: int) -> Any:
    deadline = time.monotonic() + 60  # one object, as where nothing is refreshed early
    return store.make_entry(None, deadline, version_of(1_000_000 + number, CREATED), (), 20, deadline)
