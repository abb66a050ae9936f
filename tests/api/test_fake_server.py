"""nearcache.testing's fake server: each of its faults does to a cache of either class what the real one would."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from nearcache import (
    AsyncNearCache,
    CacheClosed,
    ConfigError,
    NearCache,
)
from nearcache.testing import FakeServer
from tests.support.twins import MakeCache, SyncTwin, Twin
from tests.support.waiting import Heard, until


async def test_caches_share_values_and_hear_of_changes(make_fake: MakeCache, fake: FakeServer) -> None:
    """What one writes the other reads; a change, a tag and a clear leave its L1."""
    async with make_fake() as here, make_fake() as there:
        for end in (
            lambda: here.set("a", 2),
            lambda: here.delete("a"),
            lambda: here.mark_stale("a"),
            lambda: here.invalidate_tags("t"),
            here.clear,
        ):
            assert await here.set("a", 1, tags=["t"])
            assert await there.get("a") == 1
            assert there.peek("a") == 1
            assert await end()
            await fake.async_settle()
            assert there.peek("a") is None
        assert there.healthy
        assert there.url == "fake://"


async def test_both_classes_share_one_server(fake: FakeServer, runner: asyncio.Runner) -> None:
    """A NearCache hears of an AsyncNearCache's writes, and the other way round."""
    async with SyncTwin(fake.cache(), runner.get_loop()) as one, Twin(fake.async_cache()) as other:
        for here, there in ((one, other), (other, one)):
            await here.set("a", here.mode)
            assert await there.get("a") == here.mode
            await here.delete("a")
            await fake.async_settle()
            assert there.peek("a") is None


async def test_namespaces_are_apart(make_fake: MakeCache) -> None:
    """As on a real server."""
    async with make_fake(namespace="one") as one, make_fake(namespace="two") as two:
        await one.set("a", 1)
        assert await two.get("a") is None
        await two.clear()
        assert await one.get("a") == 1


async def test_one_load_for_all_caches(make_fake: MakeCache) -> None:
    """While one loads under its lease, the other waits for the fill."""
    loads = 0
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> int:
        nonlocal loads
        loads += 1
        begun.set()
        await go_on.wait()
        return 7

    async with make_fake() as here, make_fake() as there:
        first = asyncio.create_task(here.get_or_set("a", here.loader(load)))
        await begun.wait()
        second = asyncio.create_task(there.get_or_set("a", there.loader(load)))
        await until(lambda: len(there.cache._core.waiters))
        go_on.set()
        assert (await first, await second, loads) == (7, 7, 1)


async def test_settling_gives_up(make_fake: MakeCache, fake: FakeServer) -> None:
    """A cache that never comes back is told of."""
    async with make_fake() as cache:
        cache.cache._core.new_bus = functools.partial(_never, cache.cache._core.new_bus)
        fake.restart_empty()
        with pytest.raises(TimeoutError, match="is not connected"):
            await fake.async_settle(0.05)
        with pytest.raises(TimeoutError, match="is not connected"):
            await asyncio.to_thread(fake.settle, 0.05)


def _never(new_bus: Any) -> Any:
    bus = new_bus()
    bus.closed = True
    return bus


shop = NearCache.from_url("redis://cache.invalid:6379/0", ttl=60)


@shop.cached(ttl=30)
def price(item: int) -> tuple[int]:
    """A function of an application."""
    return (item,)


def test_a_server_behind_a_cache_that_is_there_already(fake: FakeServer) -> None:
    """Its functions are cached there, its listeners stay; afterwards it is where it was, and unused."""
    for _ in range(2):
        heard = Heard(shop)
        with FakeServer().behind(shop) as server, server.cache() as other:
            assert shop.url == "fake://"
            assert price(7) is price(7)
            assert other.get(price.key(7)) == (7,)
            assert heard.all
            server.settle()
        assert shop.url == "redis://cache.invalid:6379/0"
        assert shop.stats().l1_entries == 0
        assert not buses()
    with pytest.raises(ValueError, match="is not on a fake server"):
        fake.away(of=shop)


