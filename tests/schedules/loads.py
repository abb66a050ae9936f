"""Schedules of loads: leases, fills, single flight, and callers that wait."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import follower_of, get, past, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Pause


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


@schedule(without.AFTER_WAIT_ALONE)
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


@schedule(without.LEASES_AT_ANY_TIME)
def a_lease_that_is_asked_for_too_late(rules: Rules) -> None:
    """The request is late, what gives the lease back overtakes it: without a deadline nobody would have the lease."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1), "lease")
        late = loading.request
        late.fail(timeout=True)
        assert world.run(loading) == 1
        for flow in [flow for flow in world.flows if flow.name == "settle"]:
            world.run(flow)
        a.beat()
        past(world)
        late.execute()
        before = world.now
        assert world.run(b.load("k", lambda: 2)) == 2
        must(world.now - before < 1, "G8: a reader waits for a lease that nobody has")
