"""Schedules of the bus: lost messages, gaps, failovers, and servers that differ."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from nearcache.protocol.answers import Beat, Peer
from tests.schedules.invariant import must
from tests.schedules.named import get, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Receiving


@schedule(without.NO_GAP_WHILE_LOST)
def a_lost_message_before_the_greeting(rules: Rules) -> None:
    """(A) Delete k0 is lost with the bus, delete k1 arrives before the counter's answer, which then agrees."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k0", 1)
        assert get(a, "k0") == 1
        a.lose()
        world.run(b.delete("k0"))
        a.connect(greet=False)
        world.run(b.delete("k1"))
        a.deliver()
        must(a.look("k0") is MISSING, "G1: k0 is stale for ever")


@schedule(without.OWN_PUT_AS_ANY_OTHER)
def an_own_write_under_a_number_given_out_before(rules: Rules) -> None:
    """(I) A failover is seen by commands before the bus: the own set's number is below that of what L1 holds."""
    with rules.world() as world:
        a, b = two(rules, world)
        number = world.server.number
        put(b, "x", 0)
        put(b, "k", 1)
        assert get(a, "k") == 1
        world.server.number = number  # a replica that lacks the last writes
        assert world.run(a.set("k", 2))
        must(a.look("k") != 1, "G3: an own write is not seen")


@schedule(without.ANY_SERVER_IS_THE_SAME)
def a_failover_to_a_counter_at_the_same_number(rules: Rules) -> None:
    """(I) Writes of the old server are lost, others came to the new one: the counter stands where it stood."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        number = world.server.number
        assert number is not None
        put(b, "k", 2)
        assert get(a, "k") == 2
        a.lose()
        b.lose()
        world.server.number, world.server.identity = number, "two"  # the replica never got the last write
        world.run(b.set("k", 3))
        a.connect()
        b.connect()
        must(get(a, "k") == 3, "G1: a value of the lost server is stale for ever")


@schedule(without.NO_GAP)
def a_number_given_out_twice_flushes(rules: Rules) -> None:
    """(I) The bus stays, the counter goes back: whatever L1 holds may be of the other history."""
    with rules.world() as world:
        a, b = two(rules, world)
        number = world.server.number
        put(b, "k", 1)
        assert get(a, "k") == 1
        world.server.number = number
        world.server.values.clear()
        world.run(b.set("k", 2))
        world.deliver_all()
        must(get(a, "k") == 2, "G1: a number given out twice hides a write")


@schedule(without.BACK_PROVES_ALL)
def a_write_while_the_bus_was_lost(rules: Rules) -> None:
    """The counter has moved: L1 is flushed at the return."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        a.lose()
        world.run(b.set("k", 2))
        a.connect()
        must(get(a, "k") == 2, "G1: a write during the loss is never seen")


@schedule(without.NEVER_OVERDUE)
def a_lost_message_that_nothing_follows(rules: Rules) -> None:
    """No later number shows the gap; the heartbeat's number does."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        world.run(b.set("k", 2))
        assert a.bus is not None
        a.bus.line.items.clear()
        for _ in range(4):
            a.beat()
        must(get(a, "k") == 2, "G1: a lost message is never noticed")


@schedule(without.PROMISES_NOTHING)
def commands_of_one_server_and_messages_of_another(rules: Rules) -> None:
    """(I) Writes are acknowledged by a server whose messages never come, while the other one's heartbeats agree."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        bus, last = a.bus, a.core.invalidation.last
        assert bus is not None
        assert world.run(a.set("x", 1))
        for _ in range(4):
            if isinstance(a.listening.point, Receiving) and not bus.cut_off:
                a.listening.point.silence()
                bus.line.questions.clear()
                bus.line.items.clear()
                bus.line.items.append(Beat(last, world.server.floor, world.micros(), master=True))
                a.deliver(1)
        must(a.look("k") is MISSING, "G1: L1 is proven by a server that nobody writes to")
        must(bus.cut_off, "the bus stays with that server")


@schedule(without.NEVER_DISOWNS)
def a_failover_seen_by_commands_first(rules: Rules) -> None:
    """(I) A new command connection leads to another server than the bus: what L1 holds is of the other history."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        a.core.connected(Peer("two", 0.0))
        must(a.look("k") is MISSING, "G1: a value of the lost server")
        assert a.bus is not None
        assert a.bus.cut_off, "the bus has to find the other server"
