"""The counterexamples behind the rules of the protocol, each as a schedule: it holds, and without its rule it does not.

A letter in parentheses is the counterexample's in the protocol's description. Each schedule runs under the library's
rules, and under rules that lack one guard, where the same invariant has to be violated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nearcache.engine.ports import MISSING
from nearcache.protocol.answers import Beat, Peer
from tests.schedules import ablations as without
from tests.schedules.ablations import Rules
from tests.schedules.stepper import Flow, Instance, Pause, Receiving, World

Schedule = Callable[[Rules], None]


class Violated(AssertionError):
    """An invariant of the protocol does not hold."""


def must(holds: object, what: str) -> None:
    """An invariant."""
    if not holds:
        raise Violated(what)


SCHEDULES: list[Schedule] = []
NAMED: list[tuple[Schedule, Rules]] = []


def schedule(*rules: Rules) -> Callable[[Schedule], Schedule]:
    """A schedule that fails under each of these rules, one of which lacks a guard."""

    def note(run: Schedule) -> Schedule:
        SCHEDULES.append(run)
        NAMED.extend((run, rule) for rule in rules)
        return run

    return note


def two(rules: Rules, world: World) -> tuple[Instance, Instance]:
    """Two connected instances."""
    a, b = rules.instance(world, "a"), rules.instance(world, "b")
    world.deliver_all()
    return a, b


def encoded(world: World, value: object) -> bytes:
    """A value as a record holds it."""
    return world.instances[0].core.settings.codec.encode(value)


def get(instance: Instance, key: str) -> Any:
    """A get with nothing in its way."""
    return instance.world.run(instance.get(key))


def put(instance: Instance, key: str, value: object, **options: Any) -> None:
    """An acknowledged set with nothing in its way, heard by everybody."""
    assert instance.world.run(instance.set(key, value, **options))
    instance.world.deliver_all()


def miss_a_message(instance: Instance, write: Flow) -> None:
    """A write is acknowledged, its message to this instance is lost, and another's shows the gap."""
    world = instance.world
    world.run(write)
    assert instance.bus is not None
    instance.bus.line.items.clear()
    world.run(next(other for other in world.instances if other is not instance).delete("another key"))
    instance.deliver()


# ----------------------------------------------------------------------------------------------------------- the races


@schedule(without.NO_STAMP, without.PUT_ANYTHING)
def the_fill_race(rules: Rules) -> None:
    """A GET's reply is late, a foreign write and its message come before it: L1 must not keep the old value."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        put(b, "k", 2)
        late.request.reply()
        assert late.value() == 1, "a read that began before the write may return what it found"
        must(a.look("k") is MISSING, "L1 holds what was overwritten")
        must(get(a, "k") == 2, "G1: a stale hit that nothing will drop")


@schedule(without.PUT_ANYTHING)
def the_fill_race_with_an_own_set(rules: Rules) -> None:
    """The same with a write of one's own: the later reply must not take its place."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        assert world.run(a.set("k", 2))
        late.request.reply()
        must(get(a, "k") == 2, "G3: an own set is undone in L1")


@schedule(without.NO_EPOCH)
def the_fill_race_with_a_lost_message(rules: Rules) -> None:
    """The write's message is lost, a gap and a heartbeat follow, and no stamp tells of the write: the epoch does."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        miss_a_message(a, b.set("k", 2))
        a.beat()
        late.request.reply()
        must(get(a, "k") == 2, "G1: a stale hit that nothing will drop")


@schedule(without.NO_EPOCH)
def the_fill_race_with_a_failed_write(rules: Rules) -> None:
    """An own delete fails while a GET is under way: what comes back is not kept."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        deleting = a.delete("k")
        deleting.request.fail()
        late.request.reply()
        must(a.look("k") is MISSING, "G3: a journalled delete is not seen")


