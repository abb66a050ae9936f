"""Schedules of values past their end and of loads without Redis; each fails without its rule, as in test_named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.schedules import ablations as without
from tests.schedules.ablations import Rules
from tests.schedules.stepper import Flow, Instance
from tests.schedules.test_named import Violated, get, must, put, two

Schedule = Callable[[Rules], None]
LONG = 1000.0


def away(a: Instance, key: str, value: object) -> Flow:
    """A load at the point where its loader has read the row, after Redis has not answered."""
    loading = a.load(key, lambda: value)
    loading.request.fail()
    return a.world.reach(loading, "loader")


def a_load_without_redis_ends_after_an_own_set(rules: Rules) -> None:
    """(N) It has read the old row; the value that it brings is kept by nobody."""
    with rules.world() as world:
        a, _ = two(rules, world)
        loading = away(a, "k", 1)
        assert world.run(a.set("k", 2))
        assert world.run(loading) == 1
        must(get(a, "k") != 1, "G3: an own set is not seen")


def a_load_without_redis_ends_after_a_foreign_set(rules: Rules) -> None:
    """(N) The same when another instance's message has come meanwhile."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = away(a, "k", 1)
        put(b, "k", 2)
        assert world.run(loading) == 1
        must(get(a, "k") != 1, "G2: a write that was heard of is not seen")


def a_value_that_was_loaded_without_redis_is_written(rules: Rules) -> None:
    """A message of its key ends it, as it ends every other entry."""
    with rules.world() as world:
        a, b = two(rules, world)
        assert world.run(away(a, "k", 1)) == 1
        assert get(a, "k") == 1
        put(b, "k", 2)
        must(get(a, "k") == 2, "G2: a write that was heard of is not seen")


def a_value_that_was_loaded_without_redis_when_it_is_back(rules: Rules) -> None:
    """Nobody knows what was written meanwhile: it ends."""
    with rules.world() as world:
        a, b = two(rules, world)
        a.lose()
        assert world.run(away(a, "k", 1)) == 1
        put(b, "k", 2)
        a.connect()
        must(get(a, "k") == 2, "G1: what was loaded without Redis outlives its return")


def a_value_that_was_loaded_without_redis_and_a_clear(rules: Rules) -> None:
    """It follows a clear whose message is on its way: served once more, L2 is read with its floors again."""
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
        assert reader.value() == 2
        must(get(a, "k") != 1, "G4: a reader goes back to an older version")


NAMED: list[tuple[Schedule, Rules]] = [
    (a_load_without_redis_ends_after_an_own_set, without.OUTAGE_KEEPS_ANYTHING),
    (a_load_without_redis_ends_after_a_foreign_set, without.OUTAGE_KEEPS_ANYTHING),
    (a_value_that_was_loaded_without_redis_is_written, without.OUTAGE_HEARS_NOTHING),
    (a_value_that_was_loaded_without_redis_when_it_is_back, without.OUTAGE_NEVER_ENDS),
    (a_value_that_was_loaded_without_redis_and_a_clear, without.LOADED_PASSES_NOTHING),
    (a_stale_value_is_newer_than_what_was_put, without.STALE_PASSES_NOTHING),
]


def name_of(part: object) -> str:
    """For the report."""
    return part.name if isinstance(part, Rules) else getattr(part, "__name__", "?")


@pytest.mark.parametrize("run", [run for run, _ in NAMED], ids=name_of)
def test_a_schedule_holds(run: Schedule) -> None:
    """Under the library's rules the invariant holds."""
    run(Rules())


@pytest.mark.parametrize(("run", "rules"), NAMED, ids=name_of)
def test_a_schedule_fails_without_its_rule(run: Schedule, rules: Rules) -> None:
    """With the guard taken away, the same schedule violates the same invariant."""
    with pytest.raises(Violated):
        run(rules)
