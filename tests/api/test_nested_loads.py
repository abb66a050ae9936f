"""Loaders that ask the cache themselves, from tasks of their own too: one load a key, and no waiting in a circle."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any

import pytest

from nearcache import AsyncNearCache, LoadFailed, NearCache
from nearcache.testing import FaultProxy
from tests.api.test_every_setting_of_loads import AWAY, away
from tests.api.test_loading import Source
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, until

pytestmark = pytest.mark.one_server
"""It is the loaders that differ here, not the servers."""


async def test_two_branches_of_a_loader_share_a_load(make_cache: MakeCache) -> None:
    """They are two readers, though both are asked for in the name of one loader: one leads, the other follows."""
    async with make_cache() as cache:
        heard = Heard(cache)
        source = Source("inner")
        inner = cache.loader(source.load)

        async def outer() -> list[object]:
            branches = [asyncio.create_task(cache.get_or_set("inner", inner)) for _ in range(3)]
            await until(lambda: source.calls)
            source.go.set()
            return list(await asyncio.gather(*branches))

        assert await cache.get_or_set("outer", cache.loader(outer)) == ["inner"] * 3
        assert source.calls == 1
        assert not heard.of(LoadFailed)
        assert cache.peek("inner") == "inner"


async def test_two_branches_of_a_loader_have_a_permit_each(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """A loader that began before Redis went away has no permit that its branches could share."""
    async with make_cache(proxy.url, max_concurrent_loads=1, **AWAY) as cache:
        now = most = 0

        async def branch() -> int:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            return 1

        inner = cache.loader(branch)

        async def outer() -> Any:
            await away(cache, proxy)
            return await asyncio.gather(*[cache.get_or_set(f"inner:{number}", inner) for number in range(4)])

        assert await cache.get_or_set("outer", cache.loader(outer)) == [1] * 4
        assert most == 1


async def test_a_load_with_a_permit_waits_for_nobody_who_waits_for_one(
    make_cache: MakeCache, proxy: FaultProxy
) -> None:
    """All permits are out; their loaders ask for a key whose leader has none: each would wait for the other."""
    async with make_cache(proxy.url, max_concurrent_loads=1, **AWAY) as cache:
        await away(cache, proxy)
        begun, go = asyncio.Event(), asyncio.Event()
        user = cache.loader("Ada")

        async def page() -> object:
            begun.set()
            await go.wait()
            return await cache.get_or_set("user", user)

        reading = asyncio.create_task(cache.get_or_set("page", cache.loader(page)))
        await begun.wait()
        waiting = asyncio.create_task(cache.get_or_set("user", user))
        await until(lambda: cache.stats().misses == 2)
        go.set()
        assert list(await asyncio.wait_for(asyncio.gather(reading, waiting), 10)) == ["Ada", "Ada"]


async def test_a_load_in_a_thread_waits_for_nobody_who_waits_for_one(make_cache: MakeCache) -> None:
    """The same with threads for loads with a time limit: all are out, and one of them asks for what waits for one."""
    async with make_cache(max_concurrent_loads=1, loader_hard_timeout=5) as cache:
        begun, go = asyncio.Event(), asyncio.Event()
        user = cache.loader("Ada")

        async def page() -> object:
            begun.set()
            await go.wait()
            return await cache.get_or_set("user", user)

        reading = asyncio.create_task(cache.get_or_set("page", cache.loader(page)))
        await begun.wait()
        waiting = asyncio.create_task(cache.get_or_set("user", user))
        await until(lambda: len(cache._core.flights) == 2 or cache.peek("user"))
        go.set()
        assert list(await asyncio.wait_for(asyncio.gather(reading, waiting), 10)) == ["Ada", "Ada"]


async def test_a_load_inside_a_thread_needs_no_other_permit(make_cache: MakeCache) -> None:
    """One thread for loads with a time limit, and a loader in it that loads another key: it would wait for itself."""
    async with make_cache(max_concurrent_loads=1, loader_hard_timeout=2) as cache:
        inner = cache.loader("inner")

        async def outer() -> object:
            return await cache.get_or_set("inner", inner)

        assert await cache.get_or_set("outer", cache.loader(outer)) == "inner"


async def test_a_load_that_found_no_thread_may_ask_for_its_own_key(make_cache: MakeCache) -> None:
    """It is made in its reader's thread, whose asking for the same key is known as one's own."""
    async with make_cache(max_concurrent_loads=1, loader_soft_timeout=0.01, stale_if_error=60) as cache:
        source = Source()
        busy = asyncio.create_task(cache.get_or_set("busy", cache.loader(source.load)))
        await until(lambda: source.calls)
        inner = cache.loader("inner")

        async def outer() -> object:
            return await cache.get_or_set("k", inner)

        assert await asyncio.wait_for(cache.get_or_set("k", cache.loader(outer)), 5) == "inner"
        source.go.set()
        await busy


def test_loaders_that_fan_out_over_a_thread_pool_never_deadlock(proxy: FaultProxy, namespace: str) -> None:
    """The outer loads hold all permits, and the pool's threads, which know no caller, wait for one."""
    proxy.cut()
    settings: dict[str, Any] = {"max_concurrent_loads": 2, "redis_timeout": 0.1, "redis_connect_timeout": 0.1}
    with NearCache.from_url(proxy.url, namespace=namespace, **settings) as cache, ThreadPoolExecutor(8) as pool:
        cache.get("away")

        def outer(number: int) -> list[str]:
            branches = [
                pool.submit(cache.get_or_set, f"inner:{number}:{branch}", lambda: "inner") for branch in range(3)
            ]
            return [branch.result() for branch in branches]

        began = time.monotonic()
        with ThreadPoolExecutor(5) as callers:
            loads = [callers.submit(cache.get_or_set, f"outer:{one}", partial(outer, one)) for one in range(5)]
            assert [load.result() for load in loads] == [["inner"] * 3] * 5
        assert time.monotonic() - began < 10
        cache.get_or_set("one more", lambda: 1)
        assert cache._core.loads.extra == 0
        proxy.heal()


async def test_loaders_that_fan_out_over_tasks_without_their_context_never_deadlock(
    proxy: FaultProxy, namespace: str
) -> None:
    """As above, on a loop."""
    proxy.cut()
    settings: dict[str, Any] = {"max_concurrent_loads": 2, "redis_timeout": 0.1, "redis_connect_timeout": 0.1}
    async with AsyncNearCache.from_url(proxy.url, namespace=namespace, **settings) as cache:
        await cache.get("away")

        async def inner() -> str:
            return "inner"

        async def outer(number: int) -> list[str]:
            keys = [f"inner:{number}:{branch}" for branch in range(3)]
            tasks = [asyncio.create_task(cache.get_or_set(key, inner), context=Context()) for key in keys]
            return [await task for task in tasks]

        async with asyncio.timeout(10):
            loads = [cache.get_or_set(f"outer:{one}", partial(outer, one)) for one in range(5)]
            assert await asyncio.gather(*loads) == [["inner"] * 3] * 5
        proxy.heal()
