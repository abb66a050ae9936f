"""The control of every delay of a message: a thread that subscribes by a bare socket and hiredis, and notes times.

``note_drops`` takes the times on the other side, where a cache has applied the same message.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

from nearcache.protocol import messages
from nearcache.protocol.names import Names
from nearcache.transport import resp


def note_drops(cache: Any, gone: Callable[[str], bool], dropped: Callable[[], dict[str, int]]) -> None:
    """Note when each key was dropped, right where messages are applied: on the bus's thread, or on the loop."""
    feed = cache._core.invalidation
    apply = feed.messages

    def applied(batch: Sequence[bytes]) -> Any:
        heard = apply(batch)
        now = time.monotonic_ns()
        for key in heard.keys:
            if gone(key):
                dropped().setdefault(key, now)
        return heard

    feed.messages = applied


class RawSubscriber:
    """The least work that a subscriber in Python can do.

    Args:
        url: of the server.
        namespace: whose channel is subscribed.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.heard: list[tuple[int, bytes]] = []
        """CLOCK_MONOTONIC in ns, and the message."""
        self.subscribed = False
        self._channel = Names(namespace).channel
        self._connection: Any = redis.Redis.from_url(url).connection_pool.make_connection()
        self._thread = self._new_thread()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="raw-subscriber", daemon=True)

    def start(self) -> None:
        """Subscribe; nothing happens when it was started already."""
        if self._thread.ident is not None:
            return
        self._connection.connect()
        self._socket = self._connection._sock
        self._socket.settimeout(None)
        self._socket.sendall(resp.pack((b"SUBSCRIBE", self._channel)))
        self._thread.start()

    def stop(self) -> None:
        """End the connection, and with it the thread; it can be started again."""
        if self._thread.is_alive():
            self._socket.shutdown(2)
            self._thread.join()
            self._thread, self.subscribed = self._new_thread(), False
        self._connection.disconnect()

    def times(self) -> dict[str, int]:
        """When each key came first."""
        first: dict[str, int] = {}
        for when, data in list(self.heard):
            for key in messages.unpack(data).names:
                first.setdefault(key, when)
        return first

    def _run(self) -> None:
        reader = hiredis.Reader(notEnoughData=None)
        while data := self._socket.recv(65536):
            reader.feed(data)
            while (reply := reader.gets()) is not None:
                self.subscribed = True
                if reply[0] == b"message":
                    self.heard.append((time.monotonic_ns(), reply[2]))
