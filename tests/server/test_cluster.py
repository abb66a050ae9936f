"""A cluster of three primaries: the same operations, and each bucket on the server that has its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot
from typer.testing import CliRunner

from nearcache import AsyncNearCache, ConfigError, NearCache, Settings, cli
from nearcache.engine.core import Core
from nearcache.local.snapshot import bucket_of
from nearcache.transport.cluster import Cluster
from tests.support import servers
from tests.support.clusters import LocalCluster, Node
from tests.support.twins import MODES, Twin, twin_of
from tests.support.waiting import until

MANY = {f"key:{number}": number for number in range(200)}
KEYS = list(MANY)


@pytest.fixture(scope="module", params=servers.KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A cluster of each kind of server, without replicas."""
    with LocalCluster(request.param) as made:
        yield made


@pytest.fixture(params=MODES)
def caches(
    request: pytest.FixtureRequest, cluster: LocalCluster, namespace: str, runner: asyncio.Runner
) -> Iterator[tuple[Twin, Twin]]:
    """Two caches of the class under test in one namespace, proven."""
    made = [twin_of(request.param, cluster.url, runner, namespace=namespace) for _ in range(2)]
    for cache in made:
        assert runner.run(cache.wait_healthy(10))
    yield made[0], made[1]
    for cache in made:
        runner.run(cache.close())


def slot_of(namespace: str, key: str) -> int:
    """The slot of a key's bucket."""
    return int(key_slot(f"{{{namespace}:{bucket_of(key, 16)}}}:m".encode()))


async def heard(caches: tuple[Twin, Twin]) -> None:
    """Wait until both have heard the last acknowledged write of each bucket."""
    for parts in zip(*(cache._core.parts for cache in caches), strict=True):
        number = max(part.invalidation.seen for part in parts)
        await until(partial(has_heard, parts, number))


def has_heard(parts: Sequence[Core], number: int) -> bool:
    """Whether a bucket has heard this number in each cache."""
    return all(part.invalidation.last >= number for part in parts)


async def test_every_operation(cluster: LocalCluster, caches: tuple[Twin, Twin]) -> None:
    """Several primaries have the values; what one cache writes or removes, the other reads, or has no more."""
    cache, other = caches
    assert await cache.set_many(MANY, tags=["t"]) is True
    owners = {cluster.owner(slot_of(cache.settings.namespace, key)) for key in KEYS}
    assert len(owners) == 3
    assert await other.get_many([*KEYS, "absent"]) == MANY
    assert [other.peek(key) for key in KEYS] == list(MANY.values())
    assert await cache.delete(*KEYS[:50]) is True
    assert await cache.mark_stale(*KEYS[50:60]) is True
    await heard(caches)
    assert [other.peek(key) for key in KEYS[:60]] == [None] * 60
    assert await other.get_many(KEYS) == dict(list(MANY.items())[60:])
    assert await cache.invalidate_tags("t") is True
    assert await cache.get_many(KEYS) == {}
    await heard(caches)
    assert await other.get_many(KEYS) == {}
    assert await cache.add("lock", 1) is True
    assert await other.add("lock", 2) is False
    assert await cache.touch("lock", ttl=60) is True
    assert [await each.incr("hits") for each in (cache, other, cache)] == [1, 2, 3]
    assert await cache.delete_existing("lock") is True
    assert await other.get_or_set("loaded", other.loader("value")) == "value"
    assert await cache.get_or_set("loaded", cache.loader("another")) == "value"
    assert await cache.clear() is True
    await heard(caches)
    assert await other.get("loaded") is None
    assert cache.health().status == "ok"


