"""This library, and peers that share a server: cashews, redis-py and its client-side caching, coredis."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.stage import (
    DECORATED,
    HIT,
    LOAD,
    ROOM,
    SET,
    TTL,
    VALUE,
    WIRE_GET,
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    NotRun,
    Rival,
    Stage,
    case,
    load,
    load_async,
    new_keys,
)
from benchmarks.timing import Case
from nearcache import AsyncNearCache, NearCache
from nearcache.stats import Stats
from nearcache.transport.embedded import EmbeddedServer


def _all_hits(cache: NearCache | AsyncNearCache, before: Stats) -> None:
    """A loop that was not all hits measured something else."""
    after = cache.stats()
    for name in ("l2_hits", "misses", "loads", "evictions", "flushes"):
        if (more := getattr(after, name) - getattr(before, name)) > 0:
            raise RuntimeError(f"{cache!r} went past L1: {name} rose by {more}")


@asynccontextmanager
async def near(stage: Stage) -> AsyncIterator[Cases]:
    """NearCache: hits with its bus at work; loads and sets over memory://, as peers in the process have no server."""
    options: dict[str, Any] = {"ttl": TTL, "l1_max_entries": ROOM}
    url = stage.server.url
    with (
        NearCache.from_url(url, namespace="peers", **options) as cache,
        NearCache.from_url(url, namespace="peers-2", **(options | {"l1_max_entries": 1})) as narrow,
        NearCache.from_url("memory://", **options) as alone,
    ):
        user = cache.cached("user:{key}")(stage.once())
        if not (cache.wait_healthy(10) and cache.set_many(stage.values) and narrow.set_many(stage.values)):
            raise RuntimeError(f"{cache!r} did not store the values")
        for key in stage.values:
            user(key)
        fresh, before = new_keys(), cache.stats()
        yield {
            HIT: case("NearCache.get", "get(key)", get=cache.get),
            DECORATED: case("@NearCache.cached", "user(key)", user=user),
            LOAD: case(
                "NearCache.get_or_set, memory://", "do(fresh(), load)", do=alone.get_or_set, fresh=fresh, load=load
            ),
            SET: case("NearCache.set, memory://", "do(key, VALUE)", do=alone.set, VALUE=VALUE),
            WIRE_GET: case("NearCache.get from L2, and into L1", "get(key)", get=narrow.get),
            WIRE_LOAD: case("NearCache.get_or_set", "do(fresh(), load)", do=narrow.get_or_set, fresh=fresh, load=load),
            WIRE_SET: case("NearCache.set", "do(key, VALUE)", do=narrow.set, VALUE=VALUE),
        }
        _all_hits(cache, before)


@asynccontextmanager
async def near_async(stage: Stage) -> AsyncIterator[Cases]:
    """AsyncNearCache, the same."""
    options: dict[str, Any] = {"ttl": TTL, "l1_max_entries": ROOM}
    url = stage.server.url
    async with (
        AsyncNearCache.from_url(url, namespace="peers-3", **options) as cache,
        AsyncNearCache.from_url(url, namespace="peers-4", **(options | {"l1_max_entries": 1})) as narrow,
        AsyncNearCache.from_url("memory://", **options) as alone,
    ):
        once = stage.once()

        @cache.cached("user:{key}")
        async def user(key: str) -> Any:
            return once(key)

        stored = await cache.set_many(stage.values) and await narrow.set_many(stage.values)
        if not (await cache.wait_healthy(10) and stored):
            raise RuntimeError(f"{cache!r} did not store the values")
        for key in stage.values:
            await user(key)
        names, before = {"fresh": new_keys(), "load": load_async, "VALUE": VALUE}, cache.stats()
        yield {
            HIT: case("AsyncNearCache.get", "await get(key)", get=cache.get),
            DECORATED: case("@AsyncNearCache.cached", "await user(key)", user=user),
            LOAD: case("AsyncNearCache.get_or_set, memory://", "await do(fresh(), load)", do=alone.get_or_set, **names),
            SET: case("AsyncNearCache.set, memory://", "await do(key, VALUE)", do=alone.set, **names),
            WIRE_GET: case("AsyncNearCache.get from L2, and into L1", "await get(key)", get=narrow.get),
            WIRE_LOAD: case("AsyncNearCache.get_or_set", "await do(fresh(), load)", do=narrow.get_or_set, **names),
            WIRE_SET: case("AsyncNearCache.set", "await do(key, VALUE)", do=narrow.set, **names),
        }
        _all_hits(cache, before)


