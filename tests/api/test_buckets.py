"""A namespace of several buckets on one server: a cache does the same, and each bucket is proven by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from nearcache import CoherenceFailed, Connected, Disconnected, Drained, Flushed, Journalled, current_load
from nearcache.engine.core import Core
from nearcache.local.deferred import STEP
from nearcache.local.effects import Cause
from nearcache.local.snapshot import bucket_of
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, until

MANY = {f"key:{number}": number for number in range(200)}
"""More than ten for each of 16 buckets."""
KEYS = list(MANY)


async def settled(*caches: Twin) -> None:
    """Wait until all have heard the last acknowledged write of each bucket."""
    for bucket in zip(*(cache._core.parts for cache in caches), strict=True):
        number = max(part.invalidation.seen for part in bucket)
        await until(partial(_heard, bucket, number))


def _heard(bucket: Sequence[Core], number: int) -> bool:
    return all(part.invalidation.last >= number for part in bucket)


async def test_every_operation_does_the_same(make_cache: MakeCache) -> None:
    """What is written by one is read by the other, and what is removed is removed there."""
    async with make_cache(buckets=16) as cache, make_cache(buckets=16) as other:
        assert await cache.set_many(MANY) is True
        assert await other.get_many([*KEYS, "absent"]) == MANY
        assert [other.peek(key) for key in KEYS] == list(MANY.values())
        assert await cache.delete(*KEYS[:100]) is True
        await settled(cache, other)
        assert [other.peek(key) for key in KEYS[:100]] == [None] * 100
        assert await other.get_many(KEYS) == dict(list(MANY.items())[100:])
        assert await cache.mark_stale(*KEYS[100:110]) is True
        await settled(cache, other)
        assert await other.get_many(KEYS[100:110]) == {}
        assert await cache.add("lock", 1) is True
        assert await other.add("lock", 2) is False
        assert await cache.touch("lock", ttl=60) is True
        assert [await each.incr("hits") for each in (cache, other, cache)] == [1, 2, 3]
        assert await cache.delete_existing("lock") is True
        assert await cache.delete_existing("lock") is False
        assert await other.get_or_set("loaded", cache.loader("value")) == "value"
        assert (await cache.explain("loaded")).tier == "l2"
        assert await cache.clear() is True
        assert await cache.get_many(KEYS) == {}
        await settled(cache, other)
        assert await other.get_many([*KEYS, "loaded"]) == {}


async def test_many_keys_are_loaded_by_one_call(make_cache: MakeCache) -> None:
    """Whatever buckets they are in; what the loader says of one, and of all, holds."""
    async with make_cache(buckets=16) as cache, make_cache(buckets=16) as other:
        asked: list[Sequence[str]] = []

        def load(keys: Sequence[str]) -> dict[str, int]:
            load = current_load()
            load.tags |= {"t"}
            load[KEYS[0]].skip()
            asked.append(load.keys)
            return {key: MANY[key] for key in keys}

        assert await cache.get_or_set_many(KEYS, cache.loader(load), tags=["t"], stale_if_error=60) == MANY
        assert [sorted(keys) for keys in asked] == [sorted(KEYS)]
        await settled(cache, other)
        assert await other.get_many(KEYS) == dict(list(MANY.items())[1:])
        assert await other.invalidate_tags("t", stale=True) is True
        await settled(cache, other)
        assert await cache.get_many(KEYS) == {}

        def fail() -> int:
            raise LookupError("no rows")

        assert await cache.get_or_set(KEYS[1], cache.loader(fail), stale_if_error=60) == MANY[KEYS[1]]


async def test_each_bucket_is_audited(make_cache: MakeCache) -> None:
    """A foreign writer is found in any of them, and health() knows the times of all."""
    async with make_cache(buckets=16, max_staleness=0.4, audit_fraction=1) as cache:
        assert await cache.set_many(MANY) is True
        await until(lambda: cache.health().propagation)
        assert cache.health().clock_offset is not None
        with redis_of(cache.url) as client:
            names = [f"{{{cache.settings.namespace}:{bucket_of(key, 16)}}}:v:{key}" for key in KEYS[:2]]
            assert bucket_of(KEYS[0], 16) != bucket_of(KEYS[1], 16)
            foreign = client.get(names[0])
            client.set(names[0], client.get(names[1]), px=60_000)
            client.set(names[1], foreign, px=60_000)

        async def found() -> bool:
            await cache.get_many(KEYS[:2])
            return bool(cache.stats().audit_stale >= 2)

        await until(found)


async def test_each_bucket_has_names_of_its_own(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """The names of one bucket have one hash tag, with the bucket's number."""
    async with make_cache(buckets=16) as cache:
        namespace = cache.settings.namespace
        assert await cache.set_many(MANY, tags=["t"]) is True
        with redis_of(server.url) as client:
            names = {name.decode() for name in client.keys(f"{{{namespace}:*")}
    tags = {f"{{{namespace}:{bucket}}}:" for bucket in range(16)}
    assert {name.split("}:")[0] + "}:" for name in names} == tags
    assert {tag + "m" for tag in tags} <= names
    assert {f"{{{namespace}:{bucket_of(key, 16)}}}:v:{key}" for key in KEYS} <= names
    assert {tag + "t:t" for tag in tags} <= names


