"""One connection of a cache for asyncio: its transport, and the replies matched to the commands in flight.

redis-py makes and connects it, then a Protocol of ours takes its transport over. The private names used are
``Connection._reader`` and ``._writer``; a test holds them against new releases.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from nearcache.engine.ports import RemoteFailed, RemoteTimeout
from nearcache.transport import resp
from nearcache.transport.endpoint import Endpoint


def connect_deadline(endpoint: Endpoint) -> asyncio.Timeout:
    """The limit for all of connecting: redis-py's own timeouts are for each receive."""
    return asyncio.timeout(endpoint.arguments.get("socket_connect_timeout"))


class Stream(asyncio.Protocol):
    """A connection that hands its replies to a callback. Any failure closes it.

    Args:
        on_replies: called with the replies of each chunk.
        on_lost: called once, with the reason why the connection ended.
        chunk: bytes that are decoded at once.
    """

    def __init__(
        self,
        on_replies: Callable[[list[Any]], None],
        on_lost: Callable[[RemoteFailed], None],
        chunk: int = resp.CHUNK,
    ) -> None:
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._chunk = chunk
        self._decoder = resp.Decoder()
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, endpoint: Endpoint) -> None:
        """Let redis-py connect, then take the transport over."""
        while True:
            connection = endpoint.connection()
            try:
                await connection.connect()
                break
            except BaseException as error:
                await connection.disconnect(nowait=True)
                if not isinstance(error, Exception):
                    raise
                if not endpoint.fall_back_to_resp2(connection, error):
                    raise resp.translate(error) from None
        # The writer is kept: collected before its transport is closed, it would close it.
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001  # see the head of the file
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)
        connection._reader = connection._writer = None  # noqa: SLF001  # it is ours now

    def send(self, packed: bytes) -> None:
        """Send; a failure to send ends the connection."""
        if self._transport is None or self._transport.is_closing():
            raise RemoteFailed("the connection is closed")
        self._transport.write(packed)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), self._chunk):
                self._on_replies(self._decoder.feed(data[start : start + self._chunk]))
        except Exception as error:  # noqa: BLE001  # asyncio would log it with a traceback
            self._lost(resp.translate(error))
            self.close()

    def eof_received(self) -> None:
        """Return None: asyncio then closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(RemoteFailed("the server closed the connection") if exc is None else resp.translate(exc))

    def _lost(self, error: RemoteFailed) -> None:
        on_lost, self._on_lost = self._on_lost, lambda _: None
        on_lost(error)


@dataclass(slots=True, eq=False)
class InFlight:
    """Commands that were sent together and wait for their replies."""

    future: asyncio.Future[list[Any]]
    count: int
    sent_at: float


class Pipeline:
    """A stream that matches replies to the commands in flight, in the order in which they were sent.

    Its timer is not that of a caller, whose task may be cancelled: a hung connection must be found out even then.

    Args:
        timeout: seconds of silence that end the connection. Replies that keep coming may take ``resp.SILENCES`` times
            as long.
    """

    def __init__(self, timeout: float) -> None:
        self.stream = Stream(self._match, self._fail)
        self._timeout = timeout
        self._in_flight: deque[InFlight] = deque()
        self._replies: list[Any] = []
        """The replies to the oldest commands in flight, as far as they have come."""
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        """Runs while commands are in flight."""
        self._heard_at = 0.0
        """When bytes have come, or have left the buffer, the last time."""
        self._unsent = 0
        """Bytes in the buffer when that was last looked at."""

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send some commands; the future gets their replies."""
        self.stream.send(packed)
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        now = self._loop.time()
        self._in_flight.append(InFlight(future, count, now))
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._timeout, self._check)
        return future

    def retire(self) -> None:
        """Close when the last reply has come; nothing more is sent."""
        self._retired = True
        if not self._in_flight:
            self.stream.close()

    def _match(self, replies: list[Any]) -> None:
        self._heard_at = self._loop.time()
        for reply in replies:
            if not self._in_flight or type(reply) is resp.Push:
                raise RemoteFailed("the server sent what nobody asked for")
            self._replies.append(reply)
            first = self._in_flight[0]
            if len(self._replies) == first.count:
                self._in_flight.popleft()
                complete, self._replies = self._replies, []
                if not first.future.done():  # its task may have been cancelled
                    first.future.set_result(complete)
        if self._retired and not self._in_flight:
            self.stream.close()

    def _check(self) -> None:
        """End a connection that is silent, or too slow; after a stall of the loop, what has come was taken before."""
        self._timer = None
        if not self._in_flight:
            return
        now, unsent = self._loop.time(), self.stream.unsent
        if unsent < self._unsent:
            self._heard_at = now
        self._unsent = unsent
        sent_at = self._in_flight[0].sent_at
        until = min(max(self._heard_at, sent_at) + self._timeout, sent_at + self._timeout * resp.SILENCES)
        if now < until:
            self._timer = self._loop.call_at(until, self._check)
        else:
            self._fail(RemoteTimeout("no answer in time"))
            self.stream.close()

    def _fail(self, error: RemoteFailed) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._in_flight:
            failed = self._in_flight.popleft()
            if not failed.future.done():
                failed.future.set_exception(error)
                failed.future.exception()  # retrieved: its task may never look
