"""What the trials of outages and stampedes judge by: percentiles, parts of a run, and what must not be."""

from __future__ import annotations

import math

import pytest

from tests.torture.scenarios import hotkey, soak, stampede, took
from tests.torture.scenarios.herd import CALLERS
from tests.torture.scenarios.soaked import Census, Second
from tests.torture.scenarios.stampede import BARE, KILLED, NAIVE, TOGETHER, Round
from tests.torture.scenarios.took import HEAD, Took


def test_percentiles_are_calls_that_were_made() -> None:
    """By the nearest rank: of a hundred the p99 is the second longest, of a few it is the longest."""
    assert Took.of([number * 1e6 for number in range(100, 0, -1)]) == Took(100, 50.0, 99.0, 100.0)
    assert Took.of([1e6, 3e6, 2e6]) == Took(3, 2.0, 3.0, 3.0)
    assert len(Took.of([1e6]).cells()) == len(HEAD)


def test_no_calls_have_no_figures() -> None:
    """A phase that was over before a call ended is an empty row, and no zero."""
    assert math.isnan(Took.of([]).p99)
    assert Took.of([]).cells() == ["0", "", "", ""]


@pytest.mark.parametrize(("ms", "text"), [(0.0021, "0.002"), (5.144, "5.14"), (251.3, "251"), (math.nan, "")])
def test_milliseconds_are_as_precise_as_they_deserve(ms: float, text: str) -> None:
    """Microseconds of a hit and seconds of an outage stand in one column."""
    assert took.milliseconds(ms) == text


def test_tails_are_taken_stretch_by_stretch() -> None:
    """Calls that were late show in their stretch alone, and what is over is left out, unless it is all there is."""
    steady, late = [1e6] * 100, [1e6] * 98 + [3e6] * 2
    assert took.tails([*late, *steady, *steady, 9e6], 100) == [3.0, 1.0, 1.0]
    assert took.tails([2e6], 100) == [2.0]


def test_a_late_read_is_one_over_the_limit() -> None:
    """The limit itself is in time."""
    assert hotkey.late([1, int(hotkey.LATE_MS * 1e6), int(hotkey.LATE_MS * 1e6) + 1]) == 1


def test_the_parts_of_a_run_have_all_that_its_seconds_told() -> None:
    """Nothing is lost between two parts, and their lengths differ by one second at most."""
    seconds = [Second([Census(rss=number)], number, [str(number)], number) for number in range(10)]
    parts = soak.parts(seconds, 4)
    assert [len(one.samples) for one in parts] == [2, 3, 2, 3]
    assert [sample.rss for one in parts for sample in one.samples] == list(range(10))
    assert sum(one.calls for one in parts) == sum(one.hits for one in parts) == sum(range(10))
    assert [error for one in parts for error in one.raised] == [str(number) for number in range(10)]


def played(loads: int, order: str, *, missing: int = 0, raised: list[str] | None = None) -> list[Round]:
    """A round with threads."""
    callers = (stampede.PROCESSES - (order == KILLED)) * CALLERS["threads"]
    return [Round(loads, callers, callers - missing, raised or [], [])]


@pytest.mark.parametrize(("order", "loads"), [(TOGETHER, 1), (KILLED, 2), (NAIVE, 400), (BARE, 0)])
def test_as_many_loads_as_there_must_be_are_right(order: str, loads: int) -> None:
    """One; two when the first loader was killed; the controls have as many as they have."""
    assert not stampede.wrong("threads", order, played(loads, order))


@pytest.mark.parametrize(
    ("order", "rounds", "said"),
    [
        (TOGETHER, played(2, TOGETHER), "2 loads, not 1"),
        (TOGETHER, played(0, TOGETHER), "0 loads, not 1"),
        (KILLED, played(1, KILLED), "1 loads, not 2"),
        (KILLED, played(2, KILLED, missing=1), "349 of 350 answered"),
        (TOGETHER, played(1, TOGETHER, raised=["TimeoutError()"]), "TimeoutError"),
    ],
)
def test_a_load_too_many_or_a_caller_without_an_answer_is_told(order: str, rounds: list[Round], said: str) -> None:
    """Each is a line of its own."""
    (line,) = stampede.wrong("threads", order, rounds)
    assert said in line
