"""No dead options: each setting has a test that fails without it, here, or beside this among loads or the link.

Each is named test_<setting>_..., and one test sees to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pytest

from nearcache import CorruptValue, InvalidKey, RemoteUnavailable, Settings, ValueTooLarge
from nearcache.settings import SETTINGS
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import free_port
from tests.api import test_compression_and_encryption as of_filters
from tests.api import test_every_setting_of_loads as of_loads
from tests.api import test_every_setting_of_the_link as of_the_link
from tests.api import test_stale_and_early as by_the_clock
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, timed, until, value_name

pytestmark = pytest.mark.one_server
"""What a setting does is the same on each kind of server."""


def uncovered(settings: Iterable[str], tests: Iterable[str]) -> set[str]:
    """The settings that no test is named after."""
    names = tuple(tests)
    return {setting for setting in settings if not any(name.startswith(f"test_{setting}_") for name in names)}


def all_tests() -> set[str]:
    """The tests of this file and of the four that go on from it."""
    return {*globals(), *vars(of_filters), *vars(of_the_link), *vars(of_loads), *vars(by_the_clock)}


def test_each_setting_is_tested() -> None:
    """Every field of Settings has its tests."""
    assert uncovered(SETTINGS, all_tests()) == set()


def test_a_setting_without_a_test_would_be_found() -> None:
    """The check above can fail."""
    assert uncovered([*SETTINGS, "dead_option"], all_tests()) == {"dead_option"}
    assert set(SETTINGS) == {field.name for field in fields(Settings)}


async def test_buckets_divide_the_namespace(make_cache: MakeCache) -> None:
    """Each has names of its own in Redis."""
    async with make_cache(buckets=4) as cache:
        assert await cache.set_many({f"k{number}": number for number in range(64)}) is True
        with redis_of(cache.url) as client:
            for bucket in range(4):
                assert client.keys(f"{{{cache.settings.namespace}:{bucket}}}:v:*"), bucket


async def kept_ms(cache: Twin, key: str) -> float:
    """Milliseconds that Redis keeps a key."""
    with redis_of(cache.url) as client:
        return float(client.pttl(value_name(cache.settings.namespace, key)))


async def test_namespace_keeps_caches_apart(make_cache: MakeCache, namespace: str) -> None:
    """A key in one namespace is not one in another; its name begins with the namespace in braces."""
    async with make_cache(namespace=f"{namespace}.x") as one, make_cache(namespace=f"{namespace}.y") as other:
        await one.set("a", 1)
        assert await other.get("a") is None
        with redis_of(one.url) as client:
            assert client.exists(value_name(f"{namespace}.x", "a"))


async def test_ttl_is_how_long_redis_keeps_a_value(make_cache: MakeCache) -> None:
    """In seconds."""
    async with make_cache(ttl=77, jitter=0) as cache:
        await cache.set("a", 1)
        assert 70_000 < await kept_ms(cache, "a") <= 77_000


async def test_l1_ttl_is_how_long_l1_serves_a_value(make_cache: MakeCache) -> None:
    """Redis keeps it longer."""
    async with make_cache(l1_ttl=0.1) as cache:
        await cache.set("a", 1)
        await until(lambda: cache.peek("a") is None)
        assert await cache.get("a") == 1


async def test_l1_max_entries_bounds_l1(make_cache: MakeCache) -> None:
    """The least recently used leave L1; Redis still has them."""
    async with make_cache(l1_max_entries=3) as cache:
        await cache.set_many({"a": 1, "b": 2, "c": 3})
        assert await cache.get("a") == 1
        await cache.set("d", 4)
        assert cache.stats().l1_entries == 3
        assert [key for key in "abcd" if cache.peek(key)] == ["a", "c", "d"]
        assert await cache.get("b") == 2


async def test_l1_max_bytes_bounds_l1(make_cache: MakeCache) -> None:
    """Many small entries or one large one: never more bytes than that; what is too large alone is not kept at all."""
    async with make_cache(l1_max_bytes=20_000) as cache:
        await cache.set_many({f"key:{number}": b"x" * 1000 for number in range(100)})
        assert 5_000 < cache.stats().l1_bytes <= 20_000
        assert cache.stats().evictions > 80
        await cache.set("large", b"x" * 30_000)
        assert cache.peek("large") is None
        assert await cache.get("large") == b"x" * 30_000


async def test_l1_share_is_the_part_of_the_keys_that_l1_holds(make_cache: MakeCache) -> None:
    """By hash, so always the same ones; Redis has all, and none is refused."""
    async with make_cache(l1_share=0.25) as cache, make_cache(l1_share=0) as without:
        keys = [f"key:{number}" for number in range(400)]
        await cache.set_many(dict.fromkeys(keys, 1))
        held = {key for key in keys if cache.peek(key)}
        assert 60 < len(held) < 140
        cache.clear_local()
        for other in (cache, without):
            assert len(await other.get_many(keys)) == 400
            assert await other.get("key:0") == 1
            assert other.stats().fills_refused == 0
        assert {key for key in keys if cache.peek(key)} == held
        assert without.stats().l1_entries == 0


async def test_audit_fraction_is_the_part_of_hits_that_is_compared(make_cache: MakeCache) -> None:
    """None of them by default."""
    async with make_cache(max_staleness=0.2) as without, make_cache(max_staleness=0.2, audit_fraction=1) as cache:
        assert await cache.set("a", 1)

        async def compared() -> bool:
            assert await without.get("a") == await cache.get("a") == 1
            return bool(cache.stats().audited > 2)

        await until(compared)
        assert not without.stats().audited


async def test_announce_tells_of_an_instance(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of one that was asked to."""
    monkeypatch.setattr("nearcache.announce.EVERY", 0.0)
    async with make_cache(max_staleness=0.2) as silent, make_cache(max_staleness=0.2, announce=True) as cache:

        def told() -> int:
            with redis_of(cache.url) as client:
                return len(client.keys(f"{{{cache.settings.namespace}:0}}:i:*"))

        await until(lambda: told() == 1)
        assert not silent.stats().l2_errors