def buses() -> list[threading.Thread]:
    """The threads that listen."""
    return [thread for thread in threading.enumerate() if thread.name == "nearcache-bus"]


def test_a_server_behind_a_cache_in_use(fake: FakeServer) -> None:
    """What listens is stopped, and afterwards the cache works again where it was."""
    with fake.cache() as cache:
        assert cache.set("a", 1)
        with FakeServer().behind(cache):
            assert cache.get("a") is None
            assert len(buses()) == 1
        assert cache.get("a") == 1
        assert cache.set("a", 2)
        assert len(buses()) == 1


async def test_a_server_behind_an_async_cache_in_use(fake: FakeServer) -> None:
    """The same."""
    async with fake.async_cache() as cache:
        assert await cache.set("a", 1)
        async with FakeServer().behind(cache):
            assert await cache.get("a") is None
            assert len(asyncio.all_tasks()) == 2
        assert await cache.get("a") == 1
        assert await cache.set("a", 2)
        assert len(asyncio.all_tasks()) == 2


def test_a_server_behind_an_async_cache() -> None:
    """The same with `async with`, on one loop after the other."""
    cache = AsyncNearCache.from_url("redis://cache.invalid:6379/0")

    async def use() -> None:
        async with FakeServer().behind(cache) as server:
            assert await cache.set("a", 1)
            with server.away():
                assert await cache.set("a", 2) is False
        assert cache.url == "redis://cache.invalid:6379/0"

    asyncio.run(use())
    asyncio.run(use())


def test_a_server_behind_a_closed_cache(fake: FakeServer) -> None:
    """It works there without being opened, may be opened and closed any number of times, and is closed afterwards."""
    cache = NearCache.from_url("redis://cache.invalid:6379/0")
    cache.close()
    with fake.behind(cache):
        assert cache.set("a", 1)
        for _ in range(2):
            with cache:
                assert cache.get("a") == 1
    with pytest.raises(CacheClosed):
        cache.get("a")
    assert cache.url == "redis://cache.invalid:6379/0"


def test_a_server_behind_an_async_cache_takes_with_too(fake: FakeServer) -> None:
    """Around loops of the application's own, as a TestClient has; but not while a loop uses the cache."""
    cache = AsyncNearCache.from_url("redis://cache.invalid:6379/0")

    async def use() -> None:
        async with cache:
            assert await cache.set("a", 1)

    for _ in range(2):
        with fake.behind(cache) as server:
            assert server is fake
            asyncio.run(use())
            asyncio.run(use())
        assert cache.url == "redis://cache.invalid:6379/0"
    with asyncio.Runner() as runner:
        other = fake.async_cache()
        runner.run(other.set("a", 1))
        with pytest.raises(ConfigError, match="another event loop"), FakeServer().behind(other):
            pass
        assert runner.run(other.get("a")) == 1
        runner.run(other.close())


def test_no_server_behind_a_cache_with_a_server(fake: FakeServer) -> None:
    """It would end with the cache."""
    with NearCache.from_url("embedded://") as cache, pytest.raises(ConfigError, match="has a server of its own"):
        fake.behind(cache)


def test_a_fault_of_a_cache_is_still_its_own_when_it_was_closed_and_opened_again(fake: FakeServer) -> None:
    """As by a second TestClient; and what is closed is not waited for."""
    cache = AsyncNearCache.from_url("redis://cache.invalid:6379/0")

    async def use() -> bool:
        async with cache:
            return await cache.set("a", 1)

    with fake.behind(cache), fake.cache() as other:
        assert asyncio.run(use()) is True
        with fake.away(of=cache):
            assert asyncio.run(use()) is False
            assert other.set("a", 2) is True
        assert asyncio.run(use()) is True
        fake.settle()