@schedule(without.FILLS_WITHOUT_LEASE)
def the_lease_race(rules: Rules) -> None:
    """A loader reads the old row, a delete is acknowledged, the fill comes late: L2 must not get the old value."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [1]
        loading = world.reach(a.load("k", lambda: row[0]), "loader")
        row[0] = 2
        assert world.run(b.delete("k"))
        assert world.run(loading) == 1
        must(world.server.living("k") is None, "G5: a loader's old value in L2")
        must(get(b, "k") is MISSING, "G5: a loader's old value is read")


@schedule(without.FILLS_WITHOUT_LEASE)
def the_lease_race_with_a_set(rules: Rules) -> None:
    """The same with a set: its value stands."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "loader")
        assert world.run(b.set("k", 2))
        world.run(loading)
        must(world.server.living("k") == encoded(world, 2), "G5: a loader's old value over a set")


@schedule(without.FILLS_BELOW_FLOORS)
def the_lease_race_with_a_clear(rules: Rules) -> None:
    """The same with a clear, which knows nothing of leases: the floor has risen."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "loader")
        assert world.run(b.clear())
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after a clear")


@schedule(without.FILLS_BELOW_FLOORS)
def the_lease_race_with_a_tag(rules: Rules) -> None:
    """The same with a tag."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1, tags=["t"]), "loader")
        assert world.run(b.invalidate("t"))
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after its tag was invalidated")


# --------------------------------------------------------------------------------------------------- the lettered ones


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


@schedule(without.PUT_ANYTHING)
def a_late_fill_after_a_newer_value(rules: Rules) -> None:
    """(B) Own fill executed, its reply delayed; foreign set; another reader puts its value; the reply comes."""
    with rules.world() as world:
        a, b = two(rules, world)
        filling = world.reach(a.load("k", lambda: 1), "fill")
        filling.request.execute()
        world.run(b.set("k", 2))
        assert get(a, "k") == 2
        filling.request.reply()
        must(get(a, "k") == 2, "G4: a reader goes back to an older version")


@schedule(without.PUT_LEAVES_STAMP)
def a_late_fill_after_a_newer_value_was_evicted(rules: Rules) -> None:
    """(B) The newer value has left L1 meanwhile: only the stamp that its put left tells of it."""
    with rules.world() as world:
        a, b = two(rules, world)
        filling = world.reach(a.load("k", lambda: 1), "fill")
        filling.request.execute()
        world.run(b.set("k", 2))
        assert get(a, "k") == 2
        with a.core.tier.lock:
            a.core.tier._drop("k")
        filling.request.reply()
        must(get(a, "k") == 2, "G4: a reader goes back to an older version")


@schedule(without.REFUSED_PUT_DROPS_NOTHING)
def a_refused_put_of_a_newer_value(rules: Rules) -> None:
    """(C) L1 holds the old value; foreign set; a thread reads the new one, its put is refused, it returns it."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        newer = a.get("k")
        assert get(a, "k") == 1
        world.run(b.set("k", 2))
        newer.request.execute()
        a.core.tier.epoch += 1  # a tag of others, a refused write of another key
        newer.request.reply()
        assert newer.value() == 2
        must(get(a, "k") == 2, "G4: a reader goes back to an older version")


@schedule(without.CLEAR_ELSEWHERE)
def a_read_after_an_own_clear(rules: Rules) -> None:
    """(G) The clear is acknowledged; the next read here comes before its message."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        assert world.run(a.clear())
        must(get(a, "k") is MISSING, "G3: an own clear is not seen")


@schedule(without.JOIN_ANY)
def a_reader_after_a_delete_joins_no_older_flight(rules: Rules) -> None:
    """(H) A loader has read the old row; an own delete is acknowledged; a second reader begins."""
    with rules.world() as world:
        a, _ = two(rules, world)
        row = [1]
        first = world.reach(a.load("k", lambda: row[0]), "loader")
        row[0] = 2
        assert world.run(a.delete("k"))
        second = a.load("k", lambda: row[0])
        world.run(first)
        must(world.run(second) == 2, "G3: a read after the own delete returns the old row")


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


