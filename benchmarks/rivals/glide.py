"""Valkey GLIDE with its client-side cache, kept by the server's invalidation messages: raw bytes, not decoded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.harness.timing import Case
from benchmarks.rivals.base import HIT, ROOM, TTL, WIRE_SET, Cases, Rival, Stage


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """Hits are proven by its own metrics."""
    import glide

    cache = glide.ClientSideCache.create(ROOM, TTL * 1000, enable_metrics=True, server_assisted=True)
    client = await glide.GlideClient.create(
        glide.GlideClientConfiguration(
            [glide.NodeAddress("127.0.0.1", stage.server.port)],
            client_side_cache=cache,
            protocol=glide.ProtocolVersion.RESP3,
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


RIVAL = Rival("Valkey GLIDE client-side cache", "valkey-glide", cases)