@pytest.mark.parametrize("mode", MODES)
async def test_many_keys_are_one_request_for_each_primary(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """Not one for each bucket; on asyncio they are under way at once."""
    cache = twin_of(mode, cluster.url, runner, namespace=namespace)
    assert await cache.wait_healthy(10)
    asked: list[object] = []
    nodes = set(cache._backend.buckets.places.owner)
    for node in nodes:
        node.transport.execute = partial(counted, node.transport.execute, asked, node)
    for ask in (
        lambda: cache.set_many(MANY, tags=["t"]),
        lambda: cache.get_many([*KEYS, "absent"]),
        lambda: cache.delete(*KEYS),
        lambda: cache.invalidate_tags("t"),
        cache.clear,
    ):
        # Else a value may be above every number that was heard of, and is read again with its bounds.
        await until(lambda: all(part.invalidation.last >= part.invalidation.seen for part in cache._core.parts))
        cache.clear_local()
        asked.clear()
        assert await ask()
        assert set(asked) == nodes
        assert len(asked) in ({len(nodes), 2 * len(nodes)} if mode == "sync" else range(16, 33))  # EVAL, at first
    await cache.close()


async def counted(execute: Any, asked: list[object], node: object, *args: Any, **options: Any) -> Any:
    """Execute, and note the node."""
    asked.append(node)
    return await execute(*args, **options)


async def test_one_load_in_the_fleet(caches: tuple[Twin, Twin]) -> None:
    """A lease is in the slot of its key, and its end wakes those that wait for it."""
    loads = []

    async def load() -> str:
        loads.append(1)
        await asyncio.sleep(0.1)
        return "value"

    for key in KEYS[:10]:
        loads.clear()
        got = await asyncio.gather(*(each.get_or_set(key, each.loader(load)) for each in caches * 4))
        assert got == ["value"] * 8
        assert len(loads) == 1


def move(cluster: LocalCluster, slot: int) -> tuple[Node, Node]:
    """Move a slot to another primary; from where, and to where."""
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not source)
    cluster.migrate(slot, target)
    return source, target


async def test_a_bucket_that_moves(cluster: LocalCluster, caches: tuple[Twin, Twin]) -> None:
    """It is flushed, and proven at its new owner; the others serve on, and no write is refused afterwards."""
    cache, other = caches
    key = KEYS[0]
    assert await cache.set_many(MANY) is True
    assert await other.get_many(KEYS) == MANY
    bucket = bucket_of(key, 16)
    slot = slot_of(cache.settings.namespace, key)
    await asyncio.to_thread(move, cluster, slot)
    assert await cache.get(key) == 0
    assert await cache.set(key, "moved") is True
    assert await other.get(key) in {0, "moved"}
    await until(lambda: all(each._core.parts[bucket].healthy and each.healthy for each in caches))
    assert await other.get(key) == "moved"
    assert {bucket_of(name, 16) for name in KEYS if other.peek(name) is None} <= {bucket}
    assert await cache.delete(key) is True
    await heard(caches)
    assert await other.get(key) is None


