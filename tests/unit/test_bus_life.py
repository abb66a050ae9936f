"""The bus's life under races: what is known of it is not lost when the cache is closed meanwhile."""

from __future__ import annotations

import pytest

from nearcache.engine import bus_state, subscriber
from nearcache.engine.bus_state import BusSignal, BusState
from nearcache.engine.ports import MISSING, Incompatible
from nearcache.engine.replay import replay_journal
from tests.support.stepper import Instance, World
from tests.support.stepper.ports import ModelBus


async def _foreign(_self: ModelBus) -> None:
    """Connect, and find another protocol in the namespace."""
    raise Incompatible("kept by protocol 9/1")


def test_a_closed_cache_sends_nothing_into_a_foreign_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal is not replayed when it is closed: the keys there belong to another protocol."""
    monkeypatch.setattr(ModelBus, "open", _foreign)
    world = World()
    cache = Instance(world, "a", connected=False)
    assert cache.core.bus_state is BusState.INCOMPATIBLE
    assert world.run(cache.delete("k")) is False
    cache.subscriber.end()
    assert world.run(world.start("close", replay_journal(cache.core))) is False
    assert world.requests == []


def test_a_child_of_fork_that_hears_of_a_loss_asks_nothing() -> None:
    """What a fork has put out of use stays out of use, whatever the bus that was copied along does."""
    world = World()
    cache = Instance(world, "a")
    cache.core.requests.bypassed = True  # as BaseCache._restart_after_fork does
    cache.lose()
    assert world.run(cache.get("k")) is MISSING
    assert cache.core.requests.bypassed


def test_a_cache_that_is_closed_while_its_bus_changes_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The close comes after the bus has looked up its next state, and before it takes it: nothing is reported after."""
    world = World()
    cache = Instance(world, "a")
    told: list[object] = []
    cache.core.listeners.append(told.append)

    def interrupted(state: BusState, signal: BusSignal) -> tuple[BusState, bus_state.Report]:
        monkeypatch.setattr(subscriber, "advance", bus_state.advance)
        found = bus_state.advance(state, signal)
        cache.subscriber.end()
        return found

    monkeypatch.setattr(subscriber, "advance", interrupted)
    cache.lose()
    assert cache.core.bus_state is BusState.CLOSED
    assert told == []
