"""Sockets for threads: redis-py makes and connects a connection, then it is used directly.

redis-py does TLS, AUTH, HELLO and credential providers; past that its layers cost more than the command. The one
private name used is ``Connection._sock``; a test holds it against new releases.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
import weakref
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from nearcache.engine.ports import NotSent, RemoteFailed, RemoteTimeout
from nearcache.protocol.answers import BusItem
from nearcache.protocol.names import Names
from nearcache.transport import connecting, resp
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import BusProtocol, Handshake


class SocketConnection:
    """One connected socket. Whatever fails closes it."""

    __slots__ = ("_connection", "_decoder", "_own_timeout", "_poll", "_socket", "_timeout", "generation")

    def __init__(self, endpoint: Endpoint, timeout: float, introduction: Handshake | None = None) -> None:
        self._connection: Any = None
        self._decoder = resp.Decoder()
        self._timeout = timeout
        self._own_timeout: float | None = timeout
        self.generation = 0
        deadline = endpoint.arguments.get("socket_connect_timeout") or timeout
        connecting.within(deadline, endpoint.shown, lambda: self._connect(endpoint, introduction), self._shut)

    def _connect(self, endpoint: Endpoint, introduction: Handshake | None) -> None:
        """Connect, and ask who answers; a server that will not do closes the connection."""
        while True:
            self._connection = endpoint.connection()
            try:
                self._connection.connect()
                self._socket: socket.socket = self._connection._sock  # noqa: SLF001  # see the head of the file
                break
            except Exception as error:  # noqa: BLE001  # redis-py raises its own, sockets' and TLS' errors
                self.close()
                if not endpoint.refused(self._connection, error):
                    raise resp.translate(error) from None
        self._patience()
        if introduction is None:
            return
        asked_at = time.monotonic()
        answers = self.execute(introduction.packed, introduction.count)
        try:
            introduction.hear(answers, asked_at)
        except BaseException:
            self.close()
            raise

    def _patience(self) -> None:
        """Wait for the server for so long at most."""
        if not isinstance(self._socket, ssl.SSLSocket):
            # The kernel's timeouts: for Python's own, each call is preceded by a poll, and the GIL changes hands twice.
            timeval = struct.pack("ll", int(self._timeout), max(1, int(self._timeout % 1 * 1e6)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            self._own_timeout = None
        self._socket.settimeout(self._own_timeout)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def execute(self, packed: bytes, count: int) -> list[Any]:
        """Send, and receive ``count`` replies within the timeout."""
        try:
            self._socket.sendall(packed)
            replies = self._receive()
            if len(replies) < count:
                self._receive_rest(replies, count)
            if len(replies) > count:
                raise RemoteFailed("the server sent what nobody asked for")
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise resp.translate(error) from None
            raise
        return replies

    def send(self, packed: bytes) -> None:
        """Send."""
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(packed)
        except OSError as error:
            raise resp.translate(error) from None

    def receive(self, timeout: float) -> list[Any]:
        """What comes within ``timeout`` seconds, in pieces that leave turns to others; 0 takes only what is there."""
        try:
            self._socket.settimeout(timeout)
            return self._receive(resp.BUS_CHUNK)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return []
        except (OSError, ValueError) as error:
            raise resp.translate(error) from None

    def alive(self) -> bool:
        """Whether nothing has come that nobody asked for: on an idle connection that is the end of it."""
        if isinstance(self._socket, ssl.SSLSocket):  # tickets of TLS come unasked
            return True
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close; a receive that waits in another thread ends."""
        self._shut()
        self._connection.disconnect()

    def _shut(self) -> None:
        """End whatever waits for the socket, in whichever thread."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # it was not connected any more
                sock.shutdown(socket.SHUT_RDWR)

    def _receive(self, most: int = resp.CHUNK) -> list[Any]:
        data = self._socket.recv(most)
        if not data:
            raise RemoteFailed("the server closed the connection")
        return self._decoder.feed(data)

    def _receive_rest(self, replies: list[Any], count: int) -> None:
        """A large reply: the timeout is for all of it, not for each piece."""
        until = time.monotonic() + self._timeout
        while len(replies) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise RemoteTimeout("no answer in time")
            self._socket.settimeout(left)
            replies += self._receive()
        self._socket.settimeout(self._own_timeout)


class Permit:
    """The right to use one connection; it comes back by itself from who was interrupted before returning it."""

    __slots__ = ("_wire",)

    def __init__(self, wire: weakref.ref[ThreadWire]) -> None:
        self._wire = wire

    def __del__(self) -> None:
        wire = self._wire()
        if wire is not None:
            wire.allow()


class ThreadWire:
    """A bounded pool of connections, the last used first."""

    introduce: Handshake | None = None

    def __init__(self, endpoint: Endpoint, timeout: float, max_connections: int) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._idle: list[SocketConnection] = []
        # In C, unlike threading.Semaphore, whose locks a KeyboardInterrupt can leave locked.
        self._permits: SimpleQueue[Permit] = SimpleQueue()
        for _ in range(max_connections):
            self.allow()
        self._timed_out_at = 0.0
        self._generation = 0
        """Connections of an earlier one are not used again."""
        self._closed = False

    async def execute(self, packed: bytes, count: int = 1, *, repeatable: bool = False) -> list[Any]:
        """See Wire; never suspends."""
        permit = self._wait_for_a_permit()
        try:
            connection = self._take(checked=not repeatable)
            try:
                replies = connection.execute(packed, count)
            except RemoteFailed as failure:
                if isinstance(failure, RemoteTimeout):
                    self._timed_out_at = time.monotonic()
                self.discard_idle()  # they lead to the same server
                raise
            self._idle.append(connection)
            if self._closed:
                self.discard_idle()
            return replies
        finally:
            self._permits.put(permit)

    def allow(self) -> None:
        """Let one connection more be used at a time."""
        self._permits.put(Permit(weakref.ref(self)))

    def _wait_for_a_permit(self) -> Permit:
        """Wait for a connection's turn.

        Raises:
            NotSent: none came free in time, the server hung meanwhile, or the wire is closed.
        """
        if self._closed:
            raise NotSent("closed")
        try:
            return self._permits.get_nowait()
        except Empty:
            began = time.monotonic()
        try:
            permit = self._permits.get(timeout=self._timeout)
        except Empty:
            raise NotSent("every connection is in use; raise max_connections") from None
        if self._timed_out_at > began:  # what made others time out would make this one, too
            self._permits.put(permit)
            raise NotSent("the server hung while this waited for a connection")
        return permit

    async def connect(self) -> None:
        """Make a connection and keep it, unless there is an idle one."""
        if not self._idle:
            await self.execute(resp.pack((b"PING",)))

    async def pause(self, seconds: float) -> None:
        """Sleep in the caller's thread."""
        time.sleep(seconds)

    def discard_idle(self) -> None:
        """Close the connections that nobody uses; the others, when they come back."""
        self._generation += 1
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    async def close(self) -> None:
        """Close the idle connections now and the others when they come back."""
        self._closed = True
        self.discard_idle()

    def _take(self, *, checked: bool) -> SocketConnection:
        """An idle connection or a new one. A write, which nobody repeats, takes none that the server has closed."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.generation == self._generation and (not checked or connection.alive()):
                return connection
            connection.close()
        generation = self._generation
        try:
            connection = SocketConnection(self._endpoint, self._timeout, self.introduce)
        except RemoteFailed as failure:
            failure.sent = failure.answered = False
            raise
        connection.generation = generation
        return connection


class ThreadBus:
    """The subscribed connection, read by one thread."""

    def __init__(self, endpoint: Endpoint, timeout: float, names: Names) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._protocol = BusProtocol(names)
        self._connection: SocketConnection | None = None
        self._early: list[BusItem] = []
        self._closed = False

    async def open(self) -> None:
        """Connect and subscribe."""
        self._endpoint.try_anew()
        self._connection = SocketConnection(self._endpoint, self._timeout)
        if self._closed:  # by another thread while this one connected
            self.interrupt()
            raise RemoteFailed("closed")
        self._connection.send(self._protocol.subscribe)
        until = time.monotonic() + self._timeout
        while not self._protocol.confirmed:
            if time.monotonic() > until:
                raise RemoteTimeout("the subscription was not confirmed in time")
            self._early += self._protocol.parse(self._connection.receive(self._timeout))

    async def ask_greeting(self) -> None:
        """Send the question."""
        self._connected.send(self._protocol.request(self._protocol.greeting))

    async def ask_beat(self) -> None:
        """Send the question."""
        self._connected.send(self._protocol.request(self._protocol.beat))

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Block until something comes."""
        if self._early:  # came right behind the confirmation
            early, self._early = self._early, []
            return early
        return self._protocol.parse(self._connected.receive(timeout))

    def interrupt(self) -> None:
        """Close; from another thread too."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    async def close(self) -> None:
        """Close."""
        self.interrupt()

    @property
    def _connected(self) -> SocketConnection:
        if self._connection is None:
            raise RemoteFailed("not connected")
        return self._connection
