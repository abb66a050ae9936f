"""Coredis with its TrackingCache over CLIENT TRACKING: raw bytes, which are not decoded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.harness.timing import Case
from benchmarks.rivals.base import HIT, ROOM, WIRE_SET, Cases, Rival, Stage


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """Hits are proven by its own counter."""
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


RIVAL = Rival("coredis TrackingCache", "coredis", cases)
