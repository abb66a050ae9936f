"""Aiocache's memory backend: a dict, without a bound, and a timer of the loop for each entry with a ttl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import (
    DECORATED,
    HIT,
    LOAD,
    SET,
    TTL,
    VALUE,
    Cases,
    Rival,
    Stage,
    case,
    load_async,
    new_keys,
)


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """Its cache and its decorator."""
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


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill its cache."""
    from aiocache import SimpleMemoryCache

    cache: Any = SimpleMemoryCache()
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, ttl=TTL)
    return cache


RIVAL = Rival("aiocache memory", "aiocache", cases, {"aiocache memory": fill})
