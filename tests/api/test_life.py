"""The life of a cache: made from a URL, the environment or a client; used with and without `with`; healthy; closed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import redis
import redis.asyncio

import nearcache
from nearcache import AsyncNearCache, CacheClosed, Connected, NearCache, Settings
from nearcache.testing import FakeServer
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, redis_of, shut, until, value_name

SECRET = "s3cret-pa55"


async def test_with_waits_for_the_first_proof(make_cache: MakeCache) -> None:
    """Inside `with` on a server that is there, coherence is proven from the first line on."""
    async with make_cache() as cache:
        assert cache.healthy is True
        assert await cache.wait_healthy() is True


async def test_a_cache_works_without_with(make_cache: MakeCache) -> None:
    """The bus starts at the first use; coherence is proven soon after, and `close` ends it."""
    cache = make_cache()
    assert not cache.healthy
    assert await cache.set("a", 1) is True
    assert await cache.get("a") == 1
    assert await cache.wait_healthy(timeout=5) is True
    assert cache.healthy
    await shut(cache)
    assert not cache.healthy


async def test_making_a_cache_connects_nothing(make_cache: MakeCache) -> None:
    """A cache for a server that does not exist is made without an error, and can be thrown away."""
    cache = make_cache("redis://127.0.0.1:1/0")
    assert cache.healthy is False
    assert cache.stats() == nearcache.Stats()


async def test_wait_healthy_gives_up(make_cache: MakeCache) -> None:
    """Without a server it is False after the timeout."""
    cache = make_cache("redis://127.0.0.1:1/0")
    assert await cache.wait_healthy(timeout=0.05) is False


async def test_memory_is_always_healthy(make_cache: MakeCache) -> None:
    """`memory://` has nobody to be coherent with."""
    async with make_cache("memory://") as cache:
        assert cache.healthy is True
        assert await cache.wait_healthy(timeout=0.05) is True
        assert cache.url == "memory://"


async def test_two_memories_are_two(make_cache: MakeCache) -> None:
    """Caches at `memory://` share nothing."""
    async with make_cache("memory://") as one, make_cache("memory://") as other:
        await one.set("a", 1)
        assert await other.get("a") is None


async def test_closing_twice_is_allowed(make_cache: MakeCache) -> None:
    """`close` is idempotent, before and after use, within `with` too."""
    unused = make_cache()
    await shut(unused)
    async with make_cache() as cache:
        await cache.set("a", 1)
        await shut(cache)
    await shut(cache)
    assert cache.stats().l1_entries == 0


async def test_a_block_that_raises_closes_the_cache(make_cache: MakeCache) -> None:
    """What is raised inside `with` goes on, and the cache is closed."""
    cache = make_cache()
    with pytest.raises(ZeroDivisionError):
        async with cache:
            await cache.set("a", 1 / 0)
    with pytest.raises(CacheClosed):
        cache.peek("a")


async def test_events_are_heard_until_unsubscribed(make_cache: MakeCache) -> None:
    """`on_event` calls back with each event and returns what ends it; twice is harmless."""
    cache = make_cache()
    heard, other = Heard(cache), Heard(cache)
    other.stop()
    other.stop()
    async with cache:
        assert heard.of(Connected) == [Connected(kept=0)]
    assert other.all == []


async def test_a_callback_that_raises_harms_nobody(make_cache: MakeCache) -> None:
    """What a callback raises is ignored; the other callbacks are called."""
    cache = make_cache()
    cache.on_event(lambda _: 1 / 0)
    heard = Heard(cache)
    async with cache:
        assert await cache.set("a", 1) is True
        assert heard.of(Connected)


@pytest.mark.parametrize("mode", ["sync", "aio"])
async def test_no_secret_is_shown(mode: str) -> None:
    """Repr and url say where the cache leads, without user, password and options."""
    one: Any = NearCache if mode == "sync" else AsyncNearCache
    url = f"redis://reader:{SECRET}@localhost:6390/3?client_name={SECRET}"
    cache = one.from_url(url, namespace="shop")
    assert cache.url == "redis://localhost:6390/3"
    assert repr(cache) == f"<{one.__name__} redis://localhost:6390/3 namespace='shop'>"
    assert SECRET not in repr(vars(cache)["_backend"])
    assert one.from_url("redis://localhost/0?client_name=a%40b").url == "redis://localhost/0"
    assert one.from_url(f"redis://:{SECRET}%23%3F%40@localhost").url == "redis://localhost"
    client: Any = redis.Redis if mode == "sync" else redis.asyncio.Redis
    lent = one(client(host="localhost", port=6390, db=3, password=SECRET), Settings(namespace="shop"))
    assert lent.url == "redis://localhost:6390/3"
    assert SECRET not in repr(lent)


@pytest.mark.parametrize("mode", ["sync", "aio"])
async def test_a_cache_from_the_environment(
    server: EmbeddedServer, namespace: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """from_env reads NEARCACHE_URL, and each setting under its name in capitals."""
    monkeypatch.setenv("NEARCACHE_URL", server.url)
    monkeypatch.setenv("NEARCACHE_NAMESPACE", namespace)
    monkeypatch.setenv("NEARCACHE_TTL", "30")
    monkeypatch.setenv("NEARCACHE_COPY", "serialized")
    if mode == "sync":
        with NearCache.from_env() as cache:
            assert (cache.settings.ttl, cache.settings.copy) == (30.0, "serialized")
            assert cache.set("a", 1) is True
    else:
        async with AsyncNearCache.from_env() as other:
            assert (other.settings.ttl, other.settings.copy) == (30.0, "serialized")
            assert await other.set("a", 1) is True
    with redis_of(server.url) as client:
        assert client.exists(value_name(namespace, "a"))


async def test_an_embedded_server_comes_and_goes_with_its_cache(make_cache: MakeCache) -> None:
    """`embedded://` starts a server; `url` gives others its address; `close` ends it."""
    async with make_cache("embedded://") as cache:
        assert cache.healthy
        async with make_cache(cache.url) as other:
            await other.set("a", 1)
            assert await cache.get("a") == 1
        url = cache.url
        await shut(cache)
        with redis_of(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()


async def test_a_socket_in_the_file_system(fresh_server: EmbeddedServer, make_cache: MakeCache) -> None:
    """unix:// leads to the same server."""
    async with make_cache(fresh_server.unix_url) as one, make_cache(fresh_server.url) as other:
        await one.set("a", 1)
        assert await other.get("a") == 1
        assert one.healthy


