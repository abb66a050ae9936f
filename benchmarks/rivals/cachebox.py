"""cachebox (Rust): TTLCache and LRUCache; its decorator copies what it returns unless it is told not to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import (
    COPIES,
    COPIES_LRU,
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
    fill_mapping,
    load,
    new_keys,
)

COPYING, COPYING_LRU = "@cachebox.cached(TTLCache)", "@cachebox.cached(LRUCache)"
NO_COPY = f"{COPYING}, no copy"


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """TTLCache; its decorator by its default and without the copy, which no other peer makes."""
    import cachebox

    def made() -> Any:
        return cachebox.TTLCache(ROOM, TTL)

    cache = made()
    user = cachebox.cached(made(), postprocess=None)(stage.once())
    copying, copying_lru = cachebox.cached(made())(stage.once()), cachebox.cached(cachebox.LRUCache(ROOM))(stage.once())
    for key, value in stage.values.items():
        cache[key] = value
        for function in (user, copying, copying_lru):
            function(key)
    loading = cachebox.cached(made(), postprocess=None)(load)
    yield {
        HIT: case("cachebox.TTLCache.get", "get(key)", get=cache.get),
        DECORATED: case(NO_COPY, "user(key)", user=user),
        COPIES: case(COPYING, "copying(key)", copying=copying),
        COPIES_LRU: case(COPYING_LRU, "copying(key)", copying=copying_lru),
        LOAD: case(NO_COPY, "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("cachebox.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill a TTLCache."""
    import cachebox

    return await fill_mapping(cachebox.TTLCache(len(keys), TTL), keys, values)


RIVAL = Rival("cachebox", "cachebox", cases, {"cachebox.TTLCache": fill})