async def test_eviction_lru_keeps_what_was_read_lately(make_cache: MakeCache) -> None:
    """A hit saves an entry; another policy is refused by name."""
    async with make_cache("memory://", eviction="lru", l1_max_entries=2) as cache:
        await cache.set_many({"a": 1, "b": 2})
        await cache.get("a")
        await cache.set("c", 3)
        assert (cache.peek("a"), cache.peek("b")) == (1, None)
    with pytest.raises(ValueError, match="eviction='fifo': must be one of 'lru', 's3fifo'"):
        make_cache("memory://", eviction="fifo")


async def test_eviction_s3fifo_keeps_what_was_hit_before_a_scan(make_cache: MakeCache) -> None:
    """Keys that nobody asks for again push out each other; with lru they push out everything."""
    kept = {}
    for eviction in ("lru", "s3fifo"):
        async with make_cache("memory://", eviction=eviction, l1_max_entries=20) as cache:
            hot = {f"hot:{number}": number for number in range(10)}
            await cache.set_many(hot)
            assert await cache.get_many(hot) == hot
            await cache.set_many({f"scan:{number}": number for number in range(200)})
            kept[eviction] = [key for key in hot if cache.peek(key) is not None]
            assert cache.stats().l1_entries == 20
    assert kept == {"lru": [], "s3fifo": list(hot)}


async def test_jitter_is_the_fraction_taken_off(make_cache: MakeCache) -> None:
    """With 0 none, with 0.9 often more than a third."""
    async with make_cache(ttl=100, jitter=0.9) as cache:
        await cache.set_many({f"key:{number}": 1 for number in range(30)})
        assert min([await kept_ms(cache, f"key:{number}") for number in range(30)]) < 67_000
    async with make_cache(ttl=100, jitter=0) as cache:
        await cache.set_many({f"key:{number}": 1 for number in range(30)})
        assert min([await kept_ms(cache, f"key:{number}") for number in range(30)]) > 95_000


async def test_negative_ttl_is_the_ttl_of_none(make_cache: MakeCache) -> None:
    """And of nothing else."""
    async with make_cache(negative_ttl=5, ttl=50, jitter=0) as cache:
        await cache.set_many({"a": None, "b": 1})
        assert await kept_ms(cache, "a") <= 5_000
        assert await kept_ms(cache, "b") > 40_000


async def test_lease_is_how_long_a_loader_keeps_the_others_waiting(make_cache: MakeCache) -> None:
    """Then another instance may load and fill."""
    async with make_cache(lease=0.1) as one, make_cache(lease=0.1, wait_timeout=20) as other:
        started, go = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            started.set()
            await go.wait()
            return "late"

        first = asyncio.create_task(one.get_or_set("a", one.loader(load)))
        await started.wait()
        assert await timed(other.get_or_set("a", other.loader("mine"))) < 5
        assert await other.get("a") == "mine"
        go.set()
        assert await first == "late"


