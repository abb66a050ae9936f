"""Schedules of values that were returned without a version: no later read goes back to an older record (T)."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import get, past, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Instance

LONG = 1000.0


def loaded_without_redis(a: Instance, value: int) -> None:
    """A read fails, and its value comes from the loader."""
    loading = a.load("k", lambda: value, refresh=True)
    loading.request.fail()
    assert a.world.run(loading) == value


@schedule(without.NO_MARKS)
def a_value_that_was_loaded_while_redis_was_away(rules: Rules) -> None:
    """(T1) The database is ahead of Redis: what was loaded there is followed by the older record."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 0)
        loaded_without_redis(a, 1)
        past(world)
        must(get(a, "k") is MISSING, "G4: a reader goes back to an older version")


@schedule(without.NO_MARKS)
def a_value_whose_fill_was_refused(rules: Rules) -> None:
    """(T2) All is well: a set comes under a load, whose row is newer still."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [0]
        loading = world.reach(a.load("k", lambda: row[0]), "lease")
        loading.request.execute()
        assert world.run(b.set("k", 1))
        row[0] = 2
        loading.request.reply()
        assert world.run(loading) == 2
        must(get(a, "k") is MISSING, "G4: a reader goes back to an older version")


@schedule(without.MARKS_FROM_THE_START)
def a_record_whose_load_began_after_this_one(rules: Rules) -> None:
    """(T3) It began after ours did, and read the database before ours: only the end of a load orders them."""
    with rules.world() as world:
        a, b = two(rules, world)
        row = [0]
        mine = a.load("k", lambda: row[0])
        world.now += 0.1
        theirs = world.reach(b.load("k", lambda: row[0]), "loader")
        row[0] = 1
        assert world.run(theirs) == 0
        mine.request.fail()
        assert world.run(mine) == 1
        past(world)
        must(get(a, "k") is MISSING, "G4: a reader goes back to an older version")


@schedule(without.MARKS_FROM_THE_CLIENTS_TIME)
def a_fill_that_is_executed_late(rules: Rules) -> None:
    """(T4) Its load was over before ours; "created" less the time that its client measured lies behind the mark."""
    with rules.world() as world:
        a, b = two(rules, world)
        filling = world.reach(b.load("k", lambda: 0), "fill")
        world.now += 0.1
        loaded_without_redis(a, 1)
        world.now += 0.1
        assert world.run(filling) == 0
        past(world)
        must(get(a, "k") is MISSING, "G4: a reader goes back to an older version")


@schedule(without.MARKS_OF_FRESH_RECORDS_ALONE)
def an_older_record_that_is_served_while_it_is_revalidated(rules: Rules) -> None:
    """(T5) A mark holds for stale records as well."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 0, ttl=1, stale_while_revalidate=LONG)
        loaded_without_redis(a, 1)
        past(world)
        reading = a.load("k", lambda: 2, stale_while_revalidate=LONG)
        must(world.run(reading) == 2, "G4: a reader goes back to an older version")


@schedule(without.MARKS_OF_FRESH_RECORDS_ALONE)
def an_older_record_that_is_served_after_an_error(rules: Rules) -> None:
    """(T5) The same where the next loader fails."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 0, ttl=1, stale_if_error=LONG)
        loading = a.load("k", lambda: 1, refresh=True, stale_if_error=LONG)
        loading.request.fail()
        assert world.run(loading) == 1
        past(world)

        def fails() -> int:
            raise LookupError

        reading = a.load("k", fails, stale_if_error=LONG)
        must(world.run(reading) == 1, "G4: a reader goes back to an older version")


@schedule(without.MARKS_END_WITH_ANY_FILL)
def a_fill_under_a_lease_from_before_the_mark(rules: Rules) -> None:
    """(T6) Its answer comes after the newer value was returned: that says nothing about the record."""
    with rules.world() as world:
        a, _ = two(rules, world)
        filling = world.reach(a.load("k", lambda: 0), "fill")
        filling.request.execute()
        loaded_without_redis(a, 1)
        filling.request.reply()
        past(world)
        must(get(a, "k") is MISSING, "G4: a reader goes back to an older version")


@schedule(without.SNAPSHOTS_WITHOUT_MARKS)
def a_mark_that_ends_under_a_read(rules: Rules) -> None:
    """(T7) A slow read has found the older record; another one accepts a newer value, and the mark ends."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 0)
        loaded_without_redis(a, 1)
        past(world)
        slow = a.get("k")
        slow.request.execute()
        put(b, "k", 1)
        assert get(a, "k") == 1
        slow.request.reply()
        must(world.run(slow) is MISSING, "G4: a reader goes back to an older version")
