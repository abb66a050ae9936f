"""Outages as objects that a test starts and stops: a proxy, an HTTP server, a port that never answers.

A Proxy stands between a client and a server on this machine. Each method takes effect before it returns. Bytes that are
held or late keep their order and are not lost, as on a real network; only a cut loses them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, TypeAlias, TypeVar

from nearcache.remote.embedded import HOST, free_port

T = TypeVar("T")

Direction: TypeAlias = Literal["requests", "replies"]

Predicate: TypeAlias = Callable[[bytes], bool]
"""Tells connections apart by the first HEAD bytes that the client has sent so far."""

HEAD = 4096


def everyone(_head: bytes) -> bool:
    """Every connection."""
    return True


def subscribers(head: bytes) -> bool:
    """Connections that have subscribed: the bus."""
    return b"SUBSCRIBE" in head.upper()


def commands(head: bytes) -> bool:
    """Connections that have not subscribed."""
    return not subscribers(head)


class Proxy:
    """A TCP proxy in front of a port of this machine, in a thread of its own.

    Args:
        target_port: where connections are passed on to.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = free_port()
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tests-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._late: dict[Direction, tuple[float, Predicate]] = {}
        self._held: dict[Direction, Predicate] = {}
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The proxy's address as a Redis URL."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections are open now; ``accepted`` is how many there have ever been."""
        return len(self._links)

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self.heal()
        return self

    def stop(self) -> None:
        """Close everything and end the thread."""
        self.cut()
        self._do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay_replies(self, seconds: float, only: Predicate = everyone) -> None:
        """Deliver the server's bytes this much later than they come; 0 ends it, for what is under way too."""
        self._do(self._set(self._late, "replies", (seconds, only) if seconds else None))

    def delay_requests(self, seconds: float, only: Predicate = everyone) -> None:
        """The same for the client's bytes."""
        self._do(self._set(self._late, "requests", (seconds, only) if seconds else None))

    def hold(self, direction: Direction = "replies", only: Predicate = everyone) -> None:
        """Deliver nothing in this direction until ``release``; connections stay open."""
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
        link = _Link(self, writer)
        self._links.add(link)
        link.task = asyncio.current_task()
        with suppress(OSError, asyncio.CancelledError):
            await link.run(reader)
        self._links.discard(link)

    async def due(self, link: _Link, direction: Direction, arrived: float) -> None:
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


class _Link:
    """One connection through the proxy: two pumps."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self.head = b""
        self.task: asyncio.Task[None] | None = None
        self._proxy = proxy
        self._writers = [client]

    async def run(self, client: asyncio.StreamReader) -> None:
        """Pass bytes on both ways until one side ends; then close both."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._proxy.target_port)
            self._writers.append(writer)
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
        """Close both sides at once, with what is on the way."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Read on while earlier bytes wait, so that a delay is a delay and not a slow line."""
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
        writer.transport.set_write_buffer_limits(0)  # drain() means delivered, so that closing loses nothing
        data = b"?"
        while data:
            arrived, data = await waiting.get()
            await self._proxy.due(self, direction, arrived)
            writer.write(data)
            await writer.drain()


class HttpServer:
    """A web server where Redis should be: it answers everything with a page."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((HOST, 0), _Page)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="tests-http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers, nor closes them."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(128)
        yield int(listener.getsockname()[1])


@contextmanager
def trickle(pause: float = 0.02) -> Iterator[int]:
    """A port that answers with a greeting that does not end, a byte at a time."""
    stop = threading.Event()
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(128)
        listener.settimeout(0.05)

        def drip(client: socket.socket) -> None:
            with client, suppress(OSError):
                while not stop.wait(pause):
                    client.sendall(b"+")

        def accept() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    threading.Thread(target=drip, args=[listener.accept()[0]], name="tests-drip").start()

        thread = threading.Thread(target=accept, name="tests-trickle")
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            thread.join()
