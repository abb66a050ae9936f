"""A fake cluster: buckets on several primaries, and the faults of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from nearcache import ConfigError, Disconnected, NearCache
from nearcache.engine.ports import RemoteFailed
from nearcache.testing import FakeServer, ManualClock
from tests.support.cases import each
from tests.support.twins import MODES, Twin, twin_on
from tests.support.waiting import Heard, shut, until

MANY = {f"key:{number}": number for number in range(60)}
FAST: dict[str, Any] = {"max_staleness": 0.4, "redis_timeout": 0.1, "reconnect_max": 0.05, "breaker_reset": 0.05}
PRIMARIES = 3


@pytest.fixture
def cluster() -> FakeServer:
    """Three primaries."""
    return FakeServer(primaries=PRIMARIES)


@pytest.fixture(params=MODES)
def caches(request: pytest.FixtureRequest, cluster: FakeServer, runner: asyncio.Runner) -> Iterator[tuple[Twin, Twin]]:
    """Two caches, proven."""
    made = [twin_on(cluster, request.param, runner, **FAST) for _ in range(2)]
    for cache in made:
        assert runner.run(cache.wait_healthy(5))
    yield made[0], made[1]
    for cache in made:
        runner.run(cache.close())


def keys_of(cluster: FakeServer, cache: Twin) -> list[list[str]]:
    """Some keys by the number of their primary."""
    found: list[list[str]] = [[] for _ in range(PRIMARIES)]
    for key in MANY:
        found[cluster.primary_of(cache.cache, key)].append(key)
    return found


async def test_it_does_what_one_server_does(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """Every operation, also on many keys, and the messages of each bucket; 16 buckets are told by health()."""
    cache, other = caches
    assert await cache.set_many(MANY, tags=["t"]) is True
    assert await other.get_many(MANY) == MANY
    assert all(keys_of(cluster, cache))
    assert await cache.delete("key:0", "key:1") is True
    await cluster.async_settle()
    assert (other.peek("key:0"), other.peek("key:2")) == (None, 2)
    assert await cache.invalidate_tags("t") is True
    await cluster.async_settle()
    assert await other.get_many(MANY) == {}
    assert await cache.add("lock", 1) is True
    assert [await each_of.incr("hits") for each_of in (cache, other)] == [1, 2]
    assert await other.get_or_set("loaded", other.loader("value")) == "value"
    assert await cache.clear() is True
    await cluster.async_settle()
    assert await other.get("loaded") is None
    told = cache.health().primaries
    assert [one.address for one in told] == ["fake:0", "fake:1", "fake:2"]
    assert sorted(bucket for one in told for bucket in one.buckets) == list(range(16))
    assert cache.health().status == "ok"


async def test_one_primary_is_away(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """The others' keys are written and heard of; its own are misses, journalled, and right again afterwards."""
    cache, other = caches
    heard = Heard(cache)
    assert await cache.set_many(MANY) is True
    assert await other.get_many(MANY) == MANY
    (own, *others) = keys_of(cluster, cache)
    theirs = [key for keys in others for key in keys]
    with cluster.away(primary=0):
        await until(lambda: all(one.bus == "lost" for one in cache.health().primaries if one.address == "fake:0"))
        assert await cache.set_many(dict.fromkeys(theirs, "new")) is True
        assert await cache.set(own[0], "new") is False
        await until(lambda: all(other.peek(key) is None for key in own))
        assert await other.get_many(MANY) == dict.fromkeys(theirs, "new")
        health = cache.health()
        assert (health.status, health.journal) == ("degraded", 1)
        assert {one.address: bool(one.unproven) for one in health.primaries} == {
            "fake:0": True,
            "fake:1": False,
            "fake:2": False,
        }
    await until(lambda: cache.health().status == other.health().status == "ok")
    await cluster.async_settle()
    assert await other.get(own[0]) is None
    assert await other.get_many(own[1:]) == {key: MANY[key] for key in own[1:]}
    assert [event.reason.partition(": ")[0] for event in heard.of(Disconnected)] == ["primary fake:0"]


@each("fault", ["hung", "lost_replies", "bus_cut", "bus_held"])
@each("mode", MODES)
def test_each_fault_may_be_of_one_primary(runner: asyncio.Runner, fault: str, mode: str) -> None:
    """Keys of the others are served from both tiers all the while."""
    runner.run(_others_are_served(FakeServer(primaries=PRIMARIES), runner, fault, mode))


async def _others_are_served(cluster: FakeServer, runner: asyncio.Runner, fault: str, mode: str) -> None:
    cache = twin_on(cluster, mode, runner, **FAST)
    assert await cache.wait_healthy(5)
    own, theirs, more = keys_of(cluster, cache)
    with getattr(cluster, fault)(primary=0):
        assert await cache.set_many(dict.fromkeys([*theirs, *more], 1)) is True
        cache.clear_local()
        assert await cache.get(theirs[0]) == 1
        assert cache.peek(theirs[0]) == 1
        if fault in ("hung", "lost_replies"):
            assert await cache.set(own[0], 1) is False
    await until(lambda: cache.health().status == "ok")
    await cache.close()


