"""Schedules of add, touch and incr: a lock is given once, no count is lost or repeated, and nothing is revived (AA)."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from nearcache.errors import RemoteUnavailable
from tests.schedules.invariant import must
from tests.schedules.named import fail, get, past, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Flow, Instance


def unanswered(incr: Flow) -> None:
    """An incr is executed, and its answer lost."""
    incr.request.execute()
    incr.request.fail()
    assert isinstance(incr.error, RemoteUnavailable)


@schedule(without.OPERATIONS_JOURNALLED)
def an_add_that_failed_and_is_replayed(rules: Rules) -> None:
    """(AA) Replayed as a delete, it would take the lock away from another instance, which has it by then."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.add("k", 1))
        given = [world.run(b.add("k", 2))]
        past(world)
        a.beat()
        given.append(world.run(a.add("k", 3)))
        must(sum(given) == 1, "AA: a lock is given twice")


@schedule(without.OPERATIONS_UNDER_THE_JOURNAL)
def an_add_while_a_delete_is_journalled(rules: Rules) -> None:
    """(AA) The delete is replayed behind the add, and would delete what was added."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.delete("k"))
        given = [world.run(a.add("k", 1))]
        world.deliver_all()
        past(world)
        a.beat()
        given.append(world.run(b.add("k", 2)))
        must(sum(given) == 1, "AA: a lock is given twice")


@schedule(without.LATE_SETS_STORED)
def an_add_that_comes_after_its_deadline(rules: Rules) -> None:
    """(AA) Its caller was told False; meanwhile another had the lock and has given it back."""
    with rules.world() as world:
        a, b = two(rules, world)
        adding = a.add("k", 1)
        late = adding.request
        late.fail(timeout=True)
        assert adding.value() is False
        past(world)
        assert world.run(b.add("k", 2))
        assert world.run(b.delete("k"))
        late.execute()
        world.deliver_all()
        must(world.server.living("k") is None, "AA: a lock that nobody has was taken long after")


@schedule(without.ANY_HEAD)
def two_adds_over_one_dead_value(rules: Rules) -> None:
    """(AA) Both have judged the same record dead: the script looks whether it is still that one."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 0, tags=["t"])
        assert world.run(a.invalidate("t"))
        world.deliver_all()
        adding = world.reach(a.add("k", 1), "add")
        adding.request.execute()
        adding.request.reply()  # there is a record: it is read and judged
        world.reach(adding, "add")
        given = [world.run(b.add("k", 2)), world.run(adding)]
        must(sum(given) == 1, "AA: a lock is given twice")


@schedule(without.ENDS_BY_THE_CLIENTS_CLOCK)
def an_add_by_a_process_whose_estimate_of_the_clock_is_ahead(rules: Rules) -> None:
    """(AA) It takes a lock for ended that lives yet: the script judges its end by its own clock."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(a.add("k", 1, ttl=1))
        world.deliver_all()
        past(world, 0.995)
        b.core.invalidation.server_offset += 0.01
        must(world.run(b.add("k", 2)) is False, "AA: a lock is given twice")
        past(world, 0.006)
        assert world.run(b.add("k", 2))


@schedule(without.HOLDS_NOTHING)
def an_add_under_a_hold(rules: Rules) -> None:
    """(AA) A hold refuses an add as it refuses a fill."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(a.delete("k", hold_ms=1000))
        must(world.run(b.add("k", 1)) is False, "a held key is filled")
        past(world)
        assert world.run(b.add("k", 1))


