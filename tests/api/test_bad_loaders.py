"""Loaders and callbacks that misbehave: nobody waits for them for ever, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nearcache import AsyncNearCache, CacheClosed, Connected, Disconnected, LoadFailed, NearCache
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, redis_of, shut, until, value_name

pytestmark = pytest.mark.one_server
"""It is the loaders that differ here, not the servers."""

ENDS = [KeyboardInterrupt, SystemExit, GeneratorExit]


def nothing_left(cache: Any) -> bool:
    """No flight, no waiter."""
    return not len(cache._core.flights) and not len(cache._core.waiters)


@pytest.mark.parametrize("kind", ENDS)
def test_a_loader_that_ends_more_than_itself(server: EmbeddedServer, namespace: str, kind: type[BaseException]) -> None:
    """What is no Exception goes through to the caller; the lease is given back, so that the next one loads at once."""

    def fail() -> Any:
        raise kind

    with NearCache.from_url(server.url, namespace=namespace, lease=60) as cache:
        with pytest.raises(kind):
            cache.get_or_set("a", fail)
        assert nothing_left(cache)
        assert cache.get_or_set("a", lambda: 1) == 1
        with NearCache.from_url(server.url, namespace=namespace) as other:
            with pytest.raises(kind):
                cache.refresh("b", fail)
            assert other.get_or_set("b", lambda: 2) == 2


@pytest.mark.parametrize("kind", [*ENDS, asyncio.CancelledError])
async def test_a_coroutine_that_ends_more_than_itself(
    server: EmbeddedServer, namespace: str, kind: type[BaseException]
) -> None:
    """The same on asyncio, and a loader may raise CancelledError without having been cancelled."""

    async def fail() -> Any:
        raise kind

    async def load() -> int:
        return 1

    async with AsyncNearCache.from_url(server.url, namespace=namespace, lease=60) as cache:
        with pytest.raises(kind):
            await cache.get_or_set("a", fail)
        await until(lambda: nothing_left(cache))
        assert await cache.get_or_set("a", load) == 1
        async with AsyncNearCache.from_url(server.url, namespace=namespace) as other:
            with pytest.raises(kind):
                await cache.refresh("b", fail)
            assert await other.get_or_set("b", load) == 1


async def test_a_loader_that_returns_after_close(make_cache: MakeCache) -> None:
    """`close` does not wait for it; its caller gets the value, which is kept nowhere."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go.wait()
        return "late"

    cache = make_cache()
    reading = asyncio.create_task(cache.get_or_set("a", cache.loader(load)))
    await begun.wait()
    await shut(cache)
    go.set()
    assert await reading == "late"
    assert nothing_left(cache)
    assert cache.stats().l1_entries == 0
    other = make_cache()
    assert await other.get("a") is None


async def test_close_with_work_in_flight(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Readers and writers in the middle of everything get their answers, or CacheClosed; nothing is left."""
    cache = make_cache(proxy.url, redis_timeout=0.5)
    await cache.set("a", 1)
    assert await cache.wait_healthy(5)
    done = asyncio.Event()

    async def work(number: int) -> bool:
        turn = 0
        try:
            while not done.is_set():
                turn += 1
                assert await cache.get_or_set(f"a:{number}:{turn}", cache.loader(turn)) == turn
                await cache.set("a", turn)
        except CacheClosed:
            return True
        return False

    workers = [asyncio.create_task(work(number)) for number in range(10)]
    await until(lambda: cache.stats().loads > 50)
    proxy.hold("replies")
    await asyncio.sleep(0)
    await shut(cache)
    assert await asyncio.wait_for(asyncio.gather(*workers), 10) == [True] * 10
    assert nothing_left(cache)


async def test_a_loader_that_deletes_its_own_key(make_cache: MakeCache) -> None:
    """Its value is older than the delete: returned, kept nowhere."""
    async with make_cache() as cache:

        async def load() -> str:
            assert await cache.delete("a") is True
            return "loaded"

        assert await cache.get_or_set("a", cache.loader(load)) == "loaded"
        assert cache.peek("a") is None
        assert await cache.get("a") is None
        assert nothing_left(cache)
        assert await cache.get_or_set("a", cache.loader("again")) == "again"
        assert await cache.get("a") == "again"


async def test_a_loader_that_takes_longer_than_its_lease(make_cache: MakeCache, namespace: str) -> None:
    """Somebody else has loaded meanwhile: the late value is its caller's, and overwrites nothing."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go.wait()
        return "late"

    async with make_cache(lease=0.05) as slow, make_cache() as quick:
        reading = asyncio.create_task(slow.get_or_set("a", slow.loader(load)))
        await begun.wait()
        assert await quick.get_or_set("a", quick.loader("in time")) == "in time"
        go.set()
        assert await reading == "late"
        assert await quick.get("a") == "in time"
        assert await slow.get("a") is None, "it was made before what this instance has returned"
        with redis_of(slow.url) as client:
            assert b"in time" in client.get(value_name(namespace, "a"))
        assert slow.stats().fills_refused == 1


async def test_a_loader_of_what_cannot_be_encoded(make_cache: MakeCache) -> None:
    """It is the caller's, told once; the lease is given back, so that others do not wait for its end."""
    value = object()
    async with make_cache(lease=60) as cache, make_cache() as other:
        heard = Heard(cache)
        for _ in range(3):
            assert await cache.get_or_set("a", cache.loader(value)) is value
        assert len(heard.of(LoadFailed)) == 1
        assert cache.stats().uncached == 3
        assert await other.get_or_set("a", other.loader(1)) == 1


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_a_callback_that_raises(make_cache: MakeCache, proxy: FaultProxy, kind: type[BaseException]) -> None:
    """Neither a read nor the bus hears of it, and the callbacks behind it are called."""

    def fail(_event: object) -> None:
        raise kind

    cache = make_cache(proxy.url, max_staleness=1, reconnect_max=0.05)
    cache.on_event(fail)
    heard = Heard(cache)
    async with cache:
        assert await cache.get_or_set("a", cache.loader(object())) is not None
        proxy.cut()
        await until(lambda: heard.of(Disconnected))
        for number in range(5):
            assert await cache.set(f"b:{number}", number) is False
        proxy.heal()
        await until(lambda: len(heard.of(Connected)) == 2)
        assert await cache.wait_healthy(5)
        assert heard.of(LoadFailed)
