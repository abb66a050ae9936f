"""What a call says about its value: ttl, l1_ttl, negative_ttl, condition, tags, and the settings behind them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nearcache import ConfigError
from nearcache.transport.embedded import EmbeddedServer
from tests.support.cases import each
from tests.support.twins import MakeCache
from tests.support.waiting import gone, redis_of, until, value_name

pytestmark = pytest.mark.one_server
"""What an option does is the same on each kind of server."""

SHORT = 0.15
"""Seconds of a ttl that a test waits for."""


async def left(server: EmbeddedServer, namespace: str, key: str) -> float:
    """Seconds that Redis keeps a key."""
    with redis_of(server.url) as client:
        return float(client.pttl(value_name(namespace, key))) / 1000


def settings_of(place: str, **options: Any) -> dict[str, Any]:
    """The options, when they are to be settings."""
    return options if place == "setting" else {}


@pytest.mark.parametrize("url", [None, "memory://"])
async def test_a_value_ends_with_its_ttl(make_cache: MakeCache, url: str | None) -> None:
    """After its ttl a value is a miss in L1 and in Redis; before it, it is not."""
    async with make_cache(url) as cache:
        await cache.set("short", 1, ttl=SHORT)
        await cache.set("long", 2)
        assert await cache.get("short") == 1
        await gone(cache, "short")
        assert cache.peek("short") is None
        assert await cache.get("long") == 2


@each("ttl", [40, 40.0, timedelta(seconds=40), lambda value: value["seconds"]])
@each("place", ["setting", "call"])
async def test_a_ttl_may_be_a_number_a_timedelta_or_a_function(
    make_cache: MakeCache, server: EmbeddedServer, namespace: str, ttl: Any, place: str
) -> None:
    """Seconds, a timedelta, or a function of the value, in the settings and in a call: Redis keeps it that long."""
    async with make_cache(jitter=0, **settings_of(place, ttl=ttl)) as cache:
        options = {"ttl": ttl} if place == "call" else {}
        await cache.set("a", {"seconds": 40}, **options)
        await cache.get_or_set("b", cache.loader({"seconds": 40}), **options)
        assert 35 < await left(server, namespace, "a") <= 40
        assert 35 < await left(server, namespace, "b") <= 40


async def test_a_function_that_gives_no_ttl_is_told(make_cache: MakeCache) -> None:
    """A ttl function's bad answer is a ConfigError that names it, and nothing is stored."""
    async with make_cache() as cache:
        with pytest.raises(ConfigError, match=r"ttl=-3.*more than 0"):
            await cache.set("a", 3, ttl=lambda value: -value)
        assert await cache.get("a") is None


async def test_none_means_the_setting_s(make_cache: MakeCache, server: EmbeddedServer, namespace: str) -> None:
    """An option that is None counts as not given."""
    async with make_cache(jitter=0, ttl=40) as cache:
        await cache.set("a", 1, ttl=None, l1_ttl=None, negative_ttl=None, condition=None, tags=())
        assert 35 < await left(server, namespace, "a") <= 40
        assert await cache.get_or_set("b", cache.loader(2), ttl=None, lease=None, wait_timeout=None) == 2


@pytest.mark.parametrize("place", ["setting", "call"])
async def test_l1_ttl_caps_l1_alone(make_cache: MakeCache, place: str) -> None:
    """After l1_ttl L1 asks Redis again, which still has the value; also for what was read and loaded."""
    async with make_cache(**settings_of(place, l1_ttl=SHORT)) as cache:
        await cache.set("a", 1, **({"l1_ttl": SHORT} if place == "call" else {}))
        assert cache.peek("a") == 1
        await until(lambda: cache.peek("a") is None)
        assert await cache.get("a") == 1
        assert cache.stats().l2_hits == 1


async def test_l1_ttl_of_a_load(make_cache: MakeCache) -> None:
    """`get_or_set` takes l1_ttl too."""
    async with make_cache() as cache:
        await cache.get_or_set("a", cache.loader(1), l1_ttl=timedelta(seconds=SHORT))
        assert cache.peek("a") == 1
        await until(lambda: cache.peek("a") is None)
        assert await cache.get("a") == 1


async def test_a_cached_none_may_have_a_shorter_life(
    make_cache: MakeCache, server: EmbeddedServer, namespace: str
) -> None:
    """negative_ttl is the ttl of None and of nothing else, set or loaded."""
    async with make_cache(jitter=0, ttl=60, negative_ttl=20) as cache:
        await cache.set("none", None)
        await cache.get_or_set("loaded", cache.loader(None))
        await cache.set("called", None, negative_ttl=10)
        await cache.set("zero", 0)
        assert 15 < await left(server, namespace, "none") <= 20
        assert 15 < await left(server, namespace, "loaded") <= 20
        assert 5 < await left(server, namespace, "called") <= 10
        assert 55 < await left(server, namespace, "zero") <= 60


