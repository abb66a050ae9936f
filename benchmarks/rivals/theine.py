"""Theine (Rust core), with a ttl; its decorator in the form that makes keys by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from benchmarks.rivals.base import (
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
    new_keys,
)

LIFETIME = timedelta(seconds=TTL)


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """Its cache and its decorator."""
    from theine import Cache, Memoize

    cache: Any = Cache(ROOM)
    user, loading = Memoize(ROOM, LIFETIME)(stage.once()), Memoize(ROOM, LIFETIME)(load)
    try:
        for key, value in stage.values.items():
            cache.set(key, value, LIFETIME)
            user(key)
        yield {
            HIT: case("theine.Cache.get", "get(key)", get=cache.get),
            DECORATED: case("@theine.Memoize", "user(key)", user=user),
            LOAD: case("@theine.Memoize", "loading(fresh())", loading=loading, fresh=new_keys()),
            SET: case("theine.Cache.set", "do(key, VALUE, ttl)", do=cache.set, VALUE=VALUE, ttl=LIFETIME),
        }
    finally:
        cache.close()


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill its cache."""
    from theine import Cache

    cache: Any = Cache(len(keys))
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value, LIFETIME)
    return cache


RIVAL = Rival("theine", "theine", cases, {"theine": fill})
