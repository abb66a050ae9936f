"""Schedules of a namespace with two buckets, each on a server of its own."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.named import get, past, put, schedule
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules
from tests.support.stepper import World
from tests.support.stepper.buckets import BUCKETS, Bucketed, Shard, key_of

K0, K1 = key_of(0), key_of(1)


def two(world: World) -> tuple[Bucketed, Bucketed]:
    """Two connected processes on the same two servers."""
    shards = [Shard(world, bucket) for bucket in range(BUCKETS)]
    a, b = Bucketed(world, shards, "a"), Bucketed(world, shards, "b")
    world.deliver_all()
    return a, b


@schedule(without.ONE_LAST)
def messages_of_two_buckets(rules: Rules) -> None:
    """(X1) A message of one bucket is lost; the next one and a heartbeat of the other do not make up for it."""
    with rules.world() as world:
        a, b = two(world)
        first, second = (shard.server for shard in a.shards)
        first.number = max(first.number or 0, second.number or 0)
        second.number = first.number + 1  # as counters of two servers may stand
        put(b, K0, 1)
        must(get(a, K0) == 1, "the value is there")
        world.run(b.delete(K0))
        assert a.owners[0].bus is not None
        a.owners[0].bus.line.items.clear()  # the message is lost
        world.run(b.set(K1, 1))
        a.deliver()
        for _ in range(3):  # what is behind for longer than a quarter of max_staleness is a gap
            past(world, 0.6)
            a.beat_of(0)
        must(get(a, K0) is MISSING, "G1: what was deleted is proven by the numbers of the other bucket")


@schedule(without.ONE_PROOF)
def one_of_two_servers_is_away(rules: Rules) -> None:
    """(X2) The server of one bucket is away: its values serve no longer than max_staleness, the others' do."""
    with rules.world() as world:
        a, b = two(world)
        put(b, K0, 1)
        put(b, K1, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        a.lose_bucket(0)
        world.run(b.delete(K0))
        for _ in range(8):
            a.beat_of(1)
        must(a.look(K1) == 1, "G7: the other server's values serve on")
        must(a.look(K0) is MISSING, "G1: a value whose bucket nobody has proven serves for longer than max_staleness")


@schedule(without.PARTIAL_IS_DONE, without.PARTIAL_IS_FORGOTTEN)
def a_clear_that_one_bucket_did_not_take(rules: Rules) -> None:
    """(X6) One server clears its bucket, the other does not answer: told so, and the cleared value is read no more."""
    with rules.world() as world:
        a, b = two(world)
        put(b, K0, 1)
        put(b, K1, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        clearing = a.clear()
        clearing.request.execute()
        clearing.request.reply()
        fail_next = clearing.request
        fail_next.lose()
        fail_next.fail()
        must(clearing.value() is False, "G5: a clear that one bucket did not take is told as done")
        world.deliver_all()
        must(get(a, K0) is MISSING, "G5: a bucket that has acknowledged the clear is cleared at once")
        must(get(a, K1) is MISSING, "G5: a value of a bucket whose clear is journalled is read")
        world.finish()
        a.beat()
        world.finish()
        must(get(b, K1) is MISSING, "G6: the clear of the bucket is not replayed")


@schedule(without.ONE_FLOOR, without.OWN_CLEAR_OF_ONE_BUCKET)
def a_clear_of_two_buckets_with_counters_of_their_own(rules: Rules) -> None:
    """(X7) Each bucket has a floor of its own: the floor of one is below the other's numbers, or above them."""
    with rules.world() as world:
        a, b = two(world)
        behind, ahead = a.shards
        ahead.server.number = (behind.server.number or 0) + 1000
        for instance in (a, b):
            instance.beat()
            past(world, 0.6)
            instance.beat()
        put(b, K1, 1)
        put(b, K0, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        assert world.run(a.clear())
        must(get(a, K0) is MISSING, "G5: the own clear is not applied to one bucket")
        must(get(a, K1) is MISSING, "G5: the own clear is not applied to one bucket")
        world.deliver_all()
        put(b, K0, 2)
        put(b, K1, 2)
        must(get(a, K0) == 2, "a value that was written after the clear is read")
        must(get(a, K1) == 2, "a value that was written after the clear is read")
