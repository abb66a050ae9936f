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


def two(world: World, rules: Rules) -> tuple[Bucketed, Bucketed]:
    """Two connected processes on the same two servers."""
    shards = [Shard(world, bucket, rules.server) for bucket in range(BUCKETS)]
    a, b = Bucketed(world, shards, "a"), Bucketed(world, shards, "b")
    world.deliver_all()
    return a, b


@schedule(without.ONE_LAST)
def messages_of_two_buckets(rules: Rules) -> None:
    """(X1) A message of one bucket is lost; the next one and a heartbeat of the other do not make up for it."""
    with rules.world() as world:
        a, b = two(world, rules)
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
        a, b = two(world, rules)
        put(b, K0, 1)
        put(b, K1, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        a.lose_bucket(0)
        world.run(b.delete(K0))
        for _ in range(8):
            a.beat_of(1)
        must(a.look(K1) == 1, "G7: the other server's values serve on")
        must(a.look(K0) is MISSING, "G1: a value whose bucket nobody has proven serves for longer than max_staleness")


@schedule(without.ONE_PROOF)
def a_bucket_that_has_moved(rules: Rules) -> None:
    """(X3) A bucket moves to another server; heartbeats of the old one, which go on for its others, prove nothing."""
    with rules.world() as world:
        a, b = two(world, rules)
        put(b, K0, 1)
        put(b, K1, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        for instance in (a, b):
            instance.lose_bucket(1)
        a.shards[1].server.identity = "another server"
        b.connect_bucket(1)
        world.run(b.delete(K1))
        for _ in range(8):
            a.beat_of(0)
        must(a.look(K0) == 1, "G7: the values of the other bucket serve on")
        must(a.look(K1) is MISSING, "G1: a value is proven by a server that has its bucket no more")


@schedule(without.ANY_OWNER_IS_THE_SAME)
def a_bucket_at_a_lagging_owner(rules: Rules) -> None:
    """(X4) The new owner lacks the last write, and has given its number to another: last is equal, and says nothing."""
    with rules.world() as world:
        a, b = two(world, rules)
        server = a.shards[1].server
        put(b, K1, 1)
        number = server.number
        put(b, K1, 2)
        must(get(a, K1) == 2, "the value is there")
        for instance in (a, b):
            instance.lose_bucket(1)
        server.number, server.identity = number, "another server"
        world.run(b.set(K1, 3))
        for instance in (a, b):
            instance.connect_bucket(1)
        must(get(a, K1) == 3, "G1: a value of the lost server is stale for ever")


@schedule(without.ANY_RETURN_PROVES)
def a_write_while_a_bucket_was_lost(rules: Rules) -> None:
    """(X5) The bucket's counter has moved while nobody listened: that bucket alone is flushed."""
    with rules.world() as world:
        a, b = two(world, rules)
        put(b, K0, 1)
        put(b, K1, 1)
        must((get(a, K0), get(a, K1)) == (1, 1), "the values are there")
        a.lose_bucket(1)
        world.run(b.delete(K1))
        a.connect_bucket(1)
        must(a.look(K0) == 1, "the entries of the other bucket stay")
        must(get(a, K1) is MISSING, "G1: a delete during the loss is never seen")


@schedule(without.PARTIAL_IS_DONE, without.PARTIAL_IS_FORGOTTEN)
def a_clear_that_one_bucket_did_not_take(rules: Rules) -> None:
    """(X6) One server clears its bucket, the other does not answer: told so, and the cleared value is read no more."""
    with rules.world() as world:
        a, b = two(world, rules)
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
        a, b = two(world, rules)
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
