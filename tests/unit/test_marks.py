"""The marks of values that were returned without a version: bounded, and ordered by the clock of the server."""

from __future__ import annotations

import pytest

from nearcache.local import marks
from nearcache.local.marks import NO_MARK, Mark, Marks

OFFSET = 1000.0


def test_a_record_from_before_the_mark_is_refused() -> None:
    """One that began later is not; the times are of two clocks."""
    mark = Mark(10.0, OFFSET)
    assert mark.refuses(1_010_000_000, OFFSET)
    assert not mark.refuses(1_010_000_002, OFFSET)
    assert not NO_MARK.refuses(0, OFFSET)


def test_a_clock_that_was_set_back_does_not_end_a_mark() -> None:
    """Nor does one that was found to be ahead: the larger offset counts."""
    assert Mark(10.0, OFFSET).refuses(1_010_000_000, OFFSET - 60)
    assert Mark(10.0, OFFSET).refuses(1_070_000_000, OFFSET + 60)


def test_a_later_mark_stays() -> None:
    """Two loads end; the one that ended first is noted last."""
    table = Marks()
    table.note("k", Mark(2.0, 0.0))
    table.note("k", Mark(1.0, 0.0))
    assert table.of("k").at == 2.0
    table.end("k")
    assert table.of("k") is NO_MARK


def test_there_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest half leaves, and one mark for all keys rises to the youngest that left, not to now."""
    monkeypatch.setattr(marks, "MARKS_MAX", 10)
    table = Marks()
    for number in range(11):
        table.note(f"k{number}", Mark(float(number), 0.0))
    assert table.of("another").at == 4.0
    assert table.of("k1").at == 4.0
    assert table.of("k10").at == 10.0
    assert len(table._marks) == 6
