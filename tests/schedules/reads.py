"""Schedules of reads and puts: what may stay in L1, and what a reader may be given after it."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import encoded, get, miss_a_message, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules


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
        assert world.run(newer) == 2
        must(get(a, "k") == 2, "G4: a reader goes back to an older version")


@schedule(without.OWN_WRITE_LEAVES_STAMP)
def a_get_under_an_own_delete(rules: Rules) -> None:
    """A GET's reply is late, an own delete is acknowledged before it, and its message comes after it."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        assert world.run(a.delete("k"))
        late.request.reply()
        must(a.look("k") is MISSING, "G3: an own delete is not seen")
