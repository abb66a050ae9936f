"""A worker process of the picture of the first page: it reads one row through a library's cache, over and over.

``python -m benchmarks.pictures.worker LIBRARY URL DATABASE SECONDS`` prints a line of JSON for each read: the moment,
by the monotonic clock, which the processes of a machine share, and the value. A line "write" on its input lets it
change the row and invalidate it, as the documentation of the library says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

TTL = 600
PAUSE = 0.02
"""Seconds between two reads."""
Row: TypeAlias = Callable[[], str]
Worker: TypeAlias = tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]
"""Reads the row through the cache, and invalidates it."""


@asynccontextmanager
async def nearcache(url: str, row: Row) -> AsyncIterator[Worker]:
    """This library."""
    from nearcache import AsyncNearCache

    async with AsyncNearCache.from_url(url, namespace="shop", ttl=TTL) as cache:

        @cache.cached("user:{id}")
        async def user(id: int) -> str:  # noqa: A002, ARG001  # the row is 7's
            return row()

        yield lambda: user(7), lambda: user.invalidate(7)


@asynccontextmanager
async def cashews(url: str, row: Row) -> AsyncIterator[Worker]:
    """Its client-side cache, which listens to the server's notifications."""
    from cashews import Cache

    cache: Any = Cache()
    cache.setup(url, client_side=True)
    await cache.init()

    @cache(ttl=TTL, key="user:{id}")  # type: ignore[untyped-decorator]
    async def user(id: int) -> str:  # noqa: A002, ARG001
        return row()

    yield lambda: user(7), lambda: cache.delete("user:7")
    await cache.close()


@asynccontextmanager
async def cachekit(url: str, row: Row) -> AsyncIterator[Worker]:
    """With its listener for invalidations."""
    os.environ |= {"REDIS_URL": url, "CACHEKIT_REDIS_URL": url, "CACHEKIT_INVALIDATION_LISTENER_ENABLED": "true"}
    from cachekit import cache

    @cache(ttl=TTL, namespace="shop")  # type: ignore[untyped-decorator]
    def user(id: int) -> str:  # noqa: A002, ARG001
        return row()

    async def read() -> Any:
        return user(7)

    async def invalidate() -> Any:
        return user.invalidate_cache(7)

    yield read, invalidate


@asynccontextmanager
async def glide(url: str, row: Row) -> AsyncIterator[Worker]:
    """Valkey GLIDE's client-side cache, assisted by the server (CLIENT TRACKING)."""
    from glide import ClientSideCache, GlideClient, GlideClientConfiguration, NodeAddress

    place = urlsplit(url)
    local = ClientSideCache.create(1024, TTL * 1000, server_assisted=True)
    address = NodeAddress(place.hostname or "", place.port or 6379)
    client = await GlideClient.create(GlideClientConfiguration([address], client_side_cache=local))

    async def read() -> Any:
        found = await client.get("user:7")
        if found is None:
            await client.set("user:7", row())
            return row()
        return found.decode()

    yield read, lambda: client.delete(["user:7"])
    await client.close()


LIBRARIES = {"nearcache": nearcache, "cashews": cashews, "cachekit": cachekit, "glide": glide}


async def main(library: str, url: str, database: Path, seconds: float) -> None:
    """Read until the time is over; write when told to."""
    until = time.monotonic() + seconds
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline()))
    async with LIBRARIES[library](url, database.read_text) as (read, invalidate):
        while time.monotonic() < until:
            if not lines.empty() and lines.get_nowait().strip() == "write":
                database.write_text("new")  # noqa: ASYNC240  # the stand-in for a query
                await invalidate()
                print(json.dumps(["written", time.monotonic()]), flush=True)
            before = time.monotonic()
            try:
                value = await read()
            except Exception as error:  # noqa: BLE001  # a read that raises is part of the picture
                value = f"{type(error).__name__}"
            print(json.dumps([before, value]), flush=True)
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
