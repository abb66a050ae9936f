"""Peers that live in the process alone: lru_cache, cachetools, cachebox, moka-py, theine, dogpile.cache, aiocache."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from benchmarks.stage import (
    DECORATED,
    HIT,
    LOAD,
    ROOM,
    SET,
    TTL,
    VALUE,
    Cases,
    Rival,
    Stage,
    case,
    load,
    load_async,
    new_keys,
)


@asynccontextmanager
async def lru_cache(stage: Stage) -> AsyncIterator[Cases]:
    """functools.lru_cache: no ttl, no set, nothing shared. The floor."""
    user = functools.lru_cache(ROOM)(stage.once())
    for key in stage.values:
        user(key)
    loading = functools.lru_cache(ROOM)(load)
    yield {
        DECORATED: case("@functools.lru_cache", "user(key)", user=user),
        LOAD: case("@functools.lru_cache", "loading(fresh())", loading=loading, fresh=new_keys()),
    }


@asynccontextmanager
async def cachetools(stage: Stage) -> AsyncIterator[Cases]:
    """cachetools.TTLCache: without a lock, as it comes; its users have to take one."""
    import cachetools

    def made() -> cachetools.TTLCache[Any, Any]:
        return cachetools.TTLCache(ROOM, TTL)

    cache, user = made(), cachetools.cached(made())(stage.once())
    for key, value in stage.values.items():
        cache[key] = value
        user(key)
    loading = cachetools.cached(made())(load)
    yield {
        HIT: case("cachetools.TTLCache.get", "get(key)", get=cache.get),
        DECORATED: case("@cachetools.cached(TTLCache)", "user(key)", user=user),
        LOAD: case("@cachetools.cached(TTLCache)", "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("cachetools.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


@asynccontextmanager
async def cachebox(stage: Stage) -> AsyncIterator[Cases]:
    """cachebox.TTLCache (Rust), and @cached with its defaults, less the copy of the value, which nobody else makes."""
    import cachebox

    def cached(function: Callable[..., Any]) -> Any:
        return cachebox.cached(cachebox.TTLCache(ROOM, TTL), postprocess=None)(function)

    cache, user = cachebox.TTLCache(ROOM, TTL), cached(stage.once())
    for key, value in stage.values.items():
        cache[key] = value
        user(key)
    yield {
        HIT: case("cachebox.TTLCache.get", "get(key)", get=cache.get),
        DECORATED: case("@cachebox.cached(TTLCache)", "user(key)", user=user),
        LOAD: case("@cachebox.cached(TTLCache)", "loading(fresh())", loading=cached(load), fresh=new_keys()),
        SET: case("cachebox.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


@asynccontextmanager
async def moka(stage: Stage) -> AsyncIterator[Cases]:
    """moka-py (Rust), with a ttl."""
    import moka_py

    cache: Any = moka_py.Moka(ROOM, ttl=TTL)
    user = moka_py.cached(ROOM, ttl=TTL)(stage.once())
    for key, value in stage.values.items():
        cache.set(key, value)
        user(key)
    filled: Any = moka_py.Moka(ROOM, ttl=TTL)
    yield {
        HIT: case("moka_py.Moka.get", "get(key)", get=cache.get),
        DECORATED: case("@moka_py.cached", "user(key)", user=user),
        LOAD: case("moka_py.Moka.get_with", "do(fresh(), load)", do=filled.get_with, fresh=new_keys(), load=load),
        SET: case("moka_py.Moka.set", "do(key, VALUE)", do=cache.set, VALUE=VALUE),
    }


@asynccontextmanager
async def theine(stage: Stage) -> AsyncIterator[Cases]:
    """Theine (Rust core), with a ttl; its decorator in the automatic-key form."""
    from theine import Cache, Memoize

    ttl = timedelta(seconds=TTL)
    cache: Any = Cache(ROOM)
    user, loading = Memoize(ROOM, ttl)(stage.once()), Memoize(ROOM, ttl)(load)
    try:
        for key, value in stage.values.items():
            cache.set(key, value, ttl)
            user(key)
        yield {
            HIT: case("theine.Cache.get", "get(key)", get=cache.get),
            DECORATED: case("@theine.Memoize", "user(key)", user=user),
            LOAD: case("@theine.Memoize", "loading(fresh())", loading=loading, fresh=new_keys()),
            SET: case("theine.Cache.set", "do(key, VALUE, ttl)", do=cache.set, VALUE=VALUE, ttl=ttl),
        }
    finally:
        cache.close()


@asynccontextmanager
async def dogpile(stage: Stage) -> AsyncIterator[Cases]:
    """dogpile.cache's memory backend: a dict, without a bound."""
    from dogpile.cache import make_region

    def made() -> Any:
        return make_region().configure("dogpile.cache.memory", expiration_time=TTL)

    region = made()
    user = region.cache_on_arguments()(stage.once())
    for key, value in stage.values.items():
        region.set(key, value)
        user(key)
    fresh, do = new_keys(), made().get_or_create
    yield {
        HIT: case("dogpile.cache memory, get", "get(key)", get=region.get),
        DECORATED: case("@dogpile.cache memory", "user(key)", user=user),
        LOAD: case("dogpile.cache memory, get_or_create", "do(fresh(), load)", do=do, fresh=fresh, load=load),
        SET: case("dogpile.cache memory, set", "do(key, VALUE)", do=region.set, VALUE=VALUE),
    }


@asynccontextmanager
async def aiocache(stage: Stage) -> AsyncIterator[Cases]:
    """Aiocache's memory backend: a dict, without a bound; a timer of the loop per entry with a ttl."""
    from aiocache import SimpleMemoryCache, cached

    cache: Any = SimpleMemoryCache()
    await cache.clear()
    once = stage.once()

    @cached(ttl=TTL)  # type: ignore[untyped-decorator]
    async def user(key: str) -> Any:
        return once(key)

    for key, value in stage.values.items():
        await cache.set(key, value, ttl=TTL)
        await user(key)
    loading = cached(ttl=TTL)(load_async)
    yield {
        HIT: case("aiocache memory, get", "await get(key)", get=cache.get),
        DECORATED: case("@aiocache.cached memory", "await user(key)", user=user),
        LOAD: case("@aiocache.cached memory", "await loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("aiocache memory, set", "await do(key, VALUE, ttl=TTL)", do=cache.set, VALUE=VALUE, TTL=TTL),
    }
    await cache.clear()


RIVALS = (
    Rival("functools.lru_cache", "", lru_cache),
    Rival("cachetools", "cachetools", cachetools),
    Rival("cachebox", "cachebox", cachebox),
    Rival("moka-py", "moka-py", moka),
    Rival("theine", "theine", theine),
    Rival("dogpile.cache memory", "dogpile.cache", dogpile),
    Rival("aiocache memory", "aiocache", aiocache),
)
