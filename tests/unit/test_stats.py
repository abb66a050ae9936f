"""Counters and their snapshot: the same names on both sides, and no count lost between threads."""

from __future__ import annotations

import dataclasses
import sys
import threading

import pytest

from nearcache import Stats
from nearcache.counters import Counters

MEASURED = {"l1_entries", "l1_bytes", "propagations", "propagation_seconds"}
"""What is looked at, and not counted."""


def test_every_field_is_counted_or_measured() -> None:
    """A field of Stats that nothing fills would be found, and a counter that nobody sees."""
    assert {field.name for field in dataclasses.fields(Stats)} == set(Counters.__slots__) | MEASURED


def test_a_snapshot_has_every_counter() -> None:
    """Each with its own value, and does not change afterwards."""
    counters = Counters()
    for number, name in enumerate(Counters.__slots__, 1):
        setattr(counters, name, {"label": number} if "_by_" in name else number)
    stats = counters.snapshot(l1_entries=100, l1_bytes=200)
    for number, name in enumerate(Counters.__slots__, 1):
        assert getattr(stats, name) == ({"label": number} if "_by_" in name else number)
    assert (stats.l1_entries, stats.l1_bytes) == (100, 200)
    counters.loads += 1
    assert stats.loads == counters.loads - 1


def test_a_snapshot_of_a_table_does_not_change() -> None:
    """Flushes by reason and errors by code are copies; their sums are the plain counters."""
    counters = Counters()
    counters.flushed("gap")
    stats = counters.snapshot(l1_entries=0, l1_bytes=0)
    counters.flushed("gap")
    counters.failed("OOM")
    assert (stats.flushes, stats.flushes_by_reason, stats.l2_errors_by_code) == (1, {"gap": 1}, {})
    now = counters.snapshot(l1_entries=0, l1_bytes=0)
    assert (now.flushes_by_reason, now.l2_errors_by_code, now.l2_errors) == ({"gap": 2}, {"OOM": 1}, 1)
    assert hash(now) != hash(stats)


def test_a_new_counter_is_zero() -> None:
    """All of them."""
    assert Counters().snapshot(l1_entries=0, l1_bytes=0) == Stats()


def test_a_snapshot_is_frozen() -> None:
    """It can be handed to anybody."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stats().loads = 5  # type: ignore[misc]


def test_no_count_is_lost_between_threads() -> None:
    """`counters.x += 1` needs no lock under a GIL, however often threads switch."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return  # without one a count may be lost, as the class says
    counters, rounds, threads = Counters(), 20_000, 8
    start = threading.Barrier(threads)

    def count() -> None:
        start.wait()
        for _ in range(rounds):
            counters.l1_hits += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=count) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert counters.l1_hits == rounds * threads
