"""One blocking connection of a cache for threads.

redis-py makes and connects it, with TLS, AUTH, HELLO and credential providers; afterwards its socket is used directly,
since redis-py's layers cost more than the command. The one private name used is ``Connection._sock``; a test holds it
against new releases.

How it waits for a reply: a receive with a timeout of the kernel is one system call, and gives the GIL up once. But
Python repeats a receive that a signal interrupts, with the whole timeout: with a timer signal every 0.1 s it does not
end. A ``poll`` is repeated with the rest of its time. So the main thread, to which the kernel gives signals, polls
first. Other threads receive with a timeout of EAGER seconds, in which most replies come, and then poll. A socket of TLS
has bytes that no poll sees, and a socket of gevent or eventlet ignores the kernel's timeout: these get a timeout of
Python's, which signals do not lengthen.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from math import ceil
from threading import get_ident
from typing import Any

from nearcache.engine.ports import RemoteFailed
from nearcache.local.interrupts import from_signal_handler
from nearcache.transport import connecting, resp
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import Handshake

EAGER = 0.01
"""Seconds of the kernel's timeout, at most."""

_DONTWAIT = int(socket.MSG_DONTWAIT)  # an IntFlag is converted at each call
_main_thread = threading.main_thread().ident


def _unknown(_: int) -> list[Any]:
    return []


def _after_fork() -> None:
    global _main_thread  # noqa: PLW0603  # one per process
    _main_thread = get_ident()


os.register_at_fork(after_in_child=_after_fork)