@schedule(without.NUMBERS_ALONE)
def two_loads_under_one_number(rules: Rules) -> None:
    """(J) The value expires and is loaded again without a write between; the first one's reader is late."""
    with rules.world() as world:
        a, b = two(rules, world)
        world.run(b.load("k", lambda: 1))
        late = a.get("k")
        late.request.execute()
        world.server.values.clear()
        world.run(b.load("k", lambda: 2, refresh=True))
        assert get(a, "k") == 2
        late.request.reply()
        must(get(a, "k") == 2, "G4: a reader goes back to an older load")


@schedule(without.LOCAL_FLOOR_IS_ENOUGH)
def a_tag_floor_that_the_server_lost(rules: Rules) -> None:
    """(K) A tag's floor is evicted and the tag invalidated, while an instance that knew the floor has no bus."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        assert get(b, "k") == 1
        with b.core.tier.lock:
            b.core.tier._drop("k")
        b.lose()
        world.server.tags.clear()
        assert world.run(a.invalidate("t"))
        must(get(b, "k") is MISSING, "an L2 read after the acknowledgement returns what was invalidated")


@schedule(without.FILLS_WITHOUT_COUNTER)
def a_floor_that_the_server_lost(rules: Rules) -> None:
    """(K) A clear comes under a loader, and then the floor is evicted: the fill can't know, and is refused."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "loader")
        assert world.run(b.clear())
        world.server.lose_counters()
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after a clear")


@schedule(without.FLOORS_FALL)
def a_greeting_older_than_an_own_clear(rules: Rules) -> None:
    """(L) The counters are read for a returning bus, an own clear is acknowledged, then that answer comes."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        a.lose()
        a.connect(greet=False)
        assert a.bus is not None
        world.server.answer(a.bus.line)
        assert world.run(a.clear())
        a.deliver(1)
        must(get(a, "k") is MISSING, "G3: an own clear is undone by an older floor")


@schedule(without.KNOWN_AFTER_A_GAP)
def a_lost_clear_behind_a_gap(rules: Rules) -> None:
    """(M) A clear's message is lost, a later number shows the gap: until a heartbeat the local floor is the old one."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        miss_a_message(a, b.clear())
        must(get(a, "k") is MISSING, "a cleared value comes alive")


@schedule(without.KEEP_TAG_FLOORS_OF_ANY_TIME)
def tag_floors_read_before_a_gap(rules: Rules) -> None:
    """(M) A tag's floor is read, the tag invalidated, its message lost; the gap is seen before the reply comes."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1, tags=["t"])
        reading = world.reach(a.get("k"), "tag_floors")
        reading.request.execute()
        miss_a_message(a, b.invalidate("t"))
        a.beat()
        world.run(reading)
        must(get(a, "k") is MISSING, "a floor from before the gap lets an invalidated value live")


@schedule(without.READ_FLOORS_COUNT_AS_APPLIED)
def a_tag_floor_read_before_its_message(rules: Rules) -> None:
    """(M) A tag's new floor is read with another key, before the tag's message comes: that has to drop all the same."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        put(b, "k2", 1, tags=["t"])
        assert world.run(b.invalidate("t"))
        assert get(a, "k2") is MISSING
        a.deliver()
        must(get(a, "k") is MISSING, "G1: what was invalidated is stale for ever")


@schedule(without.READ_FLOORS_COUNT_AS_APPLIED)
def a_tag_floor_read_before_its_acknowledgement(rules: Rules) -> None:
    """(G) The same with an own invalidation: its acknowledgement has to drop all the same."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        put(b, "k2", 1, tags=["t"])
        invalidating = a.invalidate("t")
        invalidating.request.execute()
        assert get(a, "k2") is MISSING
        assert world.run(invalidating)
        must(get(a, "k") is MISSING, "G3: an own invalidation is not seen")


@schedule(without.PUT_ANYTHING)
def a_load_from_before_an_own_set(rules: Rules) -> None:
    """(N) A load begun before an own set, ending after it, changes nothing in L1."""
    with rules.world() as world:
        a, _ = two(rules, world)
        filling = world.reach(a.load("k", lambda: 1), "fill")
        filling.request.execute()
        assert world.run(a.set("k", 2))
        world.run(filling)
        must(get(a, "k") == 2, "G3: an own set is undone in L1")


@schedule(without.FORGET_UNKNOWN_WRITES)
def a_load_while_redis_is_away(rules: Rules) -> None:
    """(N) A write fails, and the value that was in L1 before it is not served; a loader's is returned, not kept."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        deleting = a.delete("k")
        deleting.request.lose()
        deleting.request.fail()
        assert deleting.value() is False
        must(get(a, "k") is MISSING, "G3: a journalled delete is not seen")
        assert world.run(a.load("k", lambda: 2)) == 2
        must(a.look("k") is MISSING, "a value is kept that nobody would drop")


