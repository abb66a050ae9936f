"""Schedules of data whose numbers are of another history: a copy, a counter that was lost or set back."""

from __future__ import annotations

from collections.abc import Callable

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import get, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Instance, World

HOUR = 3600 * 1_000_000
"""µs."""


def copied(rules: Rules, world: World, *, behind: int = 0, identity: str | None = "two") -> tuple[Instance, Instance]:
    """Two new processes on a server to which a namespace was copied: the counter before the last two writes of k.

    Args:
        rules: of the world.
        world: with its old server, whose processes are gone.
        behind: µs by which the new server's clock is behind.
        identity: of the new server; None: it tells none.
    """
    a, b = two(rules, world)
    put(b, "x", 0)
    number, floor = world.server.number, world.server.floor
    put(b, "y", 0)
    put(b, "k", 0)  # numbered two above the counter that was copied
    clock = world.server.clock
    old, world.server = world.server, rules.server(lambda: clock() - behind, identity)
    for instance in (a, b):
        instance.lose()
        world.instances.remove(instance)
    world.server.number, world.server.floor, world.server.history = number, floor, old.history
    world.server.values = dict(old.values)
    a, b = rules.instance(world, "c"), rules.instance(world, "d")
    world.deliver_all()
    return a, b


def stale_for_good(a: Instance, b: Instance, remove: Callable[[Instance], object]) -> None:
    """A reads the copied record while B removes it under the number below."""
    world = a.world
    reading = a.get("k")
    reading.request.execute()
    remove(b)
    world.deliver_all()
    reading.request.reply()
    world.run(reading)
    must(get(a, "k") is MISSING, "G1: what was removed is stale for good")


@schedule(without.NUMBERS_BELIEVED)
def a_delete_below_a_copied_record(rules: Rules) -> None:
    """(U1) The record's number is above the counter: the delete's number is below it, and leaves it alone."""
    with rules.world() as world:
        a, b = copied(rules, world)
        stale_for_good(a, b, lambda b: world.run(b.delete("k")))


@schedule(without.NUMBERS_BELIEVED)
def a_clear_below_a_copied_record(rules: Rules) -> None:
    """(U2) The same with a clear: the record stands above the floor."""
    with rules.world() as world:
        a, b = copied(rules, world)
        stale_for_good(a, b, lambda b: world.run(b.clear()))


@schedule(without.ABOVE_IS_DEAD_ALONE, without.HISTORIES_IN_RECORDS)
def numbers_that_catch_up_with_a_copied_record(rules: Rules) -> None:
    """(U3) Readers refuse what stands above the counter, but the counter passes it: what was cleared is alive again.

    (U6) The same where records carry the id of their history: the counter was copied with its id.
    """
    with rules.world() as world:
        a, b = copied(rules, world)
        assert world.run(b.clear())
        for _ in range(2):
            put(b, "other", 1)
        must(get(a, "k") is MISSING, "a cleared value comes alive")


@schedule(without.ABOVE_IS_BELIEVED)
def a_record_above_the_counter_that_nobody_has_seen(rules: Rules) -> None:
    """(U4) No client tells the server of the number, and its history is not known: a reader has to compare."""
    with rules.world() as world:
        a, b = copied(rules, world, identity=None)
        stale_for_good(a, b, lambda b: world.run(b.delete("k")))


@schedule(without.SEEN_BY_NOBODY)
def a_copy_to_a_server_whose_clock_is_behind(rules: Rules) -> None:
    """(U5) The time that an adoption takes for the counter is below numbers that a living client has seen."""
    with rules.world() as world:
        a, b = copied(rules, world, behind=HOUR)
        assert get(a, "k") in (0, MISSING)  # whoever meets the record tells the server of its number
        assert world.run(b.clear())
        for _ in range(2):
            put(b, "other", 1)
        must(get(a, "k") is MISSING, "a cleared value comes alive")


@schedule(without.SEEN_BY_NOBODY)
def a_counter_lost_with_the_clock_set_back(rules: Rules) -> None:
    """(U7) A new counter begins at the time, below records that are cleared, and catches up with them."""
    with rules.world() as world:
        _, b = two(rules, world)
        put(b, "x", 0)
        put(b, "k", 0)
        clock = world.server.clock
        number = world.server.number
        assert number is not None
        assert world.run(b.clear())
        world.deliver_all()
        back = clock() - number + 2  # so that the new counter begins two below the record
        world.server.clock = lambda: clock() - back
        world.server.lose_counters()
        for _ in range(3):
            put(b, "other", 1)
        world.server.clock = clock
        newcomer = rules.instance(world, "c")
        newcomer.deliver()
        must(get(newcomer, "k") is MISSING, "a cleared value comes alive")
