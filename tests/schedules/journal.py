"""Schedules of the journal: writes of unknown outcome, their replay, deadlines and holds."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import fail, get, past, put, schedule, two
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import Receiving

HOUR = 3600 * 1_000_000
"""µs."""


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


@schedule(without.CLOCK_OF_CONNECTIONS)
def a_failed_set_after_the_servers_clock_was_set_back(rules: Rules) -> None:
    """Its deadline is by the clock that the last heartbeat brought: the key is cached again soon, not an hour later."""
    with rules.world() as world:
        a, _ = two(rules, world)
        put(a, "k", 1)
        clock = world.server.clock
        world.server.clock = lambda: clock() - HOUR
        a.beat()
        fail(a.set("k", 2))
        past(world)
        a.beat()
        assert world.run(a.load("k", lambda: 3)) == 3
        must(get(a, "k") == 3, "a key is uncached for as long as the clock was set back")