def follower_of(world: World, b: Instance) -> Flow:
    """A load on b that waits for another's lease."""
    flow = world.reach(b.load("k", lambda: 2), "wait")
    assert isinstance(flow.point, Pause)
    return flow


@schedule(without.REFUSES_IN_SILENCE, without.FILLS_IN_SILENCE)
def a_refused_fill_wakes_who_waits(rules: Rules) -> None:
    """(O) A clear comes under a loader for which another instance waits; it must not sleep until the lease's end."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "loader")
        waiting = follower_of(world, b)
        assert world.run(a.clear())
        b.deliver()
        waiting = world.reach(waiting, "wait") if isinstance(waiting.point, Pause) and waiting.point.ready else waiting
        world.step(waiting)
        world.reach(waiting, "wait")
        world.run(loading)
        b.deliver()
        assert isinstance(waiting.point, Pause)
        must(waiting.point.ready, "a waiter sleeps while nothing that could wake it is on the way")
        assert world.run(waiting) == 2


@schedule(without.FILLS_IN_SILENCE)
def a_fill_wakes_who_waits(rules: Rules) -> None:
    """And takes the value that was filled: one load in the fleet (G8)."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "loader")
        waiting = follower_of(world, b)
        world.run(loading)
        b.deliver()
        assert isinstance(waiting.point, Pause)
        must(waiting.point.ready, "a waiter sleeps while nothing that could wake it is on the way")
        must(world.run(waiting) == 1, "G8: two loads of one key")


@schedule(without.REPEATS_LEASES)
def a_lease_is_never_asked_for_again(rules: Rules) -> None:
    """(P) A lease's connection breaks; a delete voids the lease; the first copy of the request runs late."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [1]
        loading = world.reach(a.load("k", lambda: row[0]), "lease")
        first_copy = loading.request
        first_copy.fail()
        world.reach(loading, "loader")
        row[0] = 2
        assert world.run(b.delete("k"))
        first_copy.execute()
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after a delete")


@schedule(without.NEVER_PASSED_BY)
def a_loaded_value_that_is_not_kept(rules: Rules) -> None:
    """(C) A refresh returns a newer row than L1 holds, but its fill is refused: the next read must not go back."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [1]
        put(b, "k", 1)
        assert get(a, "k") == 1
        loading = world.reach(a.load("k", lambda: row[0], refresh=True), "lease")
        row[0] = 2
        world.reach(loading, "loader")
        assert world.run(b.delete("k"))  # its message is on the way
        assert world.run(loading) == 2
        must(get(a, "k") != 1, "G4: a reader goes back to an older version")


@schedule(without.NEVER_PASSED_BY)
def a_loaded_value_while_reads_fail(rules: Rules) -> None:
    """(C) The same when Redis does not answer: what the loader gave is newer than what L1 holds."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        loading = a.load("k", lambda: 2, refresh=True)
        assert world.run(b.delete("k"))  # its message is on the way
        loading.request.fail()
        assert world.run(loading) == 2
        must(get(a, "k") != 1, "G4: a reader goes back to an older version")


@schedule(without.NEVER_PASSED_BY, without.PASSED_BY_DROPS_ONLY)
def a_reader_after_an_impatient_one_joins_no_older_flight(rules: Rules) -> None:
    """(H) A follower's patience ends, it loads the newer row itself; the next reader must not join the older flight."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [1]
        leader = world.reach(a.load("k", lambda: row[0]), "loader")
        impatient = world.reach(a.load("k", lambda: row[0], wait_timeout=1), "wait")
        row[0] = 2
        assert world.run(b.delete("k"))  # its message is on the way
        assert world.run(impatient) == 2
        next_one = a.load("k", lambda: row[0])
        world.run(leader)
        must(world.run(next_one) == 2, "G4: a reader goes back to an older version")