@pytest.mark.parametrize("place", ["setting", "call"])
@pytest.mark.parametrize("url", [None, "memory://"])
async def test_none_need_not_be_cached(make_cache: MakeCache, place: str, url: str | None) -> None:
    """negative_ttl=0: a set of None is True and stores nothing; a loaded None is returned, and loaded again."""
    async with make_cache(url, **settings_of(place, negative_ttl=0)) as cache:
        options = {"negative_ttl": 0} if place == "call" else {}
        assert await cache.set("a", None, **options) is True
        assert await cache.get("a", "default") == "default"
        assert await cache.get_or_set("a", cache.loader(None), **options) is None
        assert await cache.get_or_set("a", cache.loader(7), **options) == 7
        assert cache.stats().loads == 2


@pytest.mark.parametrize("url", [None, "memory://"])
async def test_a_condition_decides_whether_to_store(make_cache: MakeCache, url: str | None) -> None:
    """A value that the condition turns down is acknowledged or returned, and not stored; another one is."""
    async with make_cache(url) as cache:

        def is_good(value: int) -> bool:
            return value > 0

        assert await cache.set("a", -1, condition=is_good) is True
        assert await cache.get("a") is None
        assert await cache.get_or_set("a", cache.loader(-2), condition=is_good) == -2
        assert await cache.get("a") is None
        assert await cache.set_many({"a": 1, "b": -1}, condition=is_good) is True
        assert await cache.get_many(["a", "b"]) == {"a": 1}
        assert await cache.get_or_set("c", cache.loader(3), condition=is_good) == 3
        assert await cache.get("c") == 3


@pytest.mark.parametrize("options", [{"condition": lambda _: False}, {"negative_ttl": 0}], ids=["condition", "None"])
async def test_a_value_turned_down_deletes_the_old_one(make_cache: MakeCache, options: Any) -> None:
    """What was there is not what the caller means any more: by a set, and by a load that replaces a stale value."""
    async with make_cache() as cache, make_cache() as other:
        await cache.set("a", 1)
        assert await other.get("a") == 1
        assert await cache.set("a", None, **options) is True
        assert await cache.get("a") is None
        await until(lambda: other.peek("a") is None)
        await cache.set("b", 1)
        await cache.mark_stale("b")
        assert await cache.get_or_set("b", cache.loader(None), stale_if_error=60, **options) is None
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_set("b", cache.loader(lambda: 1 / 0), stale_if_error=60)


async def test_a_load_turned_down_gives_its_lease_back(make_cache: MakeCache) -> None:
    """After a loaded value that is not stored, another instance need not wait for the lease to end."""
    async with make_cache() as one, make_cache() as other:
        assert await one.get_or_set("a", one.loader(1), condition=lambda _: False) == 1
        assert await other.get_or_set("a", other.loader(2), wait_timeout=30) == 2
        assert await other.get("a") == 2


async def test_jitter_spreads_the_ends(make_cache: MakeCache, server: EmbeddedServer, namespace: str) -> None:
    """A fraction of the ttl is taken off at random, for each value anew, and never more than that fraction."""
    async with make_cache(ttl=1000, jitter=0.5) as cache:
        await cache.set_many({f"key:{number}": number for number in range(50)})
        ends = [await left(server, namespace, f"key:{number}") for number in range(50)]
        assert 490 < min(ends) <= max(ends) <= 1000
        assert len({round(end) for end in ends}) > 10


@each("call", ["set", "get_or_set", "set_many"])
async def test_l1_serves_no_longer_than_l2(make_cache: MakeCache, call: str) -> None:
    """An l1_ttl above the ttl is refused as among the settings; a ttl below the setting's l1_ttl is none of these."""
    async with make_cache("memory://", ttl=30, l1_ttl=20) as cache:

        async def ask(**options: Any) -> object:
            if call == "set_many":
                return await cache.set_many({"a": 1}, **options)
            return await getattr(cache, call)("a", cache.loader(1) if call == "get_or_set" else 1, **options)

        with pytest.raises(ConfigError, match=r"^l1_ttl=10\.0, ttl=5\.0: .*it must be at most ttl$"):
            await ask(ttl=5, l1_ttl=10)
        with pytest.raises(ConfigError, match=r"^l1_ttl=60\.0, ttl=30\.0 \(the setting's\): .*at most ttl$"):
            await ask(l1_ttl=60)
        await ask(ttl=5)
        await ask(ttl=60, l1_ttl=60)
        await ask(ttl=lambda _: 60, l1_ttl=60)
