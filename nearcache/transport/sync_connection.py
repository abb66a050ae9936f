"""One blocking connection of a cache for threads.

redis-py makes and connects it, with TLS, AUTH, HELLO and credential providers; afterwards its socket is used directly,
since redis-py's layers cost more than the command. The one private name used is ``Connection._sock``; a test holds it
against new releases.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from typing import Any

from nearcache.engine.ports import RemoteFailed, RemoteTimeout
from nearcache.transport import connecting, resp
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import Handshake


class SocketConnection:
    """One connected socket. Any failure closes it.

    Raises:
        RemoteFailed: it could not connect within the timeout, or the handshake refused the server.
    """

    __slots__ = ("_connection", "_decoder", "_own_timeout", "_poll", "_socket", "_timeout", "generation")

    def __init__(self, endpoint: Endpoint, timeout: float, handshake: Handshake | None = None) -> None:
        self._connection: Any = None
        self._decoder = resp.Decoder()
        self._timeout = timeout
        self._own_timeout: float | None = timeout
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
        self._set_timeouts()
        if handshake is None:
            return
        asked_at = time.monotonic()
        replies = self.execute(handshake.query.packed, handshake.query.count)
        try:
            handshake.check(replies, asked_at)
        except BaseException:
            self.close()
            raise

    def _set_timeouts(self) -> None:
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
        """Send without waiting for replies: on the bus, which ``receive`` reads."""
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(packed)
        except OSError as error:
            raise resp.translate(error) from None

    def receive(self, timeout: float) -> list[Any]:
        """The replies that come within ``timeout`` seconds, at most one chunk of them; 0 takes only what is there."""
        try:
            self._socket.settimeout(timeout)
            return self._receive(resp.BUS_CHUNK)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return []
        except (OSError, ValueError) as error:
            raise resp.translate(error) from None

    def alive(self) -> bool:
        """Whether an idle connection is still good: any byte on it, as at its end, was not asked for."""
        if isinstance(self._socket, ssl.SSLSocket):  # tickets of TLS come unasked
            return True
        return not self._poll.poll(0)

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

    def _receive(self, most: int = resp.CHUNK) -> list[Any]:
        data = self._socket.recv(most)
        if not data:
            raise RemoteFailed("the server closed the connection")
        return self._decoder.feed(data)

    def _receive_rest(self, replies: list[Any], count: int) -> None:
        """Receive the other parts of a large reply: the timeout is for all of it, not for each part."""
        until = time.monotonic() + self._timeout
        while len(replies) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise RemoteTimeout("no answer in time")
            self._socket.settimeout(left)
            replies += self._receive()
        self._socket.settimeout(self._own_timeout)