async def test_operations_of_one_primary_are_slow(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """``only`` and ``of`` go with it."""
    cache, other = caches
    own, theirs, _ = keys_of(cluster, cache)
    with cluster.slow(1.0, only={"set"}, of=cache.cache, primary=0):
        assert await cache.set(own[0], 1) is False
        assert await other.set(own[1], 1) is True
        assert await cache.set(theirs[0], 1) is True


async def test_a_restart_and_a_second_opening(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """All buckets come back empty; a cache that is closed and used again has connections of its own."""
    cache, other = caches
    assert await cache.set_many(MANY) is True
    cluster.restart_empty()
    await cluster.async_settle()
    assert await other.get_many(MANY) == {}
    await shut(cache)
    async with cache:
        assert await cache.wait_healthy(5)
        assert await cache.set_many(MANY) is True
    assert await other.get_many(MANY) == MANY


async def test_the_time_of_a_manual_clock(runner: asyncio.Runner) -> None:
    """It moves all buckets."""
    with ManualClock() as clock:
        cluster = FakeServer(primaries=2)
        cache = twin_on(cluster, "sync", runner, ttl=60, jitter=0)
        assert await cache.wait_healthy(5)
        assert await cache.set_many(MANY) is True
        clock.advance(59)
        await cluster.async_settle()
        assert await cache.get_many(MANY) == MANY
        clock.advance(2)
        await cluster.async_settle()
        assert await cache.get_many(MANY) == {}
        await cache.close()


def test_a_cache_of_the_application_behind_a_fake_cluster() -> None:
    """Whatever its URL is; afterwards it is as it was made."""
    cache = NearCache.from_url("redis+cluster://cache.example:7000")
    with FakeServer(primaries=2).behind(cache):
        assert cache.set_many(MANY) is True
        assert [one.address for one in cache.health().primaries] == ["fake:0", "fake:1"]
    assert cache.url == "redis+cluster://cache.example:7000"


def test_buckets_on_one_fake_server() -> None:
    """The setting alone is enough."""
    with FakeServer().cache(buckets=4) as cache:
        assert cache.set_many(MANY) is True
        assert cache.get_many(MANY) == MANY
        assert [len(one.buckets) for one in cache.health().primaries] == [4]


@each("wrong", [0, -1, 1025, 2.0, "3", None, True])
def test_a_wrong_number_of_primaries(wrong: Any) -> None:
    """It is a whole number, of which a bucket at least is for each."""
    with pytest.raises(ConfigError, match="primaries="):
        FakeServer(primaries=wrong)
    with pytest.raises(ValueError, match="primary=3: must be a number from 0 to 2"):
        FakeServer(primaries=3).away(primary=3)


async def test_a_key_whose_write_is_not_proven_is_not_asked_for(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """Its bucket is read by itself, without it; all others are read by one request for each primary."""
    cache, _ = caches
    assert await cache.set_many(MANY) is True
    await cluster.async_settle()
    cache._core.of("key:3").tier.journal_keys(["key:3"], not_before=1 << 60)
    cache.clear_local()
    assert await cache.get_many(MANY) == {key: value for key, value in MANY.items() if key != "key:3"}


async def test_buckets_that_may_not_be_asked_are_left_out(cluster: FakeServer, caches: tuple[Twin, Twin]) -> None:
    """As where another protocol keeps the namespace."""
    cache, _ = caches
    assert await cache.set_many(MANY) is True
    await cluster.async_settle()
    cache.clear_local()
    left = {key: cache._core.of(key) for key in list(MANY)[:3]}
    for part in left.values():
        part.requests.bypassed = True
    rest = {key: value for key, value in MANY.items() if cache._core.of(key) not in left.values()}
    assert len(rest) < len(MANY) - len(left)
    assert await cache.get_many(MANY) == rest


async def test_a_request_for_many_buckets_counts_for_the_breaker_of_their_primary(
    cluster: FakeServer, caches: tuple[Twin, Twin]
) -> None:
    """Its failure is one, and its answer ends the count."""
    cache, _ = caches
    assert await cache.set_many(MANY) is True
    await cluster.async_settle()
    cache.clear_local()
    away = keys_of(cluster, cache)[0]
    breaker = cache._core.of(away[0]).breaker
    with cluster.away(only=["read"], primary=0):
        assert await cache.get_many(MANY) == {key: value for key, value in MANY.items() if key not in away}
    assert (breaker.failures, cache.stats().l2_errors) == (1, 1)
    cache.clear_local()
    assert await cache.get_many(MANY) == MANY
    assert breaker.failures == 0


async def test_a_bucket_that_its_server_refuses_is_read_by_itself(
    cluster: FakeServer, caches: tuple[Twin, Twin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that has moved: its keys are no misses, and the others' values are those of the one request."""
    cache, _ = caches
    assert await cache.set_many(MANY) is True
    await cluster.async_settle()
    cache.clear_local()
    refused: list[int] = []
    for part in cache._core.parts:
        monkeypatch.setattr(part.remote, "read_each", refusing(part.remote.read_each, refused))
    assert await cache.get_many(MANY) == MANY
    assert len(refused) == PRIMARIES


def refusing(read_each: Callable[..., Any], refused: list[int]) -> Callable[..., Any]:
    """As it is, but for the first bucket."""

    async def read(asks: Sequence[Any]) -> list[Any]:
        refused.append(len(asks))
        return [RemoteFailed("moved"), *(await read_each(asks))[1:]]

    return read