@schedule(without.IMPATIENT_ALONE)
def a_load_that_hangs(rules: Rules) -> None:
    """Whose patience with a load has ended loads once more, and all of them together: no stampede."""
    with rules.world() as world:
        a, _ = two(rules, world)
        hanging = world.reach(a.load("k", lambda: 1), "loader")
        loads: list[int] = []

        def load() -> int:
            loads.append(2)
            return 2

        readers = [world.reach(a.load("k", load), "wait") for _ in range(3)]
        for reader in readers:
            world.step(reader)  # the time is over
        for reader in readers:
            if not isinstance(reader.point, Pause):
                world.reach(reader, "loader")
        for reader in readers:
            assert world.run(reader) == 2
        must(loads == [2], f"G8: {len(loads)} loads besides the one that hangs")
        assert world.run(hanging) == 1


# ----------------------------------------------------------------------------------------------------------- the bus


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


# ------------------------------------------------------------------------------------------------------- the journal


def fail(write: Flow) -> None:
    """A write's request is lost, and its connection with it."""
    write.request.lose()
    write.request.fail()
    assert write.value() is False


def past(world: World, seconds: float = 2.0) -> None:
    """Time passes: every deadline of a set is over."""
    world.now += seconds


@schedule(without.JOURNAL_WITHOUT_EPOCH)
def a_read_under_way_when_a_delete_is_journalled(rules: Rules) -> None:
    """What a GET brings that began before is not put: no message will ever drop it."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        fail(a.delete("k"))
        late.request.reply()
        must(a.look("k") is MISSING, "G3: a journalled delete is not seen")


@schedule(without.NEVER_DRAINED)
def a_delete_while_redis_was_away(rules: Rules) -> None:
    """It is replayed when the bus is back, before L1 is trusted."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        a.lose()
        fail(a.delete("k"))
        a.connect()
        b.deliver()
        must(get(b, "k") is MISSING, "G6: a delete is undone")
        assert a.core.healthy
        assert not len(a.core.tier.journal)


@schedule(without.NEVER_DRAINED)
def a_clear_while_redis_was_away(rules: Rules) -> None:
    """The same with a clear; until it is replayed nothing of L2 is trusted here."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        a.lose()
        fail(a.clear())
        assert get(a, "k") is MISSING
        a.connect()
        b.deliver()
        must(get(b, "k") is MISSING, "G6: a clear is undone")
        assert world.run(a.load("k", lambda: 2)) == 2
        assert get(b, "k") == 2


@schedule(without.NEVER_DRAINED)
def a_tag_while_redis_was_away(rules: Rules) -> None:
    """The same with a tag."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1, tags=["t"])
        fail(a.invalidate("t"))
        a.beat()
        b.deliver()
        must(get(b, "k") is MISSING, "G6: an invalidation is undone")


