"""moka-py (Rust), with a ttl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """Its cache and its decorator."""
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


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill its cache."""
    import moka_py

    cache: Any = moka_py.Moka(len(keys), ttl=TTL)
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value)
    return cache


RIVAL = Rival("moka-py", "moka-py", cases, {"moka-py": fill})
