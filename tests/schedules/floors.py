"""Schedules of clears and tags: floors that were lost, read too early, or told too late."""

from __future__ import annotations

from functools import partial

from nearcache import current_load
from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import get, miss_a_message, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Instance


@schedule(without.CLEAR_ELSEWHERE)
def a_read_after_an_own_clear(rules: Rules) -> None:
    """(G) The clear is acknowledged; the next read here comes before its message."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        assert world.run(a.clear())
        must(get(a, "k") is MISSING, "G3: an own clear is not seen")


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


def tagged(value: object) -> object:
    """What a loader returns that adds the tag t."""
    current_load().tags |= {"t"}
    return value


@schedule(without.ADDED_TAGS_UNCHECKED)
def a_tag_that_a_loader_adds_was_invalidated(rules: Rules) -> None:
    """(BB) The lease gave no floor of the tag; it was invalidated while the loader had read the old row."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "another key", 1, tags=["t"])
        loading = world.reach(a.load("k", lambda: tagged(1)), "loader")
        assert world.run(b.invalidate("t"))
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after an invalidation of its tag")
        world.deliver_all()
        assert world.run(a.load("k", lambda: tagged(2))) == 2
        must(get(b, "k") == 2, "a load after the invalidation is not stored")


@schedule(without.ADDED_TAGS_CREATED)
def a_tag_that_a_loader_adds_had_no_floor(rules: Rules) -> None:
    """(BB) No value ever carried the tag, so that its invalidation under the loader had no floor to raise."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: tagged(1)), "loader")
        assert world.run(b.invalidate("t"))
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after an invalidation of its tag")
        world.deliver_all()
        assert world.run(a.load("k", lambda: tagged(2))) == 2
        must(get(b, "k") == 2, "a load after the invalidation is not stored")


@schedule()
def a_new_tag_that_a_loader_adds_beside_other_writes(rules: Rules) -> None:
    """(BB) Any write under the loader refuses the first fill under a new tag; its floor is there for the second one."""
    with rules.world() as world:
        a, b = two(rules, world)
        for value in (1, 2):
            loading = world.reach(a.load("k", partial(tagged, value)), "loader")
            put(b, "another key", value)
            assert world.run(loading) == value
            must((get(b, "k") is MISSING) == (value == 1), "a fill under a new tag")


def after_an_error(instance: Instance, key: str) -> object:
    """What a load returns that fails: a stale value, or MISSING."""

    def fails() -> object:
        raise LookupError

    world = instance.world
    try:
        return world.run(instance.load(key, fails, stale_if_error=600))
    except LookupError:
        return MISSING
    finally:
        for flow in [flow for flow in world.flows if flow.name == "settle" and not flow.done]:
            world.run(flow)  # its lease is given back


@schedule(without.STALE_IS_FRESH)
def a_tag_is_made_stale(rules: Rules) -> None:
    """(CC) Its values are misses, heard or not heard of, and may serve after an error."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        b.lose()
        assert world.run(a.invalidate("t", stale=True))
        for instance in (a, b):
            must(get(instance, "k") is MISSING, "G5: a value of a tag that was made stale is fresh")
            assert after_an_error(instance, "k") == 1
        assert world.run(b.load("k", lambda: 2)) == 2
        must(get(a, "k") == 2, "a load after the mark is not stored")


@schedule(without.FILLS_BELOW_STALE_FLOORS)
def a_load_under_a_tag_that_is_made_stale(rules: Rules) -> None:
    """(CC) The loader has read the old row before: its fill would be fresh."""
    with rules.world() as world:
        a, b = two(rules, world)
        loading = world.reach(a.load("k", lambda: 1, tags=["t"]), "loader")
        assert world.run(b.invalidate("t", stale=True))
        world.run(loading)
        must(world.server.living("k") is None, "G5: a loader's old value after an invalidation of its tag")


@schedule(without.STALE_FLOORS_ALONE, without.UNKNOWN_IS_STALE)
def a_tag_that_was_invalidated_is_made_stale(rules: Rules) -> None:
    """(CC) What was dead stays dead, also for an instance that has not heard of it."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        assert world.run(a.invalidate("t"))
        c = rules.instance(world, "c")
        world.deliver_all()
        assert world.run(a.invalidate("t", stale=True))
        world.deliver_all()
        for instance in (a, b, c):
            must(after_an_error(instance, "k") is MISSING, "G5: an invalidated value serves after an error")


@schedule(without.FLOORS_RISE_AS_ONE)
def an_own_mark_acknowledged_before_an_invalidation_is_heard(rules: Rules) -> None:
    """(CC) The message of the invalidation has the lower number, and counts all the same."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(a, "k", 1, tags=["t"])
        put(b, "k2", 1, tags=["t"])
        assert get(a, "k2") == 1  # the floor of t is known now
        assert world.run(b.invalidate("t"))
        assert world.run(a.invalidate("t", stale=True))
        world.deliver_all()
        must(after_an_error(a, "k") is MISSING, "G5: an invalidated value serves after an error")