@schedule(without.REPLAYS_VALUES)
def a_failed_set_before_an_acknowledged_one(rules: Rules) -> None:
    """(D) Set 1 is journalled, set 2 acknowledged: neither a read nor the replay may bring 1 back."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.set("k", 1))
        assert world.run(a.set("k", 2))
        must(get(a, "k") in (2, MISSING), "G3: a read returns the journalled value")
        a.deliver()
        past(world)
        a.beat()
        must(get(b, "k") != 1, "G3: the replay brought the journalled value")


@schedule(without.LATE_SETS_STORED)
def a_set_after_its_deadline(rules: Rules) -> None:
    """(E) Set 1 times out with its bytes on the way; set 2 is acknowledged; set 1 comes after it, too late."""
    with rules.world() as world:
        a, b = two(rules, world)
        setting = a.set("k", 1)
        first = setting.request
        first.fail(timeout=True)
        past(world)
        assert world.run(b.set("k", 2))
        first.execute()
        must(get(b, "k") != 1, "an old value with the newest version")


@schedule(without.JOURNAL_WITHOUT_DEADLINES)
def a_replay_before_the_deadline(rules: Rules) -> None:
    """(E) A replay must not come before the set that it makes up for: nothing would make up for it any more."""
    with rules.world() as world:
        a, b = two(rules, world)
        setting = a.set("k", 1)
        first = setting.request
        first.fail()
        assert world.run(b.delete("k"))
        a.beat()
        first.execute()
        past(world)
        a.beat()
        must(get(b, "k") is MISSING, "a set of unknown outcome is undone by nothing")


@schedule(without.LATE_SETS_ACKNOWLEDGED)
def a_set_answered_late(rules: Rules) -> None:
    """(Q) A set that came after its deadline was a delete: its value is not kept, and it is not acknowledged."""
    with rules.world() as world:
        a, b = two(rules, world)
        setting = a.set("k", 1)
        past(world)
        assert world.run(b.set("k", 2))
        acknowledged = world.run(setting)
        must(not acknowledged, "a late set is told as acknowledged")
        must(get(a, "k") != 1, "G3: the value of a late set is served")


@schedule(without.ACKNOWLEDGEMENTS_END_ENTRIES)
def a_late_acknowledgement_of_an_earlier_set(rules: Rules) -> None:
    """(F) Set 1 is executed, a delete is journalled, then set 1 is acknowledged: the delete still has to come."""
    with rules.world() as world:
        a, b = two(rules, world)
        setting = a.set("k", 1)
        setting.request.execute()
        fail(a.delete("k"))
        setting.request.reply()
        a.beat()
        b.deliver()
        must(get(b, "k") is MISSING, "G6: value 1 stays for good")


@schedule(without.JOURNAL_WITHOUT_NUMBERS)
def a_delete_journalled_again_during_its_replay(rules: Rules) -> None:
    """(F) A replay is executed, another instance fills, a new delete is journalled, then the replay is acknowledged."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.delete("k"))
        assert isinstance(a.listening.point, Receiving)
        a.listening.point.silence()
        assert a.bus is not None
        world.server.answer(a.bus.line)
        a.listening.point.resume([a.bus.line.items.popleft()])
        replay = a.listening.request
        replay.execute()
        assert world.run(b.load("k", lambda: 1)) == 1
        fail(a.delete("k"))
        replay.reply()
        a.deliver()
        a.beat()
        b.deliver()
        must(get(b, "k") is MISSING, "G6: the second delete is forgotten")


@schedule(without.HOLDS_NOTHING)
def a_load_from_a_lagging_replica(rules: Rules) -> None:
    """A delete with a hold: what is loaded meanwhile is returned, and kept nowhere."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(a.delete("k", hold_ms=1000))
        assert world.run(b.load("k", lambda: 1)) == 1
        must(world.server.living("k") is None, "a held key is filled")
        assert b.look("k") is MISSING
        past(world)
        assert world.run(b.load("k", lambda: 2)) == 2
        assert get(a, "k") == 2


@schedule(without.HOLDS_NOTHING)
def a_journalled_hold_is_kept(rules: Rules) -> None:
    """The replay of a delete holds the key as the delete would have."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.delete("k", hold_ms=1000))
        a.beat()
        assert world.run(b.load("k", lambda: 1)) == 1
        must(world.server.living("k") is None, "a held key is filled")


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


@pytest.mark.parametrize("run", SCHEDULES, ids=lambda run: run.__name__)
def test_a_schedule_holds(run: Schedule) -> None:
    """Under the library's rules the invariant holds."""
    run(Rules())


@pytest.mark.parametrize(("run", "rules"), NAMED, ids=lambda one: one.name if isinstance(one, Rules) else one.__name__)
def test_a_schedule_fails_without_its_rule(run: Schedule, rules: Rules) -> None:
    """With the guard taken away, the same schedule violates the same invariant."""
    with pytest.raises(Violated):
        run(rules)
