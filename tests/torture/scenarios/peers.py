"""Near caches of other libraries under the same faults: for how long a reader serves what was overwritten.

A reader holds a value in its process, behind a proxy; a writer overwrites it on the server, directly, while something
is wrong with the reader's link. Then the reader is asked every 10 ms. Only this library is judged; a peer that is not
installed (``pip install coredis valkey-glide cachekit``) is named as NOT RUN.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from nearcache import AsyncNearCache
from nearcache.testing import FaultProxy, commands, everyone
from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture import cachekit_peer

MAX_STALENESS = 1.0
SLACK = 0.25
"""Seconds by which a read may come later than its value was judged."""
WATCHED = 4.0
"""Seconds for which the reader is asked."""
OLD, NEW = "1", "2"


@dataclass
class Pair:
    """A reader behind the proxy, and a writer beside it."""

    read: Callable[[str], Awaitable[str | None]]
    write: Callable[[str, str], Awaitable[object]]


Opened = Callable[[FaultProxy, EmbeddedServer], AbstractAsyncContextManager[Pair]]


@asynccontextmanager
async def _ours(proxy: FaultProxy, server: EmbeddedServer) -> AsyncIterator[Pair]:
    options: Any = {"namespace": "peers", "max_staleness": MAX_STALENESS}
    async with (
        AsyncNearCache.from_url(proxy.url, **options) as reader,
        AsyncNearCache.from_url(server.url, **options) as writer,
    ):

        async def write(key: str, value: str) -> None:
            if not await writer.set(key, value):  # after a restart its connections are made anew
                raise ConnectionError

        await reader.wait_healthy(5)
        yield Pair(reader.get, write)


@asynccontextmanager
async def _coredis(proxy: FaultProxy, server: EmbeddedServer) -> AsyncIterator[Pair]:
    import coredis
    from coredis.patterns.cache import LRUCache

    def text(value: Any) -> str | None:
        return value.decode() if isinstance(value, bytes) else value

    async with (
        coredis.Redis(host=HOST, port=proxy.port, cache=LRUCache(), connect_timeout=1, stream_timeout=1) as reader,
        coredis.Redis(host=HOST, port=server.port) as writer,
    ):

        async def read(key: str) -> str | None:
            return text(await reader.get(key))

        yield Pair(read, writer.set)


@asynccontextmanager
async def _glide(proxy: FaultProxy, server: EmbeddedServer) -> AsyncIterator[Pair]:
    from glide import ClientSideCache, GlideClient, GlideClientConfiguration, NodeAddress

    kept = ClientSideCache.create(max_cache_kb=1024, entry_ttl_ms=0, server_assisted=True)
    there, here = [NodeAddress(HOST, proxy.port)], [NodeAddress(HOST, server.port)]
    reader = await GlideClient.create(GlideClientConfiguration(there, request_timeout=1000, client_side_cache=kept))
    writer = await GlideClient.create(GlideClientConfiguration(here))

    async def read(key: str) -> str | None:
        value = await reader.get(key)
        return value.decode() if isinstance(value, bytes) else value

    try:
        yield Pair(read, writer.set)
    finally:
        await reader.close()
        await writer.close()


@asynccontextmanager
async def _cachekit(proxy: FaultProxy, server: EmbeddedServer) -> AsyncIterator[Pair]:
    rows: dict[str, str] = {}

    async def read(key: str) -> str | None:
        found: str | None = await reader.ask(what="read", key=key, row=rows.get(key))
        return found

    async def write(key: str, value: str) -> None:
        rows[key] = value
        if await writer.ask(what="invalidate", key=key, row=value) != "succeeded":
            raise ConnectionError

    async with cachekit_peer.running(proxy.url) as reader, cachekit_peer.running(server.url) as writer:
        await read("first")  # starts the listener
        yield Pair(read, write)


PEERS: Mapping[str, tuple[str, Opened]] = {
    "nearcache": ("", _ours),
    "coredis, TrackingCache": ("coredis", _coredis),
    "Valkey GLIDE, server-assisted": ("valkey-glide", _glide),
    "cachekit, with its listener": ("cachekit", _cachekit),
}
MODULES = {"coredis": "coredis", "valkey-glide": "glide", "cachekit": "cachekit"}


class Trial:
    """One peer in one situation."""

    def __init__(self, pair: Pair, proxy: FaultProxy, server: EmbeddedServer) -> None:
        self._pair, self._proxy, self._server = pair, proxy, server
        self._acknowledged = 0.0

    async def whole(self) -> None:
        """Nothing is wrong."""
        await self._overwrite("whole")

    async def cut(self) -> None:
        """The connections end, and can't be made while the value is overwritten."""
        await self._warm("cut")
        self._proxy.cut()
        await self._overwrite("cut", warm=False)
        self._proxy.heal()

    async def silent(self) -> None:
        """The connections stay open, and bring nothing any more."""
        await self._warm("silent")
        self._proxy.hold("replies", everyone)
        await self._overwrite("silent", warm=False)

    async def overtaken(self) -> None:
        """The answer to a read is late, and the message about the write is not."""
        await self._warm("another")  # the connections are made
        await self._pair.write("overtaken", OLD)
        self._proxy.delay_replies(0.4, commands)
        reading = asyncio.create_task(self._read("overtaken"))
        await asyncio.sleep(0.15)
        await self._overwrite("overtaken", warm=False)
        with suppress(Exception):  # a reader may refuse what it can't keep
            await reading
        self._proxy.heal()

    async def restarted(self) -> None:
        """The server is killed and comes back, empty."""
        await self._warm("restarted")
        await asyncio.to_thread(self._server.restart)
        for _ in range(100):
            with suppress(Exception):
                await self._overwrite("restarted", warm=False)
                return
            await asyncio.sleep(0.02)

    async def served_old(self, key: str) -> tuple[float, int]:
        """Seconds after the acknowledgement at which the old value was last returned, and how often a read raised."""
        last, raised = 0.0, 0
        while (age := time.monotonic() - self._acknowledged) < WATCHED:
            try:
                if await self._read(key) == OLD:
                    last = age
            except Exception:
                raised += 1
            await asyncio.sleep(0.01)
        return last, raised

    async def _read(self, key: str) -> str | None:
        return await asyncio.wait_for(self._pair.read(key), 2.0)

    async def _warm(self, key: str) -> None:
        await self._pair.write(key, OLD)
        for _ in range(5):
            if await self._read(key) != OLD:
                raise RuntimeError("the reader does not see what was written")
            await asyncio.sleep(0.02)

    async def _overwrite(self, key: str, *, warm: bool = True) -> None:
        if warm:
            await self._warm(key)
        await self._pair.write(key, NEW)
        self._acknowledged = time.monotonic()