async def test_a_slot_on_its_way(cluster: LocalCluster, caches: tuple[Twin, Twin]) -> None:
    """Its writes are told as unacknowledged, journalled and replayed; reads miss or are right; others do not notice."""
    cache, other = caches
    key = KEYS[1]
    bucket, slot = bucket_of(key, 16), slot_of(cache.settings.namespace, key)
    assert await cache.set_many(MANY) is True
    assert await other.get_many(KEYS) == MANY
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not source)
    target("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
    source("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
    name = f"{{{cache.settings.namespace}:{bucket}}}:v:{key}"
    source("MIGRATE", "127.0.0.1", target.server.port, "", 0, 5000, "KEYS", name)
    assert await cache.set(key, "new") is False
    assert await cache.get(key) is None
    assert cache.health().journal == 1
    there = next(one for one in KEYS if bucket_of(one, 16) != bucket)
    assert await cache.set(there, "there") is True
    await asyncio.to_thread(cluster.migrate_rest, slot, source, target)
    await until(lambda: cache.health().journal == 0 and cache.healthy and other.healthy)
    assert await other.get(key) is None
    assert await cache.set(key, "newer") is True
    await heard(caches)
    assert await other.get(key) == "newer"


async def test_values_of_a_slot_on_its_way_are_read_from_either_node(
    cluster: LocalCluster, caches: tuple[Twin, Twin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the values have gone, then the counters: ASK and TRYAGAIN are followed, and no value is missed."""
    cache, other = caches
    bucket, slot = bucket_of(KEYS[2], 16), slot_of(cache.settings.namespace, KEYS[2])
    keys = [key for key in KEYS if bucket_of(key, 16) == bucket]
    assert await cache.set_many(MANY) is True
    told: list[str] = []
    follow = Cluster.follow

    def noted(self: Cluster, bucket: int, asked: Any, refusal: Any) -> Any:
        told.append(refusal.code)
        return follow(self, bucket, asked, refusal)

    monkeypatch.setattr(Cluster, "follow", noted)
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not source)
    target("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
    source("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
    prefix = f"{{{cache.settings.namespace}:{bucket}}}:"
    gone = [key for number, key in enumerate(keys) if number % 2]
    for names in ([f"{prefix}v:{key}" for key in gone], [f"{prefix}m"], [f"{prefix}v:{keys[0]}"]):
        await asyncio.to_thread(source, "MIGRATE", "127.0.0.1", target.server.port, "", 0, 5000, "KEYS", *names)
        for each in caches:
            each.clear_local()
            assert [await each.get(key) for key in keys] == [MANY[key] for key in keys]
            each.clear_local()
            assert await each.get_many([*KEYS, "absent"]) == MANY
        assert "ASK" in told
        told.clear()
    assert await cache.set(keys[0], "new") is False  # names of a bucket and a channel: nobody executes it
    await asyncio.to_thread(cluster.migrate_rest, slot, source, target)
    await until(lambda: cache.health().journal == 0 and cache.healthy and other.healthy)
    assert await cache.set(keys[0], "newer") is True
    await heard(caches)
    assert await other.get(keys[0]) == "newer"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_client_of_the_user(cluster: LocalCluster, namespace: str, *, asynchronous: bool) -> None:
    """Its connection settings are borrowed, and it is left alone."""
    port = cluster.nodes[0].server.port
    if asynchronous:
        client: Any = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
        async with AsyncNearCache(client, Settings(namespace=namespace)) as cache:
            assert await cache.set_many(MANY) is True
            assert await cache.get_many(KEYS) == MANY
        assert await client.ping()
        await client.aclose()
        return
    client = redis.RedisCluster(host="127.0.0.1", port=port)

    def use() -> None:
        with NearCache(client, Settings(namespace=namespace)) as cache:
            assert cache.set_many(MANY) is True
            assert cache.get_many(KEYS) == MANY
        assert client.ping()
        client.close()

    await asyncio.to_thread(use)


async def test_one_seed_is_enough(cluster: LocalCluster, namespace: str) -> None:
    """The other nodes are found; a node that is away is passed over."""
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[1].server.port}"
    async with AsyncNearCache.from_url(url, namespace=namespace) as cache:
        assert await cache.set_many(MANY) is True
        assert await cache.wait_healthy(5)
        assert cache.url == url


async def test_nobody_answers(namespace: str) -> None:
    """The cache works without, as with one server that is away."""
    url = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    async with AsyncNearCache.from_url(url, namespace=namespace) as cache:
        assert await cache.set("a", 1) is False
        assert await cache.get("a") is None

        async def load() -> str:
            return "loaded"

        assert await cache.get_or_set("a", load) == "loaded"
        assert cache.health().status in {"down", "degraded"}


@pytest.mark.parametrize("mode", MODES)
async def test_the_rights_of_a_user(cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str) -> None:
    """Those that doctor prints are enough, also for a bucket that moves."""
    told = CliRunner().invoke(cli.app(), ["doctor", "--acl", "--url", cluster.url, "--namespace", namespace]).output
    for node in cluster.nodes:
        node("ACL", "SETUSER", "app", "on", ">secret", *told.split()[5:])
    url = cluster.url.replace("://", "://app:secret@")
    cache = twin_of(mode, url, runner, namespace=namespace)
    assert await cache.wait_healthy(10)
    assert await cache.set_many(MANY, tags=["t"]) is True
    assert await cache.get_many(KEYS) == MANY
    await asyncio.to_thread(move, cluster, slot_of(namespace, KEYS[0]))
    await until(lambda: cache.healthy and not cache.health().refused)
    assert await cache.set_many(MANY, tags=["t"]) is True
    assert await cache.invalidate_tags("t") is True
    assert await cache.add(KEYS[0], 1) is True
    assert "secret" not in repr(cache.cache) + cache.url
    assert cache.stats().l2_errors == 0
    await cache.close()


def test_the_command_line(cluster: LocalCluster, namespace: str) -> None:
    """Commands find the bucket of a key; doctor tells whether every bucket is proven."""

    def run(*words: str, url: str = cluster.url) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app(), [*words, "--url", url, "--namespace", namespace])
        return done.exit_code, done.output

    assert run("set", "a", "1")[0] == 0
    assert run("get", "a") == (0, "1\n")
    assert run("delete", "a")[0] == 0
    assert run("get", "a")[0] == 1
    code, said = run("doctor")
    assert code == 0, said
    code, said = run("doctor", url="redis+cluster://127.0.0.1:1")
    assert code == 1
    assert "error unreachable" in said


def test_a_database_is_refused() -> None:
    """A cluster has database 0 alone."""
    with pytest.raises(ConfigError, match="a cluster has one database"):
        NearCache.from_url("redis+cluster://127.0.0.1:1/3", namespace="t")


async def test_the_address_of_one_node_alone(cluster: LocalCluster, namespace: str) -> None:
    """A plain URL of a node is a mistake, which is told."""
    owner = cluster.owner(int(key_slot(f"{{{namespace}:0}}:m".encode())))
    other = next(node for node in cluster.nodes if node is not owner)
    with pytest.raises(ConfigError, match="this is one node of a cluster"):
        async with AsyncNearCache.from_url(f"redis://127.0.0.1:{other.server.port}", namespace=namespace):
            pass


@pytest.mark.parametrize("mode", MODES)
async def test_the_url_of_a_cluster_at_a_server_that_is_none(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """`with` raises, and names the scheme to take; a warning says so without it. doctor finds it, too."""
    del cluster
    with servers.make("valkey", {}) as server:
        url = f"redis+cluster://127.0.0.1:{server.port}"
        cache = twin_of(mode, url, runner, namespace=namespace)
        with pytest.raises(ConfigError, match=r"this server is no cluster; a URL of one server begins with redis://"):
            async with cache:
                pass
        told = CliRunner().invoke(cli.app(), ["doctor", "--url", url, "--namespace", namespace]).output
        assert "error set-up: the server answered ERR" in told
        assert "begins with redis://" in told


def test_doctor_at_one_node(cluster: LocalCluster, namespace: str) -> None:
    """A plain URL is a note where the node has the namespace, and an error that names the scheme where it has not."""
    owner = cluster.owner(int(key_slot(f"{{{namespace}:0}}:m".encode())))
    for node in cluster.nodes:
        words = ["doctor", "--url", f"redis://127.0.0.1:{node.server.port}", "--namespace", namespace]
        told = CliRunner().invoke(cli.app(), words)
        assert "note cluster-node: the server is a node of a cluster" in told.output
        assert (told.exit_code == 0) == (node is owner), told.output
        way_out = "begin the URL with redis+cluster://, or rediss+cluster:// with TLS"
        assert (way_out in told.output) == (node is not owner)


@pytest.mark.parametrize("mode", MODES)
async def test_a_cache_on_the_one_node_that_has_its_namespace(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """It works, and health tells what it may come to; a cache on the cluster has no such note."""
    owner = cluster.owner(int(key_slot(f"{{{namespace}:0}}:m".encode())))
    async with twin_of(mode, f"redis://127.0.0.1:{owner.server.port}", runner, namespace=namespace) as cache:
        assert await cache.set("a", 1) is True
        assert [(one.kind, one.level) for one in cache.health().reasons] == [("cluster-node", "note")]
        assert cache.health().status == "ok"
    async with twin_of(mode, cluster.url, runner, namespace=f"{namespace}-of-all") as other:
        assert await other.wait_healthy(10)
        assert other.health().reasons == ()