async def test_a_tag_is_invalidated_in_every_bucket(make_cache: MakeCache) -> None:
    """Few entries of it are dropped one by one, many lose their proof; what does not carry it stays."""
    for count in (20, 16 * STEP * 2):
        values = {f"tagged:{count}:{number}": number for number in range(count)}
        async with make_cache(buckets=16) as cache, make_cache(buckets=16) as other:
            assert await cache.set_many(values, tags=["t"]) is True
            assert await cache.set_many(MANY, tags=["u"]) is True
            assert len(await other.get_many(list(values))) == count
            assert await other.get_many(KEYS) == MANY
            assert await cache.invalidate_tags("t") is True
            await settled(cache, other)
            for each in (cache, other):
                assert [key for key in values if each.peek(key) is not None] == []
                assert await each.get_many(list(values)) == {}
                assert [each.peek(key) for key in KEYS] == list(MANY.values())
                assert await each.get_many(KEYS) == MANY


async def test_a_flush_of_one_bucket_leaves_the_others(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """A gap in the numbers of a bucket drops its entries, in L1 of this process and in no other bucket."""
    async with make_cache(buckets=16) as cache:
        events = Heard(cache)
        assert await cache.set_many(MANY) is True
        assert await cache.get_many(KEYS) == MANY
        bucket = bucket_of(KEYS[0], 16)
        with redis_of(server.url) as client:
            client.hincrby(f"{{{cache.settings.namespace}:{bucket}}}:m", "s", 3)
        await until(lambda: events.of(Flushed))
        gone = [key for key in KEYS if bucket_of(key, 16) == bucket]
        assert events.of(Flushed)[0].entries == len(gone)
        assert {key for key in KEYS if cache.peek(key) is None} == set(gone)
        assert await cache.get_many(KEYS) == MANY


async def test_a_data_set_that_is_lost_is_told_once(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """FLUSHALL takes the counters of all buckets: one event, and one flush in the statistics."""
    async with make_cache(buckets=16) as cache:
        events = Heard(cache)
        assert await cache.set_many(MANY) is True
        assert await cache.get_many(KEYS) == MANY
        with redis_of(server.url) as client:
            client.flushall()
        await until(lambda: not any(cache.peek(key) for key in KEYS))
        await until(lambda: events.of(Flushed))
        # Greetings make counters anew, above those that were: then every bucket is proven again.
        await until(lambda: all(part.floors_proven and part.invalidation.last for part in cache._core.parts))
        assert [event.entries for event in events.of(Flushed)] == [len(KEYS)]
        assert events.of(Flushed)[0].reason.startswith("buckets 0 1 2 3 4")
        assert cache.stats().flushes_by_reason == {Cause.COUNTER.value: 1}


async def test_an_outage_is_told_once(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Not by each bucket; what was not acknowledged is journalled by its bucket, and replayed."""
    async with make_cache(proxy.url, buckets=16, reconnect_max=0.05, breaker_reset=0.1) as cache:
        events = Heard(cache)
        assert await cache.set_many(MANY) is True
        proxy.cut()
        assert await cache.set_many(dict.fromkeys(KEYS, "new")) is False
        assert cache.health().journal == len(KEYS)
        assert await cache.get_many(KEYS) == {}
        told = events.of(Journalled)
        assert [one.keys for one in told] == [len(KEYS)]
        assert told[0].reason.startswith("buckets 0 1 2 3 4")
        assert await cache.clear() is False
        assert [one.keys for one in events.of(Journalled)[1:]] == [0]
        await until(lambda: events.of(Disconnected))
        assert cache.health().status in {"degraded", "down"}
        proxy.heal()
        await until(lambda: cache.health().journal == 0)
        await until(lambda: cache.healthy and events.of(Connected))
        assert events.of(Drained)[-1].left == 0
        assert len(events.of(Disconnected)) == len(events.of(Connected)) == 1
        assert cache.health().status == "ok"
        assert await cache.get_many(KEYS) == {}
        assert await cache.set_many(MANY) is True
        assert await cache.get_many(KEYS) == MANY


@pytest.mark.parametrize(("first", "second"), [(1, 16), (16, 1), (16, 4)])
async def test_another_number_of_buckets(make_cache: MakeCache, first: int, second: int) -> None:
    """Two numbers in one namespace would be two caches that do not hear each other: the second one goes without."""
    async with make_cache(buckets=first) as cache:
        assert await cache.set("a", 1) is True
        newcomer = make_cache(namespace=cache.settings.namespace, buckets=second)
        events = Heard(newcomer)
        assert await newcomer.wait_healthy(0.5) is False
        await until(lambda: events.of(CoherenceFailed))
        assert "the same number of buckets" in events.of(CoherenceFailed)[0].reason
        assert [await newcomer.get(key) for key in ("a", *KEYS)] == [None] * (len(KEYS) + 1)
        assert await newcomer.get_or_set("a", newcomer.loader("loaded")) == "loaded"
        assert await newcomer.set_many(MANY) is False
        assert newcomer.health().status == "down"
        assert await cache.get("a") == 1


async def test_many_writers_and_readers(make_cache: MakeCache) -> None:
    """A read after an acknowledged write of the same process never gives an older value."""
    async with make_cache(buckets=16) as cache, make_cache(buckets=16) as other:

        async def work(each: Any, prefix: str) -> None:
            for turn in range(30):
                values = {f"{prefix}:{number}": turn for number in range(20)}
                assert await each.set_many(values) is True
                assert await each.get_many(list(values)) == values

        await asyncio.gather(work(cache, "a"), work(other, "b"), work(cache, "c"), work(other, "d"))


async def test_it_opens_again(make_cache: MakeCache) -> None:
    """A closed cache serves nothing, and begins anew with its buckets."""
    cache = make_cache(buckets=16)
    async with cache:
        assert await cache.set_many(MANY) is True
    async with cache:
        assert cache.peek(KEYS[0]) is None
        assert await cache.get_many(KEYS) == MANY
        assert await cache.wait_healthy(5)
