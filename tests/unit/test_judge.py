"""The checker's judgement over histories of one key that are written down by hand; each invariant is violated once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import book as book_module
from tests.torture.atomic import Clear, Operation, violations
from tests.torture.book import DROP, KEYS, NEVER, NOTHING_LOST, SET, Book, Window
from tests.torture.judge import Case, Kept, Read, at_the_end, delays, judge, percentile, resurrected, unheard

MS = 1_000_000


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    """Of key 0: 1 is set from 10 to 20 ms, 2 deleted from 30 to 40, 3 set from 50 to 60 without an answer."""
    times = iter([10 * MS, 20 * MS, 30 * MS, 40 * MS, 50 * MS, 60 * MS])
    monkeypatch.setattr(book_module, "now", lambda: next(times))
    made = Book(tmp_path / "book", 10, patience=0.1)
    for how, acknowledged in ((SET, True), (DROP, True), (SET, False)):
        made.end(0, made.begin(0, how), acknowledged=acknowledged)
    return made


def read(version: int, start: int, end: int | None = None) -> Read:
    """A read of key 0, times in ms."""
    return Read(0, start * MS, (start + 1 if end is None else end) * MS, version)


def found(book: Book, *reads: Read, window: Window = NOTHING_LOST, **case: object) -> dict[str, int]:
    """How often which invariant is violated, with 100 ms of staleness allowed."""
    verdict = judge(reads, Case(book, 100 * MS, window, **case))  # type: ignore[arg-type]
    return {name: len(lines) for name, lines in verdict.violations.items()}


def test_staleness_counts_from_the_first_acknowledgement_of_a_newer_version(book: Book) -> None:
    """1 is outdated at 40 ms, when 2 was acknowledged; 2 never is, since nobody answered for 3."""
    assert (book.outdated(0, 0, NOTHING_LOST), book.outdated(0, 1, NOTHING_LOST)) == (20 * MS, 40 * MS)
    assert book.outdated(0, 2, NOTHING_LOST) == NEVER
    assert judge([read(1, 39), read(1, 45)], Case(book, 100 * MS)).stale == [5 * MS]
    assert found(book, read(1, 140), read(1, 141)) == {"stale": 1}


def test_a_read_goes_back_only_behind_one_that_has_ended(book: Book) -> None:
    """Two reads at once may end in any order."""
    assert found(book, read(2, 45, 50), read(1, 48)) == {}
    assert found(book, read(2, 45, 50), read(1, 51)) == {"monotonic": 1}


def test_reads_of_two_histories_are_not_compared(book: Book) -> None:
    """A failover lies between the two reads, and none came while it went on; within one history they are compared."""
    window = Window(50 * MS, 60 * MS)
    assert found(book, read(2, 45), read(1, 170), window=window) == {"stale": 1}
    assert found(book, read(2, 170), read(1, 175), window=window)["monotonic"] == 1
    assert found(book, read(2, 45), read(1, 48), window=window) == {"monotonic": 1}


def test_between_two_failovers_everything_is_promised(book: Book) -> None:
    """Reads are compared within each of the three histories, and writes of both windows may be lost."""
    window = Window(350 * MS, 360 * MS, Window(50 * MS, 60 * MS))
    assert found(book, read(2, 170), read(1, 175), window=window)["monotonic"] == 1
    assert found(book, read(2, 470), read(1, 475), window=window)["monotonic"] == 1
    assert found(book, read(2, 45), read(1, 48), window=window) == {"monotonic": 1}
    assert "monotonic" not in found(book, read(2, 170), read(1, 475), window=window)
    assert [book.lost(0, 1, Window(at, at, Window(15 * MS, 15 * MS))) for at in (0, 500 * MS)] == [True, True]


def test_a_step_back_from_what_an_own_loader_gave_counts(book: Book) -> None:
    """The read of 3 found it in the database, where it was before its set was answered; 2 after it goes back."""
    assert found(book, read(3, 55), read(2, 60)) == {"monotonic": 1}


def test_a_step_back_to_a_set_of_unknown_outcome_counts_from_its_deadline(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then Redis executes the set of 3 whenever it arrives: 4, written meanwhile, may come before it."""
    times = iter([100 * MS, 110 * MS, 160 * MS, 170 * MS])
    monkeypatch.setattr(book_module, "now", lambda: next(times))
    book.end(0, book.begin(0, DROP), acknowledged=True)
    assert found(book, read(4, 120), read(3, 130)) == {}
    book.end(0, book.begin(0, DROP), acknowledged=True)
    assert found(book, read(5, 180), read(3, 190)) == {"monotonic": 1}


