"""A TCP proxy between a client and a server, whose faults a test starts and stops, and a port that never answers.

Each method takes effect before it returns. Held and delayed bytes keep their order and are not lost, as on a real
network; only a cut loses them.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

from nearcache.testing.proxy_connection import Direction, Predicate, ProxyConnection, everyone
from nearcache.transport.embedded import HOST, free_port

T = TypeVar("T")

UNREAD = 64 * 1024
"""Bytes that the kernel may buffer on a connection that is not read."""
PIECE = 0.01
"""Seconds of a slow link whose bytes are delivered at once."""


class FaultProxy:
    """A TCP proxy on 127.0.0.1 in front of a server, in a thread of its own; its faults begin and end at once.

    Args:
        target_port: the server's port; it may be set to another one, for new connections.
        target_host: the server's host; as ``target_port``.

    ::

        with FaultProxy(6379) as proxy, NearCache.from_url(proxy.url) as cache:
            proxy.cut()  # the server is away
            assert cache.get_or_set("user:7", lambda: "Ada") == "Ada"
            proxy.heal()
            assert cache.wait_healthy()
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, target_port: int, target_host: str = HOST) -> None:
        self.target_port = target_port
        self.target_host = target_host
        self.port: int = free_port()
        """The port on which the proxy listens."""
        self.accepted: int = 0
        """The number of connections since the start."""
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[ProxyConnection] = set()
        self._late: dict[Direction, tuple[float, Predicate]] = {}
        self._held: dict[Direction, Predicate] = {}
        self._changed = asyncio.Event()
        self._rate = self._free_at = 0.0

    @property
    def url(self) -> str:
        """The proxy's address as a Redis URL, for a server that asks for no password."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """The number of connections that are open now."""
        return len(self._connections)

    def start(self) -> Self:
        """Listen."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.heal()
        return self

    def stop(self) -> None:
        """Close everything and end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.cut()
        self._do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        self._loop.close()

    def delay_replies(self, seconds: float, only: Predicate = everyone) -> None:
        """Delay the bytes of the server.

        Args:
            seconds: the delay; 0 ends it, also for bytes that are being delayed.
            only: the connections: ``everyone``, ``subscribers`` (the bus), ``commands``, or a function of yours.
        """
        self._do(self._set(self._late, "replies", (seconds, only) if seconds else None))

    def delay_requests(self, seconds: float, only: Predicate = everyone) -> None:
        """Delay the bytes of the clients; the arguments are those of ``delay_replies``."""
        self._do(self._set(self._late, "requests", (seconds, only) if seconds else None))

    def limit_replies(self, bytes_per_second: float) -> None:
        """Deliver no more of the server's bytes per second, on all connections together, in small pieces.

        Args:
            bytes_per_second: the limit; 0 ends it.
        """
        self._do(self._limit(bytes_per_second))

    def hold(self, direction: Direction = "replies", only: Predicate = everyone) -> None:
        """Deliver nothing in this direction until ``release``; connections stay open.

        Args:
            direction: "replies" of the server, or "requests" of the clients. With held replies the outcome of a
                command is unknown to its client: the server has executed it.
            only: as in ``delay_replies``.
        """
        self._do(self._set(self._held, direction, only))

    def release(self) -> None:
        """Deliver the held bytes, in order."""
        self._do(self._release())

    def cut(self) -> None:
        """Close all connections and refuse new ones until ``heal``."""
        self._do(self._cut())

    def cut_connections(self, only: Predicate = everyone) -> None:
        """Close the connections that are open now; new ones are accepted."""
        self._do(self._cut_connections(only))

    @contextmanager
    def not_reading(self, only: Predicate = everyone) -> Iterator[int]:
        """Read nothing from the server on the connections that are open now; new ones are read.

        The server's output piles up in its own buffers, as with a client that has stopped.

        Yields:
            The number of connections that are not read.
        """
        stalled = self._do(self._stall(only))
        try:
            yield len(stalled)
        finally:
            self._do(self._go_on(stalled))

    def heal(self) -> None:
        """End every fault: listen on the same port again, deliver at once."""
        self._do(self._heal())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ------------------------------------------------------------ on the thread of the proxy

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, rules: dict[Direction, T], direction: Direction, rule: T | None) -> None:
        rules.pop(direction, None)
        if rule is not None:
            rules[direction] = rule
        self._wake()

    async def _limit(self, bytes_per_second: float) -> None:
        self._rate, self._free_at = bytes_per_second, 0.0
        self._wake()

    async def _release(self) -> None:
        self._held.clear()
        self._wake()

    async def _heal(self) -> None:
        self._late.clear()
        self._rate = 0.0
        await self._release()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            # A server that is closed while it accepts would leave the connection's transport open.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0)
            server.close()
        await self._cut_connections(everyone)

    async def _cut_connections(self, only: Predicate) -> None:
        for connection in [connection for connection in self._connections if only(connection.head)]:
            await connection.close()

    async def _stall(self, only: Predicate) -> list[asyncio.ReadTransport]:
        transports = [connection.server_side for connection in self._connections if only(connection.head)]
        stalled = [transport for transport in transports if transport is not None and not transport.is_closing()]
        for transport in stalled:
            # The kernel does not enlarge a size that was set; else it would buffer tens of MB.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
            transport.pause_reading()
        return stalled

    async def _go_on(self, stalled: list[asyncio.ReadTransport]) -> None:
        for transport in stalled:
            transport.resume_reading()

    async def _end_tasks(self) -> None:
        """End the pumps of connections that ended by themselves during a cut."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _wake(self) -> None:
        """Let every pump check the rules again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # cut between the connection and this task
            writer.transport.abort()
            return
        self.accepted += 1
        connection = ProxyConnection(writer, self.due, (self.target_host, self.target_port))
        self._connections.add(connection)
        connection.task = asyncio.current_task()
        with suppress(OSError, asyncio.CancelledError):
            await connection.run(reader)
        self._connections.discard(connection)

    async def due(self, connection: ProxyConnection, direction: Direction, arrived: float) -> int:
        """Wait until the rules, as they are at each moment, let bytes that arrived then be delivered; how many."""
        while True:
            size = max(1, int(self._rate * PIECE)) if self._rate and direction == "replies" else sys.maxsize
            seconds, late = self._late.get(direction, (0.0, everyone))
            left = arrived + seconds - self._loop.time() if late(connection.head) else 0.0
            held = self._held.get(direction)
            if held is not None and held(connection.head):
                left = 3600.0
            now = self._loop.time()
            if left <= 0 and size < sys.maxsize:
                left = self._free_at - now
            if left <= 0:
                if size < sys.maxsize:
                    self._free_at = max(now - PIECE, self._free_at) + size / self._rate
                return size
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.1 that accepts connections and never answers, nor closes them.

    Yields:
        The port.
    """
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(128)
        yield int(listener.getsockname()[1])