SITUATIONS = {
    "whole": "link whole",
    "overtaken": "late answer",
    "cut": "cut, back at once",
    "silent": "silent link",
    "restarted": "server restarted",
}


def show(report: Report) -> bool:
    """Run all, print and keep; whether this library kept its bound."""
    rows, held = [], True
    figures: dict[str, dict[str, float]] = {}
    for name, (package, opened) in PEERS.items():
        if package and importlib.util.find_spec(MODULES[package]) is None:
            rows.append([name, *(["NOT RUN"] * len(SITUATIONS))])
            print(f"NOT RUN: {name}: pip install {package}", flush=True)
            continue
        label = f"{name} {metadata.version(package)}" if package else name
        cells, figures[label] = [], {}
        for situation in SITUATIONS:
            try:
                last, raised = asyncio.run(_try(opened, situation))
            except Exception as error:  # a peer's own; ours must not raise
                held &= bool(package)
                cells.append(type(error).__name__)
                continue
            figures[label][situation] = last
            late = last > WATCHED - SLACK
            cells.append(("to the end" if late else f"{last:.2f}") + (f" ({raised} raised)" if raised else ""))
            held &= bool(package) or last <= MAX_STALENESS + SLACK
        rows.append([label, *cells])
    notes = [
        f"seconds after the write at which the old value was served last, of {WATCHED:g} watched; 0: never",
        f"ours: max_staleness {MAX_STALENESS:g} s; GLIDE and cachekit without a ttl that ends meanwhile",
    ]
    report.show(Table("Old values served by near caches", ["cache", *SITUATIONS.values()], rows, notes))
    report.keep("peers", figures)
    return held


async def _try(opened: Opened, situation: str) -> tuple[float, int]:
    """A server, a proxy and a pair of their own."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        proxy = stack.enter_context(FaultProxy(server.port))
        trial = Trial(await stack.enter_async_context(opened(proxy, server)), proxy, server)
        await getattr(trial, situation)()
        found = await trial.served_old(situation)
        proxy.heal()
        return found
