"""Schedules of loads of many keys: readers whose keys overlap, whose leaders die, and whose loaders leave keys out."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Pause


@schedule(without.MANY_WAIT_FIRST)
def two_readers_of_each_others_keys(rules: Rules) -> None:
    """(O) Each leads a key that the other follows: the one that waits before it loads waits for ever."""
    with rules.world() as world:
        a, _ = two(rules, world)
        gone = world.reach(a.load("y", lambda: 0), "loader")
        one = a.load_many(["x", "y"], lambda key: f"1 {key}")
        other = a.load_many(["y", "x"], lambda key: f"2 {key}")
        while one.point is not None and not isinstance(one.point, Pause):
            world.step(one)
        gone.cancel()
        world.step(other)  # it leads y now, and follows x
        world.finish()
        must(one.done and other.done, "G8: two readers wait for each other")
        must(one.value() == other.value() == {"x": "1 x", "y": "2 y"}, "G8: two loads of one key")


@schedule(without.FILLS_IN_SILENCE)
def a_fill_of_one_key_wakes_a_reader_of_many(rules: Rules) -> None:
    """(O) It has loaded its other keys before it waits, and takes the one that was filled elsewhere."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("x", lambda: 1), "loader")
        waiting = world.reach(b.load_many(["x", "y"], lambda _: 2), "wait")
        must(world.server.living("y") is not None, "a reader waits before it has loaded")
        world.run(loading)
        b.deliver()
        assert isinstance(waiting.point, Pause)
        must(waiting.point.ready, "a waiter sleeps while nothing that could wake it is on the way")
        must(world.run(waiting) == {"x": 1, "y": 2}, "G8: two loads of one key")


@schedule()
def a_process_that_dies_with_many_leases(rules: Rules) -> None:
    """(O) Its leases end: a reader that waits for them loads all its keys then."""
    with rules.world() as world:
        a, b = two(rules, world)
        world.reach(a.load_many(["x", "y"], lambda _: 1), "loader")
        waiting = world.reach(b.load_many(["x", "y"], lambda _: 2), "wait")
        world.instances.remove(a)
        began = world.now
        loading = world.reach(waiting, "loader")
        assert loading.point is not None
        must("['x', 'y']" in loading.point.label, "one load for both")
        must(began + 9 < world.now < began + 11, "the leases were waited for")
        assert world.run(waiting) == {"x": 2, "y": 2}


@schedule(without.ABSENT_FOR_ALL)
def a_reader_of_one_key_joins_a_load_that_leaves_it_out(rules: Rules) -> None:
    """(O) It has a loader of its own, which gives a value."""
    with rules.world() as world:
        a, _ = two(rules, world)
        leader = world.reach(a.load_many(["x", "y"], lambda key: 1 if key == "x" else MISSING), "loader")
        follower = a.load("y", lambda: 2)
        world.finish()
        must(leader.value() == {"x": 1}, "what was left out is absent")
        must(follower.value() == 2, "a reader gets nothing where its loader gives a value")


@schedule(without.FILLS_WITHOUT_LEASE)
def a_delete_between_the_leases_and_the_fills(rules: Rules) -> None:
    """(O) It voids the lease of its key alone: the other is filled by the same request."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = {"x": 1, "y": 1}
        loading = world.reach(a.load_many(["x", "y"], lambda key: row[key]), "fill")
        row["x"] = 2
        assert world.run(b.delete("x"))
        assert world.run(loading) == {"x": 1, "y": 1}
        world.deliver_all()
        must(world.server.living("x") is None, "G5: a loader's old value after a delete")
        must(world.server.living("y") is not None, "the other key is filled")
