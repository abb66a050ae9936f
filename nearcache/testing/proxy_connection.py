"""One connection through a FaultProxy, and the predicates that select connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, cast

Direction: TypeAlias = Literal["requests", "replies"]

Predicate: TypeAlias = Callable[[bytes], bool]
"""Selects a connection by the first HEAD bytes that its client has sent so far."""

HEAD = 32_768


def everyone(_head: bytes) -> bool:
    """Select every connection."""
    return True


def subscribers(head: bytes) -> bool:
    """Select the connections that have subscribed: those of the bus."""
    return b"SUBSCRIBE" in head.upper()


def commands(head: bytes) -> bool:
    """Select the connections that have not subscribed."""
    return not subscribers(head)


Due: TypeAlias = "Callable[[ProxyConnection, Direction, float], Awaitable[int]]"


class ProxyConnection:
    """One connection through a proxy: a pump for each direction.

    Args:
        client: the side that was accepted.
        due: waits until bytes that arrived at some time of the loop may be delivered; how many of them.
        target: host and port of the server.
    """

    def __init__(self, client: asyncio.StreamWriter, due: Due, target: tuple[str, int]) -> None:
        self.head: bytes = b""
        self.task: asyncio.Task[None] | None = None
        self.server_side: asyncio.ReadTransport | None = None
        self._due = due
        self._target = target
        self._writers = [client]

    async def run(self, client: asyncio.StreamReader) -> None:
        """Deliver bytes in both directions until one side closes; then close both."""
        try:
            reader, writer = await asyncio.open_connection(*self._target)
            self._writers.append(writer)
            self.server_side = cast("asyncio.Transport", writer.transport)
            pumps = [
                asyncio.create_task(self._pump(client, writer, "requests")),
                asyncio.create_task(self._pump(reader, self._writers[0], "replies")),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for writer in self._writers:
                writer.transport.abort()

    async def close(self) -> None:
        """Close both sides at once; bytes that were not delivered yet are lost."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Read on while earlier bytes wait, so that a delay does not reduce the throughput."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(waiting, writer, direction))
        try:
            data = b"?"
            while data:
                data = await reader.read(65536)
                if direction == "requests" and len(self.head) < HEAD:
                    self.head += data[: HEAD - len(self.head)]
                waiting.put_nowait((asyncio.get_running_loop().time(), data))
            await sender
        finally:
            sender.cancel()
            await asyncio.wait([sender])

    async def _send(
        self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        writer.transport.set_write_buffer_limits(0)  # drain() then waits for delivery, so close loses nothing
        data = b"?"
        while data:
            arrived, data = await waiting.get()
            rest = data
            while True:
                size = await self._due(self, direction, arrived)
                writer.write(rest[:size])
                await writer.drain()
                rest = rest[size:]
                if not rest:
                    break
