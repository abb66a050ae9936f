"""Redis goes away and comes back: L1 answers within max_staleness, then the loader; nothing is raised into a read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from nearcache import (
    AsyncNearCache,
    BreakerClosed,
    BreakerOpened,
    Connected,
    Disconnected,
    Drained,
    Journalled,
    RemoteUnavailable,
)
from nearcache.testing import FaultProxy, black_hole, commands
from nearcache.transport.embedded import EmbeddedServer, free_port
from tests.support import servers
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, shut, until, value_name

SHORT: dict[str, Any] = {"max_staleness": 0.4, "redis_timeout": 0.1, "reconnect_max": 0.05, "breaker_reset": 0.1}


async def can_write(cache: Twin) -> bool:
    """Whether a set is acknowledged."""
    return bool(await cache.set("probe", 1))


def drained(cache: Any) -> bool:
    """Whether nothing is journalled any more."""
    return not len(cache._core.tier.journal)


async def test_a_killed_server(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """L1 answers until its proof is over, then the loader does; after an empty restart all works and L1 is empty."""
    async with make_cache(fresh_server.url, **SHORT) as cache:
        heard = Heard(cache)
        await cache.set("a", "cached")
        killed = time.monotonic()
        fresh_server.kill()
        assert await cache.get("a") == "cached"
        await until(lambda: heard.of(Disconnected))
        await until(lambda: cache.peek("a") is None)
        assert time.monotonic() - killed < SHORT["max_staleness"] + 0.2
        assert await cache.get("a") is None
        assert await cache.get_many(["a", "b"]) == {}
        assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
        assert cache.healthy is False
        fresh_server.start()
        await until(lambda: heard.of(Connected))
        await until(lambda: cache.healthy)
        assert await cache.get("a") is None
        assert await cache.get_or_set("a", cache.loader("loaded again")) == "loaded again"
        assert await cache.get("a") == "loaded again"


async def test_a_paused_server(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """A server that stands still is noticed by the heartbeat; a read waits for it once, then the breaker is open."""
    async with make_cache(fresh_server.url, **SHORT) as cache:
        heard = Heard(cache)
        await cache.set("a", 1)
        fresh_server.pause()
        try:
            begun = time.monotonic()
            assert await cache.get("b") is None
            assert time.monotonic() - begun < 0.1 + 0.3
            assert heard.of(BreakerOpened)
            begun = time.monotonic()
            assert await cache.get_or_set("b", cache.loader(2)) == 2
            assert time.monotonic() - begun < 0.1
            await until(lambda: heard.of(Disconnected))
            await until(lambda: cache.peek("a") is None)
        finally:
            fresh_server.resume()
        await until(lambda: heard.of(Connected))
        assert heard.of(BreakerClosed)
        await until(lambda: can_write(cache))


async def test_a_write_that_is_not_acknowledged(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """False, an event; the key is a miss here, though L1 and Redis had it, and deleted when Redis answers again."""
    async with make_cache(proxy.url) as cache:
        heard = Heard(cache)
        await cache.set_many({"a": 1, "b": 2, "other": 3})
        proxy.cut()
        assert await cache.set("a", 10) is False
        assert await cache.delete("b") is False
        assert [event.keys for event in heard.of(Journalled)] == [1, 1]
        assert cache.peek("a") is None
        assert await cache.get("a", "missing") == "missing"
        assert await cache.get("other") == 3
        proxy.heal()
        assert await cache.wait_healthy(5)
        await until(lambda: drained(cache))
        assert sum(event.replayed for event in heard.of(Drained)) == 2
        assert await cache.get_many(["a", "b", "other"]) == {"other": 3}
        assert await cache.set("a", 11) is True
        assert await cache.get("a") == 11


@pytest.mark.parametrize("method", ["clear", "invalidate_tags"])
async def test_a_clear_that_is_not_acknowledged(make_cache: MakeCache, proxy: FaultProxy, method: str) -> None:
    """False, and nothing that it may have cleared is served here until coherence is proven again."""
    async with make_cache(proxy.url) as cache:
        await cache.set("a", 1, tags=["t"])
        proxy.cut()
        assert await getattr(cache, method)(*(["t"] if method == "invalidate_tags" else [])) is False
        assert await cache.get("a") is None
        assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
        proxy.heal()
        assert await cache.wait_healthy(5)
        await until(lambda: can_write(cache))


async def test_a_write_whose_reply_is_lost(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """A set that Redis did but did not answer in time is False, and deleted after its deadline."""
    async with make_cache(proxy.url, redis_timeout=0.1) as cache:
        await cache.set("a", 1)
        proxy.hold("replies", only=commands)
        assert await cache.set("a", 2) is False
        assert cache.peek("a") is None
        proxy.release()
        assert await cache.wait_healthy(5)
        await until(lambda: drained(cache))
        with redis_of(proxy.url) as client:
            assert client.get(value_name(cache.settings.namespace, "a")) is None
        assert await cache.set("a", 3) is True
        assert await cache.get("a") == 3


async def test_a_cancelled_set(proxy: FaultProxy, namespace: str) -> None:
    """Its outcome is unknown, so it counts as not acknowledged: it is journalled, and deleted after its deadline."""
    async with AsyncNearCache.from_url(proxy.url, namespace=namespace, redis_timeout=2, max_staleness=2) as cache:
        heard = Heard(cache)
        await cache.set("a", 1)
        proxy.hold("replies", only=commands)
        setting = asyncio.create_task(cache.set("a", 2))
        await until(lambda: any(b"EVALSHA" in one.head and one.head.count(b":v:a") == 2 for one in proxy._connections))
        setting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await setting
        assert cache.peek("a") is None
        proxy.release()
        await until(lambda: drained(cache))
        assert await cache.get("a") is None
        assert cache.stats().journalled == 1
        assert not heard.of(Disconnected)


async def test_on_unavailable_raise(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """With on_unavailable="raise" every write raises RemoteUnavailable; reads do not."""
    async with make_cache(proxy.url, on_unavailable="raise") as cache:
        heard = Heard(cache)
        await cache.set("a", 1)
        proxy.cut()
        for attempt in (
            lambda: cache.set("a", 2),
            lambda: cache.set_many({"b": 2}),
            lambda: cache.delete("a"),
            lambda: cache.invalidate_tags("t"),
            cache.clear,
        ):
            with pytest.raises(RemoteUnavailable, match="did not acknowledge the write"):
                await attempt()
        assert len(heard.of(Journalled)) == 5
        assert await cache.get("a") is None
        assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_server_that_comes_later(make_cache: MakeCache, kind: str) -> None:
    """Without a server a cache is made, entered and used; when the server appears, it connects."""
    port = free_port()
    cache = make_cache(f"redis://127.0.0.1:{port}/0", **SHORT)
    heard = Heard(cache)
    async with cache:
        await degraded(cache)
        with servers.make(kind, port=port):
            await until(lambda: heard.of(Connected))
            await until(lambda: can_write(cache))
            await until(lambda: drained(cache))
            assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
            assert await cache.get("a") == "loaded"
            assert cache.healthy
            await shut(cache)


async def test_a_port_that_never_answers(make_cache: MakeCache) -> None:
    """A host that takes the connection and says nothing costs bounded time, and nothing is raised."""
    with black_hole() as port:
        begun = time.monotonic()
        async with make_cache(f"redis://127.0.0.1:{port}/0", **SHORT, redis_connect_timeout=0.2) as cache:
            await degraded(cache)
        assert time.monotonic() - begun < 5


async def degraded(cache: Twin) -> None:
    """Reads miss, loaders answer, writes are False, and soon nothing waits."""
    assert cache.healthy is False
    assert await cache.get("a", "missing") == "missing"
    assert await cache.get_many(["a", "b"]) == {}
    assert await cache.get_or_set("a", cache.loader(1)) == 1
    assert await cache.refresh("a", cache.loader(2)) == 2
    assert await cache.set("a", 3) is False
    assert await cache.delete("a") is False
    assert await cache.clear() is False
    assert await cache.invalidate_tags("t") is False
    assert cache.peek("a") is None
    assert cache.stats().l1_entries == 0
    begun = time.monotonic()
    for number in range(20):
        assert await cache.get_or_set(f"key:{number}", cache.loader(number)) == number
    assert time.monotonic() - begun < 0.5


async def test_one_load_per_process_while_redis_is_away(make_cache: MakeCache) -> None:
    """Readers of one key share a load without Redis too."""
    cache = make_cache(f"redis://127.0.0.1:{free_port()}/0")
    go, calls = asyncio.Event(), []

    async def load() -> Any:
        calls.append(1)
        await go.wait()
        return "loaded"

    readers = [asyncio.create_task(cache.get_or_set("a", cache.loader(load))) for _ in range(20)]
    await until(lambda: calls)
    go.set()
    assert await asyncio.gather(*readers) == ["loaded"] * 20
    assert len(calls) == 1


async def test_many_readers_while_the_server_comes_and_goes(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Whatever the link does, a read answers, and writers are told the truth by True or False."""
    async with make_cache(proxy.url, lease=0.3, **SHORT) as cache:  # one whose reply was lost ends by itself
        done = asyncio.Event()

        async def read(name: str) -> int:
            reads = 0
            while not done.is_set():
                assert await cache.get_or_set(name, cache.loader("value")) == "value"
                assert await cache.get("absent") is None
                assert await cache.set(f"{name}:own", reads) in {True, False}
                reads += 1
                await asyncio.sleep(0)
            return reads

        readers = [asyncio.create_task(read(f"key:{number}")) for number in range(4)]
        for _ in range(4):
            proxy.cut()
            await until(lambda: not cache._core.breaker.bus)
            proxy.heal()
            assert await cache.wait_healthy(5)
        done.set()
        assert min(await asyncio.gather(*readers)) > 0