def test_a_set_of_unknown_outcome_is_concurrent_until_its_deadline(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 may come after 4, which began before 3's deadline at 150 ms, and not after 5."""
    times = iter([100 * MS, 110 * MS, 160 * MS, 170 * MS])
    monkeypatch.setattr(book_module, "now", lambda: next(times))
    book.end(0, book.begin(0, SET), acknowledged=True)
    assert book.outdated(0, 3, NOTHING_LOST) == NEVER
    book.end(0, book.begin(0, SET), acknowledged=True)
    assert book.outdated(0, 3, NOTHING_LOST) == 170 * MS


def test_an_own_write_is_seen_acknowledged_or_not(book: Book) -> None:
    """On the instance that wrote, from the moment its call returned."""
    assert found(book, read(2, 59), writes=range(1)) == {}
    assert found(book, read(2, 61), writes=range(1)) == {"own-write": 1}
    assert found(book, read(2, 61)) == {}


def test_what_a_failover_lost_does_not_count(book: Book) -> None:
    """2 was acknowledged by the old server alone."""
    assert found(book, read(1, 145)) == {"stale": 1}
    assert found(book, read(1, 145), window=Window(35 * MS, 45 * MS)) == {}
    assert book.outdated(0, 0, Window(35 * MS, 45 * MS)) == 20 * MS


def test_what_lies_in_redis_may_not_be_outdated_at_all(book: Book) -> None:
    """However little, and once per version."""
    case = Case(book, 100 * MS)
    assert len(resurrected([read(1, 39), read(2, 45)], case)) == 0
    assert len(resurrected([read(1, 41), read(1, 45), read(0, 45)], case)) == 2


def test_in_the_end_all_agree(book: Book) -> None:
    """On the row, or on nothing."""
    case, nothing = Case(book, 100 * MS), [None] * KEYS
    row, old = [3, *nothing[1:]], [2, *nothing[1:]]
    assert at_the_end([Kept("a", row, row), Kept("b", nothing, row)], {0: 3}, case) == ([], {})
    lost, diverged = at_the_end([Kept("a", old, row), Kept("b", row, old)], {}, case)
    assert (len(lost), list(diverged)) == (1, [0])
    assert list(at_the_end([], {0: 2}, case)[1]) == [0]
    after_a_failover = Case(book, 100 * MS, Window(0, 100 * MS))
    assert at_the_end([Kept("a", old, old)], {0: 2}, after_a_failover) == ([], {})


def test_each_acknowledged_write_of_a_key_has_a_message(book: Book) -> None:
    """Of 1 and 2; nobody answered for 3."""
    assert unheard([(15 * MS, "item:0"), (35 * MS, "item:0")], book) == 0
    assert unheard([(15 * MS, "item:0"), (15 * MS, "item:1")], book) == 1


def test_delays_and_percentiles(book: Book) -> None:
    """From the beginning of a write to the first message of its key; what was never answered is left out."""
    assert delays([(15 * MS, "item:0"), (33 * MS, "item:0"), (55 * MS, "item:0")], book) == [5 * MS, 3 * MS]
    assert (percentile([5 * MS], 1), percentile([5 * MS], 0.99, 1000), percentile([], 0.5)) == (5.0, 0.0, 0.0)


def operation(name: str, start: float, end: float, number: int | None = None) -> Operation:
    """An operation between two times in seconds."""
    return Operation(name, int(start * 1e9), int(end * 1e9), number)


def test_a_lock_is_given_once_while_it_lives() -> None:
    """Unless a clear may have come between, be it late."""
    first, soon, later = operation("lock", 0, 0.1), operation("lock", 0.5, 0.6), operation("lock", 0.9, 1.1)
    assert len(violations([soon, first], [])) == 1
    assert violations([first, later], []) == []
    assert violations([first, operation("another", 0.5, 0.6)], []) == []
    assert violations([first, soon], [Clear(int(0.2e9), int(0.3e9))]) == []
    assert violations([first, soon], [Clear(int(-1e9), NEVER)]) == []
    assert len(violations([first, soon], [Clear(int(0.7e9), NEVER), Clear(int(-2e9), int(-1e9))])) == 1


def test_a_count_is_neither_lost_nor_given_twice() -> None:
    """Numbers rise from one call to a later one; those of calls at the same time differ."""
    first, second = operation("counter", 0, 0.2, 5), operation("counter", 0.1, 0.3, 6)
    assert violations([first, second], []) == violations([second._replace(number=4), first], []) == []
    assert len(violations([first, second._replace(number=5)], [])) == 1
    assert len(violations([first, operation("counter", 0.4, 0.5, 4)], [])) == 1
    assert violations([first, operation("counter", 0.4, 0.5, 1)], [Clear(int(0.3e9), int(0.45e9))]) == []
