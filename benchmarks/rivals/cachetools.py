"""cachetools: TTLCache and LRUCache, without a lock, as they come; their users have to take one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import (
    DECORATED,
    HIT,
    HIT_LRU,
    LOAD,
    ROOM,
    SET,
    TTL,
    VALUE,
    Cases,
    Rival,
    Stage,
    case,
    fill_mapping,
    load,
    new_keys,
)


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """TTLCache, its decorator, and LRUCache."""
    import cachetools

    def made() -> cachetools.TTLCache[Any, Any]:
        return cachetools.TTLCache(ROOM, TTL)

    cache, user = made(), cachetools.cached(made())(stage.once())
    lru: cachetools.LRUCache[Any, Any] = cachetools.LRUCache(ROOM)
    for key, value in stage.values.items():
        cache[key] = lru[key] = value
        user(key)
    loading = cachetools.cached(made())(load)
    yield {
        HIT: case("cachetools.TTLCache.get", "get(key)", get=cache.get),
        HIT_LRU: case("cachetools.LRUCache.get", "get(key)", get=lru.get),
        DECORATED: case("@cachetools.cached(TTLCache)", "user(key)", user=user),
        LOAD: case("@cachetools.cached(TTLCache)", "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("cachetools.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


async def fill_ttl(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill a TTLCache."""
    import cachetools

    return await fill_mapping(cachetools.TTLCache(len(keys), TTL), keys, values)


async def fill_lru(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill an LRUCache."""
    import cachetools

    return await fill_mapping(cachetools.LRUCache(len(keys)), keys, values)


TTL_CACHE = "cachetools.TTLCache"
RIVAL = Rival("cachetools", "cachetools", cases, {"cachetools.LRUCache": fill_lru, TTL_CACHE: fill_ttl})
