"""Some thousand of the records that `python -m tests.support.fuzz_records` changes at random, and its control."""

from __future__ import annotations

from itertools import islice

from tests.support.fuzz_records import (
    COMPRESSING,
    ENCRYPTING,
    fuzz,
    inputs,
    read,
    read_without_bounds,
    record_of,
    sealed,
    seeds,
)
from tests.support.hostile import HOSTILE


def test_changed_records_give_a_value_or_the_library_s_own_error() -> None:
    """Nothing else is raised, and none takes more time or memory than its size allows."""
    report = fuzz(islice(inputs(4000, seed=7), 3 * len(HOSTILE), None))
    assert not report.failures, str(report)
    assert report.outcomes["values"] > 50
    assert report.outcomes["refused"] > 1000
    whole = seeds()[1:]
    assert all(read(record) is not None for record in whole)
    for filters in (COMPRESSING, ENCRYPTING):
        assert all(read(sealed(record, filters)) is not None for record in whole)


def test_a_decoder_without_bounds_is_caught() -> None:
    """By its errors, its time and its memory."""
    report = fuzz(inputs(100, seed=7, control=True), read_without_bounds, stop_after=20)
    failures = " ".join(report.failures)
    assert "Error of" in failures
    assert "s for" in failures
    assert "MiB for" in failures
    assert read(record_of(b"junk")) is None
