"""Cachekit: its decorator with L1 over a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import DECORATED, TTL, WIRE_LOAD, Cases, Rival, Stage, case, load, new_keys


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """A second call of the function raises, so every measured call is a hit; by its own count, in L1."""
    import cachekit
    from cachekit.backends.redis import RedisBackend

    decorate: Any = cachekit.cache(backend=RedisBackend(stage.server.url), ttl=TTL)
    user, loading = decorate(stage.once()), decorate(load)
    for key in stage.values:
        user(key)
    yield {
        DECORATED: case("@cachekit.cache, L1", "user(key)", user=user),
        WIRE_LOAD: case("@cachekit.cache", "loading(fresh())", loading=loading, fresh=new_keys()),
    }
    if (found := user.cache_info()).l2_hits:
        raise RuntimeError(f"cachekit went past its L1: {found}")


RIVAL = Rival("cachekit", "cachekit", cases)