@schedule(without.OPERATIONS_STAY_IN_L1)
def an_add_without_an_answer_beside_an_old_entry(rules: Rules) -> None:
    """(AA) L1 has an old value, as the message of its delete is on its way: the own add may have come behind it."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1)
        assert world.run(b.delete("k"))
        adding = a.add("k", 2)
        adding.request.execute()
        adding.request.fail()
        assert adding.value() is False
        must(get(a, "k") == 2, "G3: an older value than the own one")


@schedule(without.OPERATIONS_REPEATED)
def a_count_without_an_answer(rules: Rules) -> None:
    """(AA) It was executed: sent again, it would count twice."""
    with rules.world() as world:
        a, b = two(rules, world)
        counting = a.incr("n")
        counting.request.execute()
        counting.request.fail()
        world.finish()
        must(get(b, "n") == 1, "AA: a count is repeated")


@schedule(without.OPERATIONS_JOURNALLED)
def a_count_that_failed_and_is_replayed(rules: Rules) -> None:
    """(AA) Replayed as a delete, it would lose what others have counted."""
    with rules.world() as world:
        a, b = two(rules, world)
        unanswered(a.incr("n"))
        assert world.run(b.incr("n")) == 2
        past(world)
        a.beat()
        must(get(b, "n") == 2, "AA: an acknowledged count is lost")


@schedule(without.OPERATIONS_UNDER_THE_JOURNAL)
def a_count_while_a_delete_is_journalled(rules: Rules) -> None:
    """(AA) The delete is replayed behind it: it counts when that is done, and is unavailable until then."""
    with rules.world() as world:
        a, b = two(rules, world)
        fail(a.delete("n"))
        counting = a.incr("n")
        while not counting.done:
            world.step(counting)
        world.deliver_all()
        acknowledged = counting.error is None
        past(world)
        a.beat()
        must(not acknowledged or get(b, "n") == 1, "AA: an acknowledged count is lost")
        assert world.run(a.incr("n")) == 1


@schedule(without.COUNTS_ON_ANYTHING)
def a_counter_that_was_cleared(rules: Rules) -> None:
    """(AA) A floor above it, or a mark, ends a counter as it ends a value."""
    with rules.world() as world:
        a, b = two(rules, world)
        for end in (b.clear, lambda: b.mark_stale("n")):
            world.run(a.incr("n", 5))
            assert world.run(end())
            world.deliver_all()
            must(get(a, "n") is MISSING, "G5: a counter outlives a clear")
            must(world.run(a.incr("n", 5)) == 5, "G5: a counter outlives a clear")


@schedule(without.ANY_HEAD)
def a_count_of_a_number_that_is_set_meanwhile(rules: Rules) -> None:
    """(AA) It was judged to be another number: a counter made of that one would undo the set."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "n", 5)
        counting = judged(a)
        put(b, "n", 7)
        must(world.run(counting) == 8, "AA: an acknowledged set is lost")
        assert world.run(b.incr("n")) == 9


@schedule(without.COUNTS_ON_ANYTHING)
def a_count_of_a_number_that_is_cleared_meanwhile(rules: Rules) -> None:
    """(AA) A floor above it ends a number as it ends a counter."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "n", 5)
        counting = judged(a)
        assert world.run(b.clear())
        must(world.run(counting) == 1, "G5: a counter outlives a clear")


def judged(a: Instance) -> Flow:
    """A count that has found a number which was set, just before it is sent again."""
    counting = a.incr("n")
    for _ in range(2):  # as if it were absent, and to read it
        a.world.step(counting)
    return counting


@schedule(without.TOUCHES_MAKE_VERSIONS)
def a_touch_of_a_value_that_is_cleared_meanwhile(rules: Rules) -> None:
    """(AA) It was judged alive before the clear: under a new number it would stand above the floor."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1)
        touching = world.reach(a.touch("k", 60), "touch")
        assert world.run(b.clear())
        world.run(touching)
        world.deliver_all()
        must(get(a, "k") is MISSING, "G5: a cleared value is revived")


@schedule(without.ANY_HEAD)
def a_touch_of_a_value_that_is_marked_stale_meanwhile(rules: Rules) -> None:
    """(AA) It was judged alive before: the touch would take the mark away."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1)
        touching = world.reach(a.touch("k", 60), "touch")
        assert world.run(b.mark_stale("k"))
        must(world.run(touching) is False, "G5: a touch takes a mark away")
        world.deliver_all()
        must(get(a, "k") is MISSING, "G5: a touch takes a mark away")


@schedule()
def a_touch_of_a_value_that_is_deleted_meanwhile(rules: Rules) -> None:
    """(AA) Nothing is there that could be touched, or a newer value, which is touched then."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1)
        touching = world.reach(a.touch("k", 60), "touch")
        assert world.run(b.delete("k"))
        must(world.run(touching) is False, "G5: a deleted value is touched")
        put(a, "k", 2)
        touching = world.reach(a.touch("k", 60), "touch")
        put(b, "k", 3)
        assert world.run(touching)
        must(get(a, "k") == 3, "G5: an older value is back")


@schedule()
def two_deletes_of_one_value(rules: Rules) -> None:
    """Both have read it alive: one of them has deleted it, and is told so."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1)
        first = world.reach(a.delete_existing("k"), "delete_existing")
        second = b.delete_existing("k")
        told = [world.run(second), world.run(first)]
        must(sum(told) == 1, "a value is deleted twice")