def test_a_client_of_the_user_s_lends_its_settings(server: EmbeddedServer, namespace: str) -> None:
    """A redis.Redis with decoding on and a database of its own: the cache lives there, and never closes the client."""
    with redis.Redis(port=server.port, db=5, decode_responses=True) as client:
        with NearCache(client, Settings(namespace=namespace)) as cache:
            assert cache.url == f"redis://localhost:{server.port}/5"
            assert cache.set("a", (b"bytes", "text")) is True
            cache.clear_local()
            assert cache.get("a") == (b"bytes", "text")
            assert client.exists(value_name(namespace, "a"))
        client.set(namespace, "still works")
        assert client.get(namespace) == "still works"
        with redis_of(server.url) as other:
            assert not other.exists(value_name(namespace, "a"))


async def test_an_async_client_of_the_user_s_lends_its_settings(server: EmbeddedServer, namespace: str) -> None:
    """The same for redis.asyncio.Redis."""
    client = redis.asyncio.Redis(port=server.port, db=5, decode_responses=True)
    async with client:
        async with AsyncNearCache(client, Settings(namespace=namespace)) as cache:
            assert cache.url == f"redis://localhost:{server.port}/5"
            assert await cache.set("a", (b"bytes", "text")) is True
            cache.clear_local()
            assert await cache.get("a") == (b"bytes", "text")
            assert await client.exists(value_name(namespace, "a"))
        await client.set(namespace, "still works")
        assert await client.get(namespace) == "still works"


