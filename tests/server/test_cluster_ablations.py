"""The rules of several buckets on a real cluster, each with its guard and without: without, what is promised is broken.

The schedules of ``tests/schedules/buckets.py`` do the same on a model. For a new owner that lags (X4) a slot is given
to a node with copies of its names from before the last write: what a replica has that takes over, at a moment that can
be chosen. There three guards stand one behind the other on a real server, and all are taken away: ``greet`` passes over
the numbers of another server, the client tells it the highest number that it has seen, and compares its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from nearcache import NearCache
from nearcache.engine import buckets as engine_buckets
from nearcache.engine.ports import RemoteFailed
from nearcache.local.snapshot import bucket_of
from nearcache.protocol import scripts
from nearcache.protocol.scripts import Script
from tests.support import servers
from tests.support.ablations import rules
from tests.support.ablations.bus import AnyServerIsTheSame
from tests.support.ablations.rules import Rules
from tests.support.clusters import LocalCluster, Node
from tests.support.report import SUMMARY

STALENESS = 1.0
OPTIONS: dict[str, Any] = {
    "max_staleness": STALENESS,
    "redis_timeout": 0.3,
    "reconnect_max": 0.1,
    "breaker_reset": 0.1,
}
KEYS = [f"key:{number}" for number in range(64)]
OLD = dict.fromkeys(KEYS, 1)
Broken = str | None
"""What was broken, or nothing."""


@pytest.fixture(scope="module", params=servers.KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A cluster of each kind of server, without replicas."""
    with LocalCluster(request.param) as made:
        yield made


def place_of(cache: NearCache, key: str) -> object:
    """The address of a key's primary."""
    return cache._core.of(key).place


def node_of(cluster: LocalCluster, cache: NearCache, key: str) -> Node:
    """The primary of a key."""
    place: Any = place_of(cache, key)
    return next(node for node in cluster.nodes if node.server.port == place[1])


def heard(reader: NearCache, writer: NearCache) -> bool:
    """Whether the reader has heard what the writer has written."""
    pairs = zip(reader._core.parts, writer._core.parts, strict=True)
    return all(one.invalidation.last >= other.invalidation.seen for one, other in pairs)


def not_kept(reader: NearCache) -> Broken:
    """What is read stays in L1 while nobody writes."""
    try:
        LocalCluster.wait(lambda: reader.get_many(KEYS) == OLD and None not in map(reader.peek, KEYS), within=3.0)
    except AssertionError:
        return f"of {len(KEYS)} values that were read again and again L1 had {sum(map(bool, map(reader.peek, KEYS)))}"
    return None


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """A primary that stands still, for less time than the others wait for it."""
    node.server.pause()
    try:
        yield
    finally:
        node.server.resume()


