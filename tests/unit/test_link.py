"""The breaker: one transition table, complete, and what an operation meets in each state."""

from __future__ import annotations

import itertools

import pytest

from nearcache.link import TRANSITIONS, Link, Signal, State


def link(failures: int = 3, reset: float = 1.0) -> Link:
    """A link whose bus is up."""
    made = Link(failures, reset)
    made.bus_up()
    return made


def test_the_table_is_complete() -> None:
    """Every signal has its place in every state."""
    assert set(TRANSITIONS) == set(itertools.product(State, Signal))


def test_a_proven_bus_opens_the_link_from_everywhere() -> None:
    """The bus's own reconnecting is a probe."""
    assert {TRANSITIONS[state, Signal.BUS_UP] for state in State} == {State.UP}


def test_a_timeout_opens_the_breaker_at_once() -> None:
    """A server that hangs costs one timeout, not breaker_failures of them."""
    breaker = link()
    assert breaker.failed(timeout=True, now=0.0)
    assert not breaker.permit(now=0.1)


def test_other_failures_open_it_when_they_come_in_a_row() -> None:
    """A success in between begins the count anew."""
    breaker = link(failures=2)
    assert not breaker.failed(timeout=False, now=0.0)
    breaker.ok()
    assert not breaker.failed(timeout=False, now=0.0)
    assert breaker.permit(now=0.0)
    assert breaker.failed(timeout=False, now=0.0)
    assert not breaker.permit(now=0.0)


def test_opening_is_told_once() -> None:
    """Failures of what was sent before add nothing."""
    breaker = link(failures=1)
    assert [breaker.failed(timeout=True, now=now) for now in (0.0, 0.1, 0.2)] == [True, False, False]


def test_with_the_bus_up_one_operation_per_reset_tries() -> None:
    """Others are refused while it is out, and its success closes the breaker."""
    breaker = link(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert [breaker.permit(now=now) for now in (0.5, 1.0, 1.1)] == [False, True, False]
    assert breaker.state is State.TRYING
    assert breaker.ok()
    assert breaker.permit(now=1.2)


@pytest.mark.parametrize("timeout", [True, False])
def test_a_try_that_fails_shuts_the_link_for_another_reset(*, timeout: bool) -> None:
    """One failure is enough for a try, whatever breaker_failures says."""
    breaker = link(failures=3, reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert breaker.permit(now=1.0)
    breaker.failed(timeout=timeout, now=1.5)
    assert [breaker.permit(now=now) for now in (2.4, 2.6)] == [False, True]


def test_a_try_that_never_reports_is_followed_by_another() -> None:
    """A thread that died with the probe does not keep the link shut for ever."""
    breaker = link(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    assert [breaker.permit(now=now) for now in (1.0, 1.5, 2.0)] == [True, False, True]


def test_with_the_bus_down_nobody_tries() -> None:
    """Readers never connect; when the bus is proven, all may at once."""
    breaker = link(reset=1.0)
    breaker.failed(timeout=True, now=0.0)
    breaker.bus_down()
    assert not breaker.permit(now=100.0)
    assert breaker.bus_up()
    assert breaker.permit(now=100.0)


def test_a_late_answer_does_not_close_the_breaker() -> None:
    """It belongs to what was sent before the failure, and proves nothing about now."""
    breaker = link()
    breaker.failed(timeout=True, now=0.0)
    assert not breaker.ok()
    assert not breaker.permit(now=0.1)


def test_a_lost_bus_does_not_stop_operations() -> None:
    """Commands go on while they are answered."""
    breaker = link()
    breaker.bus_down()
    assert breaker.permit(now=0.0)
