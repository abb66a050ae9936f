"""The breaker: one transition table, complete, and what an operation meets in each state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from nearcache.engine.breaker import REFUSES_WRITES, TRANSITIONS, Breaker, Signal, State
from tests.support.cases import each


def breaker_of(failures: int = 3, reset: float = 1.0) -> Breaker:
    """A link whose bus is up."""
    made = Breaker(failures, reset)
    made.bus_up()
    return made


def test_the_table_is_complete() -> None:
    """Every signal has its place in every state."""
    assert set(TRANSITIONS) == set(itertools.product(State, Signal))


TO: dict[State, list[Callable[[Breaker], object]]] = {
    State.UP: [Breaker.bus_up],
    State.DEAF: [],
    State.DOWN: [Breaker.bus_up, lambda one: one.failed(timeout=True, now=0.0)],
    State.TRYING: [Breaker.bus_up, lambda one: one.failed(timeout=True, now=0.0), lambda one: one.permit(now=1.0)],
    State.AWAY: [lambda one: one.failed(timeout=True, now=0.0)],
}
"""What leads from a new link to each state."""

ACTS: dict[Signal, Callable[[Breaker], object]] = {
    Signal.OK: Breaker.ok,
    Signal.FAILED: lambda one: one.failed(timeout=True, now=1.0),
    Signal.TRY: lambda one: one.permit(now=9.0),
    Signal.BUS_REACHED: Breaker.bus_reached,
    Signal.BUS_PROVEN: Breaker.bus_up,
    Signal.BUS_LOST: Breaker.bus_down,
}

ROWS = """
            OK      FAILED  TRY     BUS_REACHED  BUS_PROVEN  BUS_LOST
    UP      UP      DOWN    UP      UP           UP          DEAF
    DEAF    DEAF    AWAY    DEAF    UP           UP          DEAF
    DOWN    DOWN    DOWN    TRYING  DOWN         UP          AWAY
    TRYING  UP      DOWN    TRYING  TRYING       UP          AWAY
    AWAY    AWAY    AWAY    AWAY    DOWN         UP          AWAY
"""


def rows() -> Iterator[tuple[str, str, str]]:
    """State, signal, and where it leads."""
    head, *lines = (line.split() for line in ROWS.split("\n") if line.strip())
    for state, *ends in lines:
        for signal, end in zip(head, ends, strict=True):
            yield state, signal, end


@each("state, signal, end", list(rows()))
def test_a_row_of_the_table(state: str, signal: str, end: str) -> None:
    """What happens leads from each state where the protocol says, by the link's own methods."""
    one = Breaker(3, 1.0)
    for act in TO[State[state]]:
        act(one)
    assert one.state is State[state]
    told = ACTS[Signal[signal]](one)
    assert one.state is State[end]
    assert one.sends == (end in {"UP", "DEAF"})
    assert one.bus == (end not in {"DEAF", "AWAY"})
    if Signal[signal] is Signal.TRY:
        assert told == (end in {"UP", "DEAF", "TRYING"})
    elif signal in {"OK", "BUS_PROVEN"}:
        assert told == (state not in {"UP", "DEAF"} and end == "UP")
    elif signal == "FAILED":
        assert told == (state in {"UP", "DEAF"})


def test_a_success_in_each_state_that_sends_begins_the_count_anew() -> None:
    """A lost bus does not: what failed before it still counts."""
    one = Breaker(2, 1.0)
    one.bus_up()
    one.failed(timeout=False, now=0.0)
    one.bus_down()
    assert one.failed(timeout=False, now=0.0)


def test_what_is_refused_is_told_once_and_leaves_the_breaker_alone() -> None:
    """The first refusal is told, and the end of the last one."""
    one = breaker_of()
    assert [one.refuse("set", "OOM"), one.refuse("lease", "OOM"), one.refuse("set", "OOM")] == [True, False, False]
    assert one.permit(now=0.0)
    assert not one.accept("delete", wrote=True, stored=False)
    assert not one.accept("read", wrote=False, stored=False)
    assert one.accept("fill", wrote=True, stored=True)
    assert one.refuse("set", "OOM")


@pytest.mark.parametrize("code", sorted(REFUSES_WRITES - {"OOM"}))
def test_a_server_that_took_a_write_takes_all(code: str) -> None:
    """Whichever it was; a full memory lets deletes pass, so there a value must have been stored."""
    one = breaker_of()
    one.refuse("store", code)
    one.refuse("clear", code)
    assert one.accept("delete", wrote=True, stored=False)


def test_a_missing_right_is_mended_by_that_operation_alone() -> None:
    """Who may not delete, but set, is not told about at each call."""
    one = breaker_of()
    one.refuse("delete", "NOPERM")
    assert not one.accept("store", wrote=True, stored=True)
    assert one.accept("delete", wrote=True, stored=False)


def test_a_timeout_opens_the_breaker_at_once() -> None:
    """A server that hangs costs one timeout, not breaker_failures of them."""
    breaker = breaker_of()
    assert breaker.failed(timeout=True, now=0.0)
    assert not breaker.permit(now=0.1)


def test_other_failures_open_it_when_they_come_in_a_row() -> None:
    """A success in between begins the count anew."""
    breaker = breaker_of(failures=2)
    assert not breaker.failed(timeout=False, now=0.0)
    breaker.ok()
    assert not breaker.failed(timeout=False, now=0.0)
    assert breaker.permit(now=0.0)
    assert breaker.failed(timeout=False, now=0.0)
    assert not breaker.permit(now=0.0)


def test_opening_is_told_once() -> None:
    """Failures of what was sent before add nothing."""
    breaker = breaker_of(failures=1)
    assert [breaker.failed(timeout=True, now=now) for now in (0.0, 0.1, 0.2)] == [True, False, False]


def test_with_the_bus_up_one_operation_per_reset_tries() -> None:
    """Others are refused while it is out, and its success closes the breaker."""
    breaker = breaker_of(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert [breaker.permit(now=now) for now in (0.5, 1.0, 1.1)] == [False, True, False]
    assert breaker.state is State.TRYING
    assert breaker.ok()
    assert breaker.permit(now=1.2)


@pytest.mark.parametrize("timeout", [True, False])
def test_a_try_that_fails_shuts_the_link_for_another_reset(*, timeout: bool) -> None:
    """One failure is enough for a try, whatever breaker_failures says."""
    breaker = breaker_of(failures=3, reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert breaker.permit(now=1.0)
    breaker.failed(timeout=timeout, now=1.5)
    assert [breaker.permit(now=now) for now in (2.4, 2.6)] == [False, True]


def test_a_try_that_never_reports_is_followed_by_another() -> None:
    """A thread that died with the probe does not keep the link shut for ever."""
    breaker = breaker_of(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert [breaker.permit(now=now) for now in (1.0, 1.5, 2.0)] == [True, False, True]


def test_with_the_bus_down_nobody_tries() -> None:
    """Readers never connect; when the bus is proven, all may at once."""
    breaker = breaker_of(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    breaker.bus_down()
    assert not breaker.permit(now=100.0)
    assert breaker.bus_up()
    assert breaker.permit(now=100.0)


def test_a_late_answer_does_not_close_the_breaker() -> None:
    """It belongs to what was sent before the failure, and proves nothing about now."""
    breaker = breaker_of()
    breaker.failed(timeout=True, now=0.0)
    assert not breaker.ok()
    assert not breaker.permit(now=0.1)


def test_a_lost_bus_does_not_stop_operations() -> None:
    """Commands go on while they are answered."""
    breaker = breaker_of()
    breaker.bus_down()
    assert breaker.permit(now=0.0)
