"""One connection on asyncio: its transport, and the replies matched to the commands in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from nearcache.engine.ports import RemoteFailed, RemoteTimeout
from nearcache.transport import resp
from nearcache.transport.endpoint import Endpoint


class Stream(asyncio.Protocol):
    """A connected transport whose replies go to one callable, and whose end to another. Whatever fails closes it."""

    def __init__(
        self, take: Callable[[list[Any]], None], lost: Callable[[RemoteFailed], None], chunk: int = resp.CHUNK
    ) -> None:
        self._take = take
        self._lost = lost
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
                if not endpoint.refused(connection, error):
                    raise resp.translate(error) from None
        # The writer is kept: collected before its transport is closed, it would close it.
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001  # see the head of the file
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)
        connection._reader = connection._writer = None  # noqa: SLF001  # it is ours now

    def send(self, packed: bytes) -> None:
        """Send; what can't be sent ends the connection."""
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

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            for start in range(0, len(data), self._chunk):
                self._take(self._decoder.feed(data[start : start + self._chunk]))
        except Exception as error:  # noqa: BLE001  # asyncio would log it with a traceback
            self._end(resp.translate(error))
            self.close()

    def eof_received(self) -> None:
        """The server closed its side."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, for whatever reason."""
        self._end(RemoteFailed("the server closed the connection") if exc is None else resp.translate(exc))

    def _end(self, error: RemoteFailed) -> None:
        lost, self._lost = self._lost, lambda _: None
        lost(error)


@dataclass(slots=True, eq=False)
class InFlight:
    """Commands that were sent together and wait for their replies.

    The timer is theirs and not their caller's, who may be cancelled: a hung connection must be found out all the same.
    """

    future: asyncio.Future[list[Any]]
    count: int
    timer: asyncio.TimerHandle


class Pipeline:
    """A stream that matches replies to the commands in flight."""

    def __init__(self, timeout: float) -> None:
        self.stream = Stream(self._replies, self._ended)
        self._timeout = timeout
        self._flying: deque[InFlight] = deque()
        self._partial: list[Any] = []
        self._retired = False

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send some commands; the future gets their replies."""
        self.stream.send(packed)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        # Not asyncio.timeout: after a stall of the loop it would fire with the reply already taken from the socket.
        self._flying.append(InFlight(future, count, loop.call_later(self._timeout, self._expire)))
        return future

    def _replies(self, replies: list[Any]) -> None:
        for reply in replies:
            if not self._flying:
                raise RemoteFailed("the server sent what nobody asked for")
            self._partial.append(reply)
            first = self._flying[0]
            if len(self._partial) == first.count:
                self._flying.popleft()
                first.timer.cancel()
                answers, self._partial = self._partial, []
                if not first.future.done():  # its task may have been cancelled
                    first.future.set_result(answers)
        if self._retired and not self._flying:
            self.stream.close()

    def retire(self) -> None:
        """Close when the last reply has come: nothing more will be sent."""
        self._retired = True
        if not self._flying:
            self.stream.close()

    def _expire(self) -> None:
        self._ended(RemoteTimeout("no answer in time"))
        self.stream.close()

    def _ended(self, error: RemoteFailed) -> None:
        while self._flying:
            flying = self._flying.popleft()
            flying.timer.cancel()
            if not flying.future.done():
                flying.future.set_exception(error)
                flying.future.exception()  # retrieved: its task may never look