def test_a_client_used_as_it_was_made(server: EmbeddedServer, namespace: str) -> None:
    """A client with RESP2, a pool and retries of its own, or made from a URL, will do."""
    pool = redis.ConnectionPool.from_url(server.url, protocol=2, max_connections=3, health_check_interval=5)
    for client in (redis.Redis(connection_pool=pool), redis.Redis.from_url(server.url, retry_on_timeout=True)):
        with NearCache(client, Settings(namespace=namespace)) as cache:
            assert cache.healthy
            assert cache.set("a", 1) is True
        assert client.ping()
        client.close()
    pool.disconnect()


def test_nothing_is_left_on_the_server(server: EmbeddedServer, namespace: str) -> None:
    """`close` closes every connection that the cache made."""
    with redis_of(server.url) as client:
        before = {one["id"] for one in client.client_list()}
        with NearCache.from_url(server.url, namespace=namespace) as cache:
            cache.set("a", 1)
            assert len({one["id"] for one in client.client_list()} - before) >= 2
        assert not any(one["id"] not in before and one["cmd"] != "client|list" for one in _settled(client, before))


def _settled(client: Any, before: set[str]) -> list[Any]:
    """The server's clients, once those that hung up are gone."""
    for _ in range(500):
        if not {one["id"] for one in client.client_list()} - before:
            break
    return list(client.client_list())


async def test_an_async_cache_leaves_nothing_on_the_server(server: EmbeddedServer, namespace: str) -> None:
    """The same for asyncio."""
    with redis_of(server.url) as client:
        before = {one["id"] for one in client.client_list()}
        async with AsyncNearCache.from_url(server.url, namespace=namespace) as cache:
            await cache.set("a", 1)
        await until(lambda: not {one["id"] for one in client.client_list()} - before)


def test_an_async_cache_belongs_to_one_loop(server: EmbeddedServer, namespace: str) -> None:
    """Use on another loop is a ConfigError that says what to do; the first loop goes on."""
    cache = AsyncNearCache.from_url(server.url, namespace=namespace)
    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert one.run(cache.set("a", 1)) is True
        with pytest.raises(nearcache.ConfigError, match="another event loop; make one cache per loop"):
            other.run(cache.set("a", 2))
        with pytest.raises(nearcache.ConfigError, match="another event loop"):
            other.run(cache.get("b"))
        assert one.run(cache.get("a")) == 1
        one.run(cache.close())


@pytest.mark.parametrize("make", [NearCache, AsyncNearCache])
def test_the_default_namespace_is_told(make: type[NearCache | AsyncNearCache], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives nothing but the URL shares keys with all who do so: a warning at that line, before any use."""
    client: Any = redis.Redis() if make is NearCache else redis.asyncio.Redis()
    monkeypatch.setenv("NEARCACHE_URL", "redis://localhost:1/0")
    ways: list[Any] = [
        lambda: make.from_url("redis://localhost:1/0", ttl=60),
        make.from_env,
        lambda: make(client),
        lambda: make(client, Settings(ttl=60)),
    ]
    for way in ways:
        with pytest.warns(nearcache.NearCacheWarning, match=r"namespace='nearcache' is .*namespace='shop'") as caught:
            way()
        assert [each.filename for each in caught] == [__file__]


def test_a_namespace_of_its_own_is_not_told(recwarn: pytest.WarningsRecorder) -> None:
    """Nor a server that nobody else has: this process's memory, a server of the cache's own, a test's."""
    NearCache.from_url("redis://localhost:1/0", namespace="shop")
    NearCache(redis.Redis(), Settings(namespace="shop"))
    NearCache.from_url("memory://")
    FakeServer().cache()
    NearCache.from_url("embedded://").close()
    assert not recwarn.list


def test_a_cache_that_was_never_used_makes_no_noise(recwarn: pytest.WarningsRecorder) -> None:
    """A cache that is forgotten without use or `close` warns about nothing."""
    NearCache.from_url("redis://localhost:1/0", namespace="shop")
    AsyncNearCache.from_url("redis://localhost:1/0", namespace="shop")
    gc.collect()
    assert not recwarn.list