def one_message_leaves_the_others(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """A message of one bucket says nothing about another one."""
    del cluster
    here = KEYS[0]
    there = next(key for key in KEYS if bucket_of(key, 16) != bucket_of(here, 16))
    assert writer.set(here, 2)
    LocalCluster.wait(lambda: reader.peek(here) is None)
    return None if reader.peek(there) == 1 else f"a set of {here} took {there} of another bucket out of L1"


def a_primary_is_away(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """Its keys end with their proof; those of the others go on."""
    del writer
    node = node_of(cluster, reader, KEYS[0])
    other = next(key for key in KEYS if place_of(reader, key) != place_of(reader, KEYS[0]))
    proof = reader._core.of(KEYS[0]).tier.proof
    with stopped(node):
        ends = proof.until
        LocalCluster.wait(lambda: reader._core.runtime.monotonic() > ends + 0.1)
        served, others = reader.peek(KEYS[0]), reader.peek(other)
    assert others == 1
    return None if served is None else f"{KEYS[0]} was served, though its primary has proven nothing for {STALENESS} s"


def a_clear_is_told_as_done(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """One primary of three has not acknowledged it."""
    with stopped(node_of(cluster, reader, KEYS[0])):
        done = writer.clear()
    return "clear() told True, and one primary had not executed it" if done else None


def a_clear_is_forgotten(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """What was not acknowledged is a miss for its writer."""
    with stopped(node_of(cluster, reader, KEYS[0])):
        assert writer._core.of(KEYS[0]).breaker.sends
        for node in writer._backend.buckets.places.owner:  # type: ignore[union-attr]  # there are buckets
            node.transport.discard_idle()
        writer._core.of(KEYS[0]).breaker.failed(timeout=True, now=writer._core.runtime.monotonic())
        assert writer.clear() is False  # not sent at all: the breaker is open
    LocalCluster.wait(lambda: writer.health().journal == 0 and writer.healthy)
    found = writer.get(KEYS[0])
    return None if found is None else f"clear() told False, and {KEYS[0]} is {found} for ever"


def an_own_clear(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """It is applied before it returns, whenever its messages come."""
    del cluster, reader
    assert writer.get_many(KEYS) == OLD
    for part in writer._core.parts:  # none comes
        part.invalidation.messages = lambda _, apply=part.invalidation.messages: apply([])  # type: ignore[method-assign, misc]
    assert writer.clear()
    left = [key for key in KEYS if writer.peek(key) is not None]
    return f"behind clear() L1 still served {left[0]}" if left else None


def a_clear_from_elsewhere(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """Each bucket has numbers of its own."""
    del cluster
    assert writer.clear()
    LocalCluster.wait(lambda: heard(reader, writer))
    left = [key for key in KEYS if reader.peek(key) is not None]
    return f"behind the message of a clear L1 still served {left[0]}" if left else None


@contextmanager
def nobody_knows(cache: NearCache) -> Iterator[None]:
    """The cache does not find out where its buckets are."""
    places: Any = cache._backend.buckets.places  # type: ignore[union-attr]  # there are buckets
    owners = places.owners

    async def away() -> Any:
        raise RemoteFailed("away")

    places.owners = away
    try:
        yield
    finally:
        places.owners = owners
        places.trouble()


def another(cluster: LocalCluster, node: Node) -> Node:
    """Another primary."""
    return next(one for one in cluster.primaries if one is not node)


def a_bucket_has_moved(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """What proves the other buckets of the old server says nothing about one that has gone."""
    node, part = node_of(cluster, reader, KEYS[0]), reader._core.of(KEYS[0])
    same = [key for key in KEYS if place_of(reader, key) == part.place]
    other = next(key for key in same if bucket_of(key, 16) != bucket_of(KEYS[0], 16))
    with nobody_knows(reader):
        cluster.migrate(key_slot(part.remote.names.counters), another(cluster, node))  # type: ignore[attr-defined]  # of a client
        LocalCluster.wait(lambda: not part.tier.synced)
        proof = part.tier.proof.until
        LocalCluster.wait(lambda: writer.set(KEYS[0], 2))
        LocalCluster.wait(lambda: reader._core.runtime.monotonic() > proof + 0.1)
        served, others = reader.peek(KEYS[0]), reader.peek(other)
    assert others == 1
    return None if served is None else f"{KEYS[0]} was served {STALENESS} s after its bucket had left its primary"


def the_new_owner_lags(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """It has not the last write, and gives its number to another."""
    node, part, key = node_of(cluster, reader, KEYS[0]), reader._core.of(KEYS[0]), KEYS[0]
    names: Any = part.remote.names  # type: ignore[attr-defined]  # of a client
    slot, target = key_slot(names.counters), another(cluster, node)
    with redis.Redis(port=node.server.port) as source, redis.Redis(port=target.server.port, protocol=2) as lagging:
        copies = {name: source.dump(name) for name in (names.counters, names.value(key))}
        assert writer.set(key, 2)
        LocalCluster.wait(lambda: reader.get(key) == 2 and reader.peek(key) == 2)
        with nobody_knows(reader):
            target("CLUSTER", "SETSLOT", slot, "IMPORTING", node.name)
            with lagging.client() as one:
                for name, copy in copies.items():
                    one.execute_command("ASKING")
                    one.restore(name, 0, copy)
            source.delete(*source.keys(names.counters[:-1] + b"*"))
            for each in (target, *cluster.primaries):
                each("CLUSTER", "SETSLOT", slot, "NODE", target.name)
            LocalCluster.wait(lambda: not part.tier.synced)
            LocalCluster.wait(lambda: writer.set(key, 3))
        LocalCluster.wait(lambda: part.healthy)
    LocalCluster.wait(lambda: heard(reader, writer))
    found = reader.get(key)
    return None if found == 3 else f"{key} is {found} for ever, which the new owner has never had"


class Believes(AnyServerIsTheSame):
    """It takes any server for the same, and tells none what it has seen."""

    seen = property(lambda _: 0)


PASSES_OVER = b"    number = math.max(s + 1, time)\n"
assert PASSES_OVER in scripts.GREET.text
BELIEVES = Rules(
    patched=(
        (engine_buckets, "Invalidation", Believes),
        (scripts, "GREET", Script.of(scripts.GREET.text.replace(PASSES_OVER, b""))),
    )
)


def a_lost_bus(cluster: LocalCluster, reader: NearCache, writer: NearCache) -> Broken:
    """The bus of one primary is lost, and a message with it."""
    node, part = node_of(cluster, reader, KEYS[0]), reader._core.of(KEYS[0])
    places: Any = reader._backend.buckets.places  # type: ignore[union-attr]  # there are buckets
    new_bus = places.new_bus

    def away(_: object) -> Any:
        raise RemoteFailed("away")

    places.new_bus = away
    node("CLIENT", "KILL", "TYPE", "pubsub")
    LocalCluster.wait(lambda: not part.tier.synced)
    assert writer.set(KEYS[0], 2)
    places.new_bus = new_bus
    LocalCluster.wait(lambda: part.healthy)
    return None if reader.peek(KEYS[0]) != 1 else f"{KEYS[0]} was proven, though a write was missed"


RULES: dict[str, tuple[Callable[[LocalCluster, NearCache, NearCache], Broken], Rules]] = {
    "X1 one last": (one_message_leaves_the_others, rules.ONE_LAST),
    "X2 one proof": (a_primary_is_away, rules.ONE_PROOF),
    "X3 one proof": (a_bucket_has_moved, rules.ONE_PROOF),
    "X4 any owner is the same": (the_new_owner_lags, BELIEVES),
    "X5 no comparison at back": (a_lost_bus, rules.ANY_RETURN_PROVES),
    "X6 partial is done": (a_clear_is_told_as_done, rules.PARTIAL_IS_DONE),
    "X6 partial is forgotten": (a_clear_is_forgotten, rules.PARTIAL_IS_FORGOTTEN),
    "X7 one floor": (a_clear_from_elsewhere, rules.ONE_FLOOR),
    "X7 own clear of one bucket": (an_own_clear, rules.OWN_CLEAR_OF_ONE_BUCKET),
}


@pytest.mark.parametrize("without", [False, True], ids=["with", "without"])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_needed(
    cluster: LocalCluster,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    name: str,
    *,
    without: bool,
) -> None:
    """With the guard nothing is broken, without it something is."""
    schedule, lacking = RULES[name]
    if without:
        for target, attribute, replacement in lacking.patched:
            monkeypatch.setattr(target, attribute, replacement)
    caches = [NearCache.from_url(cluster.url, namespace=namespace, **OPTIONS) for _ in range(2)]
    with caches[0] as reader, caches[1] as writer:
        assert reader.wait_healthy(10)
        assert writer.wait_healthy(10)
        assert writer.set_many(OLD)
        LocalCluster.wait(lambda: heard(reader, writer))
        broken = not_kept(reader) or schedule(cluster, reader, writer)
    if without:
        assert broken is not None
        record_property(SUMMARY, f"without {name}: {broken}")
    else:
        assert broken is None