async def test_wait_timeout_is_how_long_a_follower_waits(make_cache: MakeCache) -> None:
    """Then it loads by itself."""
    async with make_cache() as one, make_cache(wait_timeout=0.1) as other:
        started, go = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            started.set()
            await go.wait()
            return "late"

        first = asyncio.create_task(one.get_or_set("a", one.loader(load)))
        await started.wait()
        assert 0.08 < await timed(other.get_or_set("a", other.loader("mine"))) < 5
        go.set()
        await first


async def test_on_unavailable_raise_tells_by_an_exception(make_cache: MakeCache) -> None:
    """degrade: False; raise: RemoteUnavailable."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert await make_cache(url, on_unavailable="degrade").set("a", 1) is False
    with pytest.raises(RemoteUnavailable):
        await make_cache(url, on_unavailable="raise").set("a", 1)


async def test_copy_serialized_gives_each_reader_an_object_of_its_own(make_cache: MakeCache) -> None:
    """none: the same object each hit; serialized: an equal one."""
    async with make_cache(copy="none") as shared, make_cache(copy="serialized") as apart:
        value = [1, 2]
        await shared.set("a", value)
        assert await shared.get("a") is value
        await apart.set("b", value)
        assert await apart.get("b") is not await apart.get("b")
        assert await apart.get("b") == value


class JsonCodec:
    """A codec of the user's own."""

    def encode(self, value: object) -> bytes:
        """JSON."""
        return json.dumps(value).encode()

    def decode(self, data: bytes) -> Any:
        """JSON."""
        return json.loads(data)


async def test_codec_makes_the_bytes(make_cache: MakeCache) -> None:
    """What Redis holds is what the codec made; what comes back is what it read."""
    async with make_cache(codec=JsonCodec()) as one, make_cache(codec=JsonCodec()) as other:
        await one.set("a", {"json": [1, 2]})
        with redis_of(one.url) as client:
            assert client.get(value_name(one.settings.namespace, "a")).endswith(b'{"json": [1, 2]}')
        assert await other.get("a") == {"json": [1, 2]}


async def test_journal_max_bounds_what_is_remembered(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """More keys of failed writes than that become one clear."""
    async with make_cache(proxy.url, journal_max=2) as cache:
        await cache.set("other", 1)
        proxy.cut()
        for number in range(3):
            assert await cache.delete(f"key:{number}") is False
            assert await cache.get("other") == (1 if number < 2 else None)
        proxy.heal()
        await until(lambda: cache.healthy and not len(cache._core.tier.journal))
        assert await cache.get("other") is None
        assert await cache.set("other", 2) is True
        assert await cache.get("other") == 2


async def test_max_key_bytes_is_the_longest_key(make_cache: MakeCache) -> None:
    """One byte more is refused."""
    cache = make_cache("memory://", max_key_bytes=5)
    await cache.set("x" * 5, 1)
    with pytest.raises(InvalidKey, match="max_key_bytes=5"):
        await cache.set("x" * 6, 1)


async def test_max_key_bytes_may_be_as_large_as_it_says(make_cache: MakeCache) -> None:
    """The longest key of the largest setting goes to Redis, through a message, and back."""
    largest = 65_535
    async with make_cache(max_key_bytes=largest) as one, make_cache(max_key_bytes=largest) as other:
        assert await one.set("x" * largest, 1, tags=["t" * largest]) is True
        assert await other.get("x" * largest) == 1
        await one.delete("x" * largest)
        await until(lambda: other.peek("x" * largest) is None)
    with pytest.raises(ValueError, match="max_key_bytes=65536: must be a whole number from 1 to 65535"):
        make_cache(max_key_bytes=largest + 1)


async def test_max_value_bytes_is_the_largest_value(make_cache: MakeCache) -> None:
    """Encoded; more is refused."""
    cache = make_cache("memory://", max_value_bytes=50)
    await cache.set("a", b"x" * 45)
    with pytest.raises(ValueTooLarge, match="max_value_bytes=50"):
        await cache.set("a", b"x" * 50)
    with pytest.raises(ValueTooLarge, match="'b' has over 50 bytes encoded: at most max_value_bytes=50"):
        await cache.set("b", ["x" * 100_000] * 1000)


async def test_max_value_bytes_holds_for_what_is_read(make_cache: MakeCache) -> None:
    """A larger value, of an instance that allows it, is a miss, told, and nothing is made of it."""
    async with make_cache() as one, make_cache(max_value_bytes=50) as other:
        heard = Heard(other)
        await one.set_many({"a": b"x" * 45, "b": b"x" * 100})
        assert await other.get_many(["a", "b"]) == {"a": b"x" * 45}
        assert await other.get("b") is None
        assert [(event.key, event.reason) for event in heard.of(CorruptValue)] == [
            ("b", "103 bytes, over max_value_bytes=50")
        ]
