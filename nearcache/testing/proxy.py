"""A TCP proxy between a client and a server, whose faults a test starts and stops, and a port that never answers.

Each method takes effect before it returns. Bytes that are held or late keep their order and are not lost, as on a real
network; only a cut loses them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

from nearcache.testing.links import Breaker, Direction, Predicate, everyone
from nearcache.transport.embedded import HOST, free_port

T = TypeVar("T")

UNREAD = 64 * 1024
"""Bytes that the kernel may take in on a connection that is not read."""


class FaultProxy:
    """A TCP proxy on 127.0.0.1 in front of a server, in a thread of its own; its faults begin and end at once.

    Args:
        target_port: where connections are passed on to; it may be set anew, for the connections to come.
        target_host: the same.

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
        self.port = free_port()
        """Where the proxy listens."""
        self.accepted = 0
        """How many connections there have ever been."""
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._links: set[Breaker] = set()
        self._late: dict[Direction, tuple[float, Predicate]] = {}
        self._held: dict[Direction, Predicate] = {}
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The proxy's address as a Redis URL, for a server that asks for no password."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

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
        """Deliver the server's bytes later than they come.

        Args:
            seconds: by so much; 0 ends the delay, for what is under way, too.
            only: which connections: ``everyone``, ``subscribers`` (the bus), ``commands``, or a function of yours.
        """
        self._do(self._set(self._late, "replies", (seconds, only) if seconds else None))

    def delay_requests(self, seconds: float, only: Predicate = everyone) -> None:
        """The same for the bytes of the clients."""
        self._do(self._set(self._late, "requests", (seconds, only) if seconds else None))

    def hold(self, direction: Direction = "replies", only: Predicate = everyone) -> None:
        """Deliver nothing in this direction until ``release``; connections stay open.

        Args:
            direction: "replies" come from the server, "requests" from the clients. Held replies are an outcome that is
                unknown: the server has done what was asked.
            only: as in ``delay_replies``.
        """
        self._do(self._set(self._held, direction, only))

    def release(self) -> None:
        """Deliver what was held, in order."""
        self._do(self._release())

    def cut(self) -> None:
        """Close all connections and refuse new ones until ``heal``."""
        self._do(self._cut())

    def cut_connections(self, only: Predicate = everyone) -> None:
        """Close the connections that are open now; new ones are welcome."""
        self._do(self._cut_connections(only))

    @contextmanager
    def not_reading(self, only: Predicate = everyone) -> Iterator[int]:
        """Take nothing from the server on the connections that are open now; new ones are read.

        What the server sends piles up in its own buffers, as with a client that has stopped.

        Yields:
            How many connections are left unread.
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

    # ------------------------------------------------------------ on the proxy's thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, rules: dict[Direction, T], direction: Direction, rule: T | None) -> None:
        rules.pop(direction, None)
        if rule is not None:
            rules[direction] = rule
        self._wake()

    async def _release(self) -> None:
        self._held.clear()
        self._wake()

    async def _heal(self) -> None:
        self._late.clear()
        await self._release()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            # Closed while it accepts, it would leave the transport of the connection to nobody.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0)
            server.close()
        await self._cut_connections(everyone)

    async def _cut_connections(self, only: Predicate) -> None:
        for link in [link for link in self._links if only(link.head)]:
            await link.close()

    async def _stall(self, only: Predicate) -> list[asyncio.ReadTransport]:
        transports = [link.server_side for link in self._links if only(link.head)]
        stalled = [transport for transport in transports if transport is not None and not transport.is_closing()]
        for transport in stalled:
            # Set, it is not made larger any more: else the kernel would take tens of MB.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
            transport.pause_reading()
        return stalled

    async def _go_on(self, stalled: list[asyncio.ReadTransport]) -> None:
        for transport in stalled:
            transport.resume_reading()

    async def _end_tasks(self) -> None:
        """A connection that ended while it was cut may not have seen its pumps end."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _wake(self) -> None:
        """Let every pump look at the rules again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # cut between the connection and this task
            writer.transport.abort()
            return
        self.accepted += 1
        link = Breaker(writer, self.due, (self.target_host, self.target_port))
        self._links.add(link)
        link.task = asyncio.current_task()
        with suppress(OSError, asyncio.CancelledError):
            await link.run(reader)
        self._links.discard(link)

    async def due(self, link: Breaker, direction: Direction, arrived: float) -> None:
        """Wait until bytes that arrived then may go on, by the rules as they are at each moment."""
        while True:
            seconds, late = self._late.get(direction, (0.0, everyone))
            left = arrived + seconds - self._loop.time() if late(link.head) else 0.0
            held = self._held.get(direction)
            if held is not None and held(link.head):
                left = 3600.0
            if left <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections and never answers, nor closes them.

    Yields:
        The port.
    """
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(128)
        yield int(listener.getsockname()[1])
