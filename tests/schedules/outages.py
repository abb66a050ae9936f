"""Schedules of values past their end, and of loads while Redis is away."""

from __future__ import annotations

from contextlib import suppress

from tests.schedules.invariant import must
from tests.schedules.named import get, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Flow, Instance

LONG = 1000.0


def away(a: Instance, key: str, value: object) -> Flow:
    """A load at the point where its loader has read the row, after Redis has not answered."""
    loading = a.load(key, lambda: value)
    loading.request.fail()
    return a.world.reach(loading, "loader")


@schedule(without.OUTAGE_KEEPS_ANYTHING)
def a_load_without_redis_ends_after_an_own_set(rules: Rules) -> None:
    """(N) It has read the old row; the value that it brings is kept by nobody."""
    with rules.world() as world:
        a, _ = two(rules, world)
        loading = away(a, "k", 1)
        assert world.run(a.set("k", 2))
        assert world.run(loading) == 1
        must(get(a, "k") != 1, "G3: an own set is not seen")


@schedule(without.OUTAGE_KEEPS_ANYTHING)
def a_load_without_redis_ends_after_a_foreign_set(rules: Rules) -> None:
    """(N) The same when another instance's message has come meanwhile."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = away(a, "k", 1)
        put(b, "k", 2)
        assert world.run(loading) == 1
        must(get(a, "k") != 1, "G2: a write that was heard of is not seen")


@schedule(without.OUTAGE_HEARS_NOTHING)
def a_value_that_was_loaded_without_redis_is_written(rules: Rules) -> None:
    """A message of its key ends it, as it ends every other entry."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(away(a, "k", 1)) == 1
        assert get(a, "k") == 1
        put(b, "k", 2)
        must(get(a, "k") == 2, "G2: a write that was heard of is not seen")


@schedule(without.OUTAGE_NEVER_ENDS)
def a_value_that_was_loaded_without_redis_when_it_is_back(rules: Rules) -> None:
    """Nobody knows what was written meanwhile: it ends."""
    with rules.world() as world:
        a, b = two(rules, world)
        a.lose()
        assert world.run(away(a, "k", 1)) == 1
        put(b, "k", 2)
        a.connect()
        must(get(a, "k") == 2, "G1: what was loaded without Redis outlives its return")


@schedule(without.NO_MARKS)
def a_value_that_was_loaded_without_redis_and_a_clear(rules: Rules) -> None:
    """(T) It follows a clear whose message is on its way: the cleared record began before it was loaded."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert world.run(away(a, "k", 2)) == 2
        a.beat()
        assert world.run(b.clear())  # its message is on the way
        assert get(a, "k") == 2
        refreshing = a.load("k", lambda: 3, refresh=True)
        world.reach(refreshing, "lease")
        refreshing.cancel()
        must(get(a, "k") != 1, "G4: a reader goes back to a cleared value")


@schedule(without.STALE_PASSES_NOTHING)
def a_stale_value_is_newer_than_what_was_put(rules: Rules) -> None:
    """(S) A slow read puts 1; a stale 2 is returned, whose message is on its way; nobody goes back to the 1."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        slow = a.get("k")
        slow.request.execute()
        assert world.run(b.set("k", 2, ttl=0.1, stale_while_revalidate=LONG))
        world.now += 1
        reader = a.load("k", lambda: 3, stale_while_revalidate=LONG)
        reader.request.execute()
        slow.request.reply()
        assert slow.value() == 1
        reader.request.reply()
        assert world.run(reader) == 2
        must(get(a, "k") != 1, "G4: a reader goes back to an older version")


@schedule(without.FLUSHED_SERVES_ALWAYS)
def a_delete_that_was_missed_and_a_loader_that_fails(rules: Rules) -> None:
    """Redis is back and has nothing: what the flush took out may be what was deleted meanwhile."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(a.load("k", lambda: 1, stale_if_error=LONG)) == 1
        a.lose()
        assert world.run(b.delete("k"))
        a.connect()

        def fails() -> int:
            raise LookupError

        reading = a.load("k", fails, stale_if_error=LONG)
        with suppress(LookupError):
            world.run(reading)
        must(isinstance(reading.error, LookupError), "G6: a deleted value is served")
