"""Cashews: its memory backend, and its client-side cache over a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
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
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    Rival,
    Stage,
    case,
    load_async,
    new_keys,
)


def _rival(name: str, url: Callable[[Stage], str], *, client_side: bool, **more: Any) -> Rival:
    @asynccontextmanager
    async def cases(stage: Stage) -> AsyncIterator[Cases]:
        from cashews import Cache

        cache: Any = Cache()
        cache.setup(url(stage), **({"client_side": True} if client_side else {}))
        await cache.init()
        once = stage.once()

        @cache(ttl=TTL, key="user:{key}")  # type: ignore[untyped-decorator]
        async def user(key: str) -> Any:
            return once(key)

        try:
            for key, value in stage.values.items():
                await cache.set(key, value, expire=TTL)
                await user(key)
            loading, fresh = cache(ttl=TTL, key="load:{_key}")(load_async), new_keys()
            putting = case(f"{name}, set", "await do(key, VALUE, expire=TTL)", do=cache.set, VALUE=VALUE, TTL=TTL)
            yield {
                HIT: case(f"{name}, get", "await get(key)", get=cache.get),
                DECORATED: case(f"@{name}", "await user(key)", user=user),
                WIRE_LOAD if client_side else LOAD: case(
                    f"@{name}", "await loading(fresh())", loading=loading, fresh=fresh
                ),
                WIRE_SET if client_side else SET: putting,
            }
        finally:
            await cache.close()

    return Rival(name, "cashews", cases, **more)


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill its memory backend."""
    from cashews import Cache

    cache: Any = Cache()
    cache.setup(f"mem://?size={len(keys)}")
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, expire=TTL)
    return cache


MEMORY = _rival("cashews mem", lambda _: f"mem://?size={ROOM}", client_side=False, fills={"cashews mem": fill})
CLIENT_SIDE = _rival("cashews client_side", lambda stage: stage.server.url, client_side=True)
