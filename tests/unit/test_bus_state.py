"""The bus's life is one table: every pair of state and signal stands in it, and what is reported follows from it."""

from __future__ import annotations

import pytest

from nearcache.engine.bus_state import TRANSITIONS, BusSignal, BusState, Report, advance

ENDS = set(BusSignal) - {BusSignal.START, BusSignal.CLOSE}
"""How an attempt may end."""


def test_every_pair_that_can_happen_stands_in_the_table() -> None:
    """An unused bus can only start or be closed; afterwards nothing starts it a second time."""
    assert set(TRANSITIONS) == set(BusState)
    for state, row in TRANSITIONS.items():
        if state is BusState.IDLE:
            assert set(row) == {BusSignal.START, BusSignal.CLOSE}
        else:
            assert set(row) >= ENDS | {BusSignal.CLOSE}, state
    with pytest.raises(KeyError):
        advance(BusState.PROVEN, BusSignal.START)


def test_every_state_is_reached_from_an_unused_bus() -> None:
    """No state is there for nothing."""
    reached, new = set[BusState](), {BusState.IDLE}
    while new:
        reached |= new
        new = {after for state in new for after in TRANSITIONS[state].values()} - reached
    assert reached == set(BusState)


def test_a_closed_bus_stays_closed() -> None:
    """The last attempt may still end, and says nothing any more."""
    for signal in BusSignal:
        assert advance(BusState.CLOSED, signal) == (BusState.CLOSED, Report.NOTHING)


def test_a_foreign_protocol_is_left_by_a_proof_alone() -> None:
    """A lost connection does not say that the other protocol has gone."""
    for signal in ENDS - {BusSignal.PROVED}:
        assert advance(BusState.INCOMPATIBLE, signal) == (BusState.INCOMPATIBLE, Report.NOTHING)
    assert advance(BusState.INCOMPATIBLE, BusSignal.PROVED)[0] is BusState.PROVEN


def test_a_loss_and_a_refusal_are_reported_once() -> None:
    """A loss after a proof or at the first attempt, a refusal when it was not refused before."""
    refusals = (BusSignal.REFUSED, BusSignal.MISCONFIGURED, BusSignal.INCOMPATIBLE)
    for state in set(BusState) - {BusState.IDLE, BusState.CLOSED}:
        lost = advance(state, BusSignal.FAILED)[1]
        assert lost is (Report.LOSS if state in (BusState.CONNECTING, BusState.PROVEN) else Report.NOTHING), state
        for signal in refusals:
            refused = advance(state, signal)[1]
            assert refused is (Report.NOTHING if state.refused else Report.REFUSAL), (state, signal)
