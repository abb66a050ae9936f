"""Peers that keep values in the process over a server, which tells them what has changed: bytes, or their own forms.

Hits are proven by a peer's own counters, where it has some; coredis and Valkey GLIDE give bytes, which are not decoded.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.harness.timing import Case
from benchmarks.rivals.base import (
    DECORATED,
    HIT,
    ROOM,
    TTL,
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    NotRun,
    Rival,
    Stage,
    case,
    load,
    new_keys,
)
from benchmarks.rivals.memory import offer_cashews
from nearcache.transport.embedded import EmbeddedServer


@asynccontextmanager
async def cashews(stage: Stage) -> AsyncIterator[Cases]:
    """Its client-side cache."""
    from cashews import Cache

    cache: Any = Cache()
    cache.setup(stage.server.url, client_side=True)
    await cache.init()
    try:
        (user,), offered = offer_cashews("cashews client_side", cache, stage, loads=WIRE_LOAD, sets=WIRE_SET)
        for key, value in stage.values.items():
            await cache.set(key, value, expire=TTL)
            await user(key)
        yield offered
    finally:
        await cache.close()


@asynccontextmanager
async def redis_py(stage: Stage) -> AsyncIterator[Cases]:
    """Client-side caching, on Debian's Redis if there is one, since redis-py refuses Valkey at once."""
    import redis
    from redis.cache import CacheConfig

    with EmbeddedServer(binary=shutil.which("redis-server")) as server:
        with redis.Redis(port=server.port) as plain:
            info: Any = plain.info("server")
        try:
            client = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig(max_size=ROOM))
            client.ping()
        except redis.ConnectionError as error:
            name = info.get("server_name", "redis")
            version = info.get(f"{name}_version", info["redis_version"])
            raise NotRun(f"{name} {version}: {error}", excused="client-side caching" in str(error)) from error
        with client:
            client.mset({key: str(value) for key, value in stage.values.items()})
            for key in stage.values:
                client.get(key)
            yield {
                HIT: case("redis-py client-side caching, get", "get(key)", get=client.get),
                WIRE_SET: case("redis-py client-side caching, set", "do(key, '8')", do=client.set),
            }


@asynccontextmanager
async def coredis(stage: Stage) -> AsyncIterator[Cases]:
    """Hits are proven by its own counter."""
    from coredis import Redis
    from coredis.patterns.cache import LRUCache

    cache = LRUCache(max_keys=ROOM)
    async with Redis(host="127.0.0.1", port=stage.server.port, cache=cache) as client:
        for key in stage.values:
            await client.set(f"coredis:{key}", b"a value")
            await client.get(f"coredis:{key}")
        before = cache.stats.summary["misses"]
        prefixed = "coredis:{}".format
        yield {
            HIT: Case("coredis TrackingCache, get", "await get(key)", {"get": client.get}, prefixed),
            WIRE_SET: Case("coredis TrackingCache, set", "await do(key, b'8')", {"do": client.set}, prefixed),
        }
        if (missed := cache.stats.summary["misses"] - before) > len(stage.values):
            raise RuntimeError(f"coredis went past its cache {missed} times")


@asynccontextmanager
async def glide(stage: Stage) -> AsyncIterator[Cases]:
    """Hits are proven by its own metrics."""
    from glide import ClientSideCache, GlideClient, GlideClientConfiguration, NodeAddress, ProtocolVersion

    cache = ClientSideCache.create(ROOM, TTL * 1000, enable_metrics=True, server_assisted=True)
    client = await GlideClient.create(
        GlideClientConfiguration(
            [NodeAddress("127.0.0.1", stage.server.port)],
            client_side_cache=cache,
            protocol=ProtocolVersion.RESP3,
        )
    )
    prefixed = "glide:{}".format
    try:
        for key in map(prefixed, stage.values):
            await client.set(key, b"a value")
            await client.get(key)
        before = _missed(client)
        yield {
            HIT: Case("Valkey GLIDE client-side cache, get", "await get(key)", {"get": client.get}, prefixed),
            WIRE_SET: Case("Valkey GLIDE, set", "await do(key, b'8')", {"do": client.set}, prefixed),
        }
        if (missed := _missed(client) - before) > len(stage.values):
            raise RuntimeError(f"GLIDE went past its cache {missed} times")
    finally:
        await client.close()


def _missed(client: Any) -> int:
    missed: float = client.get_cache_total_lookups() * client.get_cache_miss_rate()
    return round(missed)


@asynccontextmanager
async def cachekit(stage: Stage) -> AsyncIterator[Cases]:
    """A second call of the function raises, so every measured call is a hit; by its own count, in L1."""
    from cachekit import cache
    from cachekit.backends.redis import RedisBackend

    decorate: Any = cache(backend=RedisBackend(stage.server.url), ttl=TTL)
    user, loading = decorate(stage.once()), decorate(load)
    for key in stage.values:
        user(key)
    yield {
        DECORATED: case("@cachekit.cache, L1", "user(key)", user=user),
        WIRE_LOAD: case("@cachekit.cache", "loading(fresh())", loading=loading, fresh=new_keys()),
    }
    if (found := user.cache_info()).l2_hits:
        raise RuntimeError(f"cachekit went past its L1: {found}")


CASHEWS = Rival("cashews client_side", "cashews", cashews)
REDIS_PY = Rival("redis-py client-side caching", "redis", redis_py)
COREDIS = Rival("coredis TrackingCache", "coredis", coredis)
GLIDE = Rival("Valkey GLIDE client-side cache", "valkey-glide", glide)
CACHEKIT = Rival("cachekit", "cachekit", cachekit)
PEERS = (CASHEWS, REDIS_PY, COREDIS, GLIDE, CACHEKIT)
