"""Schedules at the edges of a history: failovers, servers that commands meet before the bus, own clears between."""

from __future__ import annotations

from typing import Any

from nearcache.engine.ports import MISSING
from nearcache.local.snapshot import stripe_of
from nearcache.protocol.answers import Peer
from nearcache.testing.model import Server
from tests.schedules.invariant import must
from tests.schedules.named import get, past, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper.points import Receiving


@schedule(without.ANY_EPOCH_RAISES_STAMPS)
def a_stamp_of_another_history(rules: Rules) -> None:
    """(Y) A late reply of the old server must raise no stamp that the new server's numbers do not reach."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        number, values = world.server.number, dict(world.server.values)
        assert world.run(b.set("k", 2))  # a does not hear of it
        late = a.get("k")
        late.request.execute()
        b.lose()
        a.lose()
        world.server.number, world.server.identity = number, "two"  # a replica that lacks the last write
        world.server.values = values
        a.connect()
        b.connect()
        late.request.reply()
        reading = a.get("k")
        reading.request.execute()
        assert world.run(b.delete("k"))
        world.deliver_all()
        reading.request.reply()
        must(get(a, "k") is MISSING, "G1: what was deleted is stale for good")


@schedule(without.ANY_EPOCH_RAISES_STAMPS)
def an_own_set_of_another_history(rules: Rules) -> None:
    """(Y) So does the late acknowledgement of a set, whose value is not put any more."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        number, values = world.server.number, dict(world.server.values)
        assert world.run(b.set("other", 2))  # the old server gives out one number more than the new one will
        late = a.set("k", 2)
        late.request.execute()
        b.lose()
        a.lose()
        world.server.number, world.server.identity = number, "two"  # a replica that lacks the last writes
        world.server.values = values
        a.connect()
        b.connect()
        late.request.reply()
        reading = a.get("k")
        reading.request.execute()
        assert world.run(b.delete("k"))
        world.deliver_all()
        reading.request.reply()
        must(get(a, "k") is MISSING, "G1: what was deleted is stale for good")


@schedule(without.ANY_ANSWER_MAKES_FLOORS_KNOWN)
def an_own_clear_during_a_change_of_servers(rules: Rules) -> None:
    """(Z) The new server's greeting was asked before an own clear, and restarts the floors behind it."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        a.lose()
        world.server.identity = "two"
        a.connect(greet=False)
        assert a.bus is not None
        world.server.answer(a.bus.line)
        assert world.run(a.clear())
        a.deliver(1)
        must(get(a, "k") is MISSING, "G3: an own clear is undone by an older floor")


@schedule(without.ANY_BEAT_PROVES)
def a_heartbeat_between_two_greetings(rules: Rules) -> None:
    """(P5) A failover lost a write and gave its number out again; a heartbeat comes before identities are compared."""
    with rules.world() as world:
        world.server.identity = None  # who may not call INFO has no other guard
        a, b = two(rules, world)
        put(b, "k", 1)
        number = world.server.number
        put(b, "k", 2)
        assert get(a, "k") == 2
        a.lose()
        b.lose()
        world.server.number = number
        world.run(b.set("k", 3))  # under the number that 2 had
        past(world)
        a.core.invalidation.echoed = False  # so that a second greeting is asked behind a probe
        a.connect(greet=False)
        assert isinstance(a.listening.point, Receiving)
        a.listening.point.silence()
        a.deliver(2)
        must(a.look("k") != 2, "G1: a value of the lost server is proven")


@schedule(without.CONNECTIONS_OUTLIVE_THE_PROOF)
def a_connection_to_a_demoted_server(rules: Rules) -> None:
    """(P1) A command connection is made while the bus is down, to a server that is no primary when L1 is proven."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        a.lose()
        b.lose()
        remote: Any = a.core.remote
        remote.server = demoted = world.server
        a.core.connected(Peer("one", 0.0))
        world.server = Server(world.micros, "two")
        world.server.number, world.server.values = demoted.number, dict(demoted.values)
        a.connect()
        b.connect()
        put(b, "k", 2)
        must(get(a, "k") == 2, "G1: reads of a demoted server are put into L1")


@schedule(without.EVERY_NEW_SERVER_ENDS_DEADLINES)
def a_set_on_its_way_to_the_new_server(rules: Rules) -> None:
    """(P2) Commands met the new server before the bus did: a set may still be on its way there."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        a.core.connected(Peer("two", 0.0))
        world.server.identity = "two"
        setting = a.set("k", 2)
        request = setting.request
        request.fail(timeout=True)
        a.lose()
        a.connect()
        request.execute()
        past(world)
        for _ in range(3):
            a.beat()
        must(world.server.living("k") is None, "G6: the journal was drained before the set came")


@schedule(without.TURNS_BY_STRIPE)
def a_value_that_is_served_beside_another_load(rules: Rules) -> None:
    """(P3) While Redis is away, serving one key's value must not end the flights of others that share its stripe."""
    with rules.world() as world:
        a, _ = two(rules, world)
        before = a.core.tier.snapshot("k")
        with a.core.tier.lock:
            a.core.tier._take_turn(_same_stripe_as("k"))
        must(a.core.tier.snapshot("k") == before, "G8: a load of another key ends the flight of this one")


def _same_stripe_as(key: str) -> str:
    return next(other for number in range(1 << 20) if stripe_of(other := f"k{number}") == stripe_of(key))