class SocketConnection:
    """One connected socket. Any failure closes it.

    Raises:
        RemoteFailed: it could not connect within the timeout, or the handshake refused the server.
    """

    __slots__ = (
        "_connection",
        "_decoder",
        "_feed",
        "_gets",
        "_plain",
        "_poll",
        "_socket",
        "_timeout",
        "_timeout_ms",
        "generation",
        "readable",
    )

    def __init__(self, endpoint: Endpoint, timeout: float, handshake: Handshake | None = None) -> None:
        self._connection: Any = None
        self._decoder = resp.Decoder()
        self._feed, self._gets = self._decoder.reader.feed, self._decoder.reader.gets
        self._timeout, self._timeout_ms = timeout, ceil(timeout * 1000)
        self.generation = 0
        deadline = endpoint.arguments.get("socket_connect_timeout") or timeout
        connecting.within(deadline, endpoint.shown, lambda: self._connect(endpoint, handshake), self._shut_down)

    def _connect(self, endpoint: Endpoint, handshake: Handshake | None) -> None:
        while True:
            self._connection = endpoint.connection()
            try:
                self._connection.connect()
                self._socket: socket.socket = self._connection._sock  # noqa: SLF001  # see the head of the file
                break
            except Exception as error:  # noqa: BLE001  # redis-py raises its own, sockets' and TLS' errors
                self.close()
                if not endpoint.fall_back_to_resp2(self._connection, error):
                    raise resp.translate(error) from None
        self._set_up()
        if handshake is None:
            return
        asked_at = time.monotonic()
        replies = self.execute(handshake.query.packed, handshake.query.count)
        try:
            handshake.check(replies, asked_at)
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        self._plain = isinstance(self._socket, _socket.socket) and not isinstance(self._socket, ssl.SSLSocket)
        if self._plain:
            self._socket.settimeout(None)
            eager = struct.pack("ll", 0, max(1, int(min(EAGER, self._timeout) * 1e6)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, eager)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        self._poll: Callable[[int], list[Any]] = poll.poll
        self.readable = _unknown if isinstance(self._socket, ssl.SSLSocket) else poll.poll
        """Called with 0, whether an idle connection has ended: any byte on it, as its end, was not asked for. Of TLS it
        says no, since its tickets come unasked."""

    def execute(self, packed: bytes, count: int, waited: float = 0.0) -> list[Any]:  # noqa: C901, PLR0912  # one frame
        """Send, and receive ``count`` replies.

        Args:
            packed: the commands.
            count: of the replies.
            waited: seconds that the caller has waited for the connection: so much less it waits for the first byte.

        Raises:
            RemoteTimeout: nothing came for the timeout, or not everything came in ``resp.SILENCES`` times the timeout.
        """
        replies: list[Any] = []
        try:
            # What nearly always suffices is in this frame: the processor's caches are cold here, and a call takes 1 µs.
            data = b""
            if self._plain:
                try:
                    sent = self._socket.send(packed, _DONTWAIT)
                except BlockingIOError:
                    sent = 0
                if sent < len(packed):
                    self._send_rest(memoryview(packed)[sent:])
                if get_ident() != _main_thread:
                    try:
                        data = self._socket.recv(resp.CHUNK)
                    except BlockingIOError:
                        waited += EAGER
                elif self._poll(self._timeout_ms if not waited else max(0, ceil((self._timeout - waited) * 1000))):
                    data = self._socket.recv(resp.CHUNK)
                else:
                    raise TimeoutError
            else:
                self._send_rest(memoryview(packed))
            if data:
                gets = self._gets
                self._feed(data)
                while (reply := gets()) is not resp.NOTHING:
                    replies.append(reply)
            if len(replies) < count:
                self._receive_rest(replies, count, waited)
            if len(replies) > count or resp.Push in map(type, replies):
                raise RemoteFailed("the server sent what nobody asked for")
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not from_signal_handler(error):
                raise resp.translate(error) from None
            raise
        return replies

    def send(self, packed: bytes) -> None:
        """Send without waiting for replies: on the bus, which ``receive`` reads."""
        try:
            self._send(packed)
        except OSError as error:
            raise resp.translate(error) from None

    def receive(self, timeout: float) -> list[Any]:
        """The replies that come within ``timeout`` seconds, at most one chunk of them; 0 takes only what is there."""
        try:
            return self._receive_within(timeout, resp.BUS_CHUNK)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return []
        except (OSError, ValueError) as error:
            raise resp.translate(error) from None

    def close(self) -> None:
        """Close; a ``receive`` that waits in another thread ends."""
        self._shut_down()
        self._connection.disconnect()

    def _shut_down(self) -> None:
        """Wake every thread that waits for the socket."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # it was not connected any more
                sock.shutdown(socket.SHUT_RDWR)

    def _send(self, packed: bytes) -> None:
        sent = 0
        if self._plain:
            try:
                sent = self._socket.send(packed, _DONTWAIT)
            except BlockingIOError:
                sent = 0
        if sent < len(packed):
            self._send_rest(memoryview(packed)[sent:])

    def _send_rest(self, rest: memoryview) -> None:
        """Send what the kernel did not take at once. The timeout is for each part, as it is for those of a reply."""
        ends = time.monotonic() + self._timeout * resp.SILENCES
        while rest:
            left = min(self._timeout, ends - time.monotonic())
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            rest = rest[self._socket.send(rest) :]
        if self._plain:
            self._socket.settimeout(None)

    def _receive_rest(self, replies: list[Any], count: int, waited: float) -> None:
        """Receive what has not come at once."""
        left = self._timeout - waited
        ends = time.monotonic() + self._timeout * resp.SILENCES - waited
        while left > 0:
            replies += self._receive_within(left)
            if len(replies) >= count:
                return
            left = min(self._timeout, ends - time.monotonic())
        raise TimeoutError

    def _receive_within(self, timeout: float, most: int = resp.CHUNK) -> list[Any]:
        """Wait up to ``timeout`` seconds for bytes; the replies that they complete."""
        if not self._plain:
            self._socket.settimeout(timeout)
        elif not self._poll(ceil(timeout * 1000)):
            raise TimeoutError
        data = self._socket.recv(most)
        if not data:
            raise RemoteFailed("the server closed the connection")
        return self._decoder.feed(data)
