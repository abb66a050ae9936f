"""The bus's life under races: what is known of it is not lost when the cache is closed meanwhile."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nearcache.engine import bus_state, subscriber
from nearcache.engine.bus_state import BusSignal, BusState
from nearcache.engine.ports import MISSING, BusRefused, Incompatible
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


def test_a_refused_bus_is_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double to a minute, which people need to mend it; the journal is replayed all the while."""
    attempts: list[float] = []

    async def refused(self: ModelBus) -> None:
        attempts.append(self.world.now)
        raise BusRefused("the server refused to subscribe")

    monkeypatch.setattr(ModelBus, "open", refused)
    monkeypatch.setattr("nearcache.engine.subscriber.random.uniform", lambda _low, high: high)
    world = World()
    cache = Instance(world, "a", connected=False)
    while len(attempts) < 15:
        world.step(cache.listening)
    pauses = [after - before for before, after in pairwise(attempts)]
    assert pauses[0] == pytest.approx(2 * subscriber.BACKOFF, rel=0.01)
    assert all(after == pytest.approx(2 * before, rel=0.01) for before, after in pairwise(pauses[:10]))
    assert pauses[-1] == pytest.approx(60, rel=0.01)

    cache.core.tier.journal_keys(["k"])
    began = world.now
    while len(cache.core.tier.journal):
        world.step(cache.listening)
    assert world.now - began <= 2 * cache.core.settings.reconnect_max