def _cashews(name: str, url: Callable[[Stage], str], **options: Any) -> Callable[[Stage], Any]:
    @asynccontextmanager
    async def rival(stage: Stage) -> AsyncIterator[Cases]:
        from cashews import Cache

        cache: Any = Cache()
        cache.setup(url(stage), **options)
        await cache.init()
        once = stage.once()

        @cache(ttl=TTL, key="user:{key}")  # type: ignore[untyped-decorator]
        async def user(key: str) -> Any:
            return once(key)

        try:
            for key, value in stage.values.items():
                await cache.set(key, value, expire=TTL)
                await user(key)
            loading = cache(ttl=TTL, key="load:{_key}")(load_async)
            wire = "client_side" in name
            yield {
                HIT: case(f"{name}, get", "await get(key)", get=cache.get),
                DECORATED: case(f"@{name}", "await user(key)", user=user),
                WIRE_LOAD if wire else LOAD: case(
                    f"@{name}", "await loading(fresh())", loading=loading, fresh=new_keys()
                ),
                WIRE_SET if wire else SET: case(
                    f"{name}, set", "await do(key, VALUE, expire=TTL)", do=cache.set, VALUE=VALUE, TTL=TTL
                ),
            }
        finally:
            await cache.close()

    return rival


@asynccontextmanager
async def redis_py(stage: Stage) -> AsyncIterator[Cases]:
    """redis-py: GET and unpack, SET of packed bytes with EX; a load is GET, load, SET, unguarded."""
    import msgpack  # type: ignore[import-untyped]
    import redis

    with redis.Redis(port=stage.server.port) as client:
        for key, value in stage.values.items():
            client.set(key, msgpack.packb(value), ex=TTL)

        def get_or_load(key: str) -> Any:
            packed: Any = client.get(key)
            if packed is not None:
                return msgpack.unpackb(packed)
            value = load(key)
            client.set(key, msgpack.packb(value), ex=TTL)
            return value

        names = {"client": client, "unpackb": msgpack.unpackb, "packb": msgpack.packb, "VALUE": VALUE, "TTL": TTL}
        yield {
            WIRE_GET: case("redis-py GET and unpack", "unpackb(client.get(key))", **names),
            WIRE_LOAD: case("redis-py GET, load, SET", "do(fresh())", do=get_or_load, fresh=new_keys()),
            WIRE_SET: case("redis-py SET", "client.set(key, packb(VALUE), ex=TTL)", **names),
        }


@asynccontextmanager
async def redis_py_tracking(stage: Stage) -> AsyncIterator[Cases]:
    """redis-py's client-side caching, on Debian's Redis if there is one, since it refuses Valkey at once."""
    import redis
    from redis.cache import CacheConfig

    binary = shutil.which("redis-server")
    with EmbeddedServer(binary=binary) as server:
        with redis.Redis(port=server.port) as plain:
            told: Any = plain.info("server")
        try:
            client = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig(max_size=ROOM))
            client.ping()
        except redis.ConnectionError as error:
            name = told.get("server_name", "redis")
            version = told.get(f"{name}_version", told["redis_version"])
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
async def coredis_tracking(stage: Stage) -> AsyncIterator[Cases]:
    """Coredis with its TrackingCache over CLIENT TRACKING: raw bytes, not decoded."""
    import coredis
    from coredis.patterns.cache import LRUCache

    cache = LRUCache(max_keys=ROOM)
    async with coredis.Redis(host="127.0.0.1", port=stage.server.port, cache=cache) as client:
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


OURS = (Rival("NearCache", "nearcache", near), Rival("AsyncNearCache", "nearcache", near_async))
RIVALS = (
    Rival("cashews mem", "cashews", _cashews("cashews mem", lambda _: f"mem://?size={ROOM}")),
    Rival(
        "cashews client_side",
        "cashews",
        _cashews("cashews client_side", lambda stage: stage.server.url, client_side=True),
    ),
    Rival("redis-py", "redis", redis_py),
    Rival("redis-py client-side caching", "redis", redis_py_tracking),
    Rival("coredis TrackingCache", "coredis", coredis_tracking),
)
