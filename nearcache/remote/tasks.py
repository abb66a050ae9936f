"""Transports for asyncio: redis-py makes and connects a connection, then a Protocol of ours takes its transport over.

One connection carries the commands of all tasks: replies come in the order of the commands, so each is matched to its
future, and a cancelled task leaves the connection in order. The private names used are ``Connection._reader`` and
``._writer``; a test holds them against new releases.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nearcache.ports import BusItem, NotSent, RemoteFailed, RemoteTimeout
from nearcache.remote import resp
from nearcache.remote.names import Names
from nearcache.remote.talk import Introduction, Talk

AsyncConnectionFactory = Callable[[], Any]
"""Makes a redis.asyncio connection that is not connected yet."""


class Stream(asyncio.Protocol):
    """A connected transport whose replies go to one callable, and whose end to another. Whatever fails closes it."""

    def __init__(self, take: Callable[[list[Any]], None], lost: Callable[[RemoteFailed], None]) -> None:
        self._take = take
        self._lost = lost
        self._decoder = resp.Decoder()
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, factory: AsyncConnectionFactory) -> None:
        """Let redis-py connect, then take the transport over."""
        connection = factory()
        try:
            await connection.connect()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise resp.translate(error) from None
            raise
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
            self._take(self._decoder.feed(data))
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
class Flying:
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
        self._flying: deque[Flying] = deque()
        self._partial: list[Any] = []
        self._retired = False

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send some commands; the future gets their replies."""
        self.stream.send(packed)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        # Not asyncio.timeout: after a stall of the loop it would fire with the reply already taken from the socket.
        self._flying.append(Flying(future, count, loop.call_later(self._timeout, self._expire)))
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


def _deadline(connection: Any, timeout: float) -> asyncio.Timeout:
    """For all of connecting: redis-py's own timeouts are for each receive."""
    return asyncio.timeout(getattr(connection, "socket_connect_timeout", None) or timeout)


class TaskWire:
    """One multiplexed connection, made when first needed and again when lost."""

    introduce: Introduction | None = None

    def __init__(self, factory: AsyncConnectionFactory, timeout: float) -> None:
        self._factory = factory
        self._timeout = timeout
        self._pipeline: Pipeline | None = None
        self._retired: list[Pipeline] = []
        self._connecting: asyncio.Task[Pipeline] | None = None
        self._closed = False

    async def execute(self, packed: bytes, count: int = 1, *, repeatable: bool = False) -> list[Any]:
        """See Wire."""
        del repeatable  # a closed transport is known to be closed
        pipeline = self._pipeline
        if pipeline is None or pipeline.stream.closing:
            pipeline = await self._connect()
        return await pipeline.send(packed, count)

    async def connect(self) -> None:
        """Connect, unless connected."""
        if self._pipeline is None or self._pipeline.stream.closing:
            await self._connect()

    async def pause(self, seconds: float) -> None:
        """Let other tasks run."""
        await asyncio.sleep(seconds)

    def discard_idle(self) -> None:
        """The connection is used no more, and closed; with something in flight, when its last reply has come."""
        self._retired = [one for one in self._retired if not one.stream.closing]
        if self._pipeline is not None:
            retired, self._pipeline = self._pipeline, None
            self._retired.append(retired)
            retired.retire()

    async def close(self) -> None:
        """Close the connection; what is in flight fails."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self.discard_idle()
        for pipeline in self._retired:
            pipeline.stream.close()
        if self._retired:
            await asyncio.sleep(0)  # let connection_lost run: nothing of ours is left on the loop

    async def _connect(self) -> Pipeline:
        """Connect once for all who wait; a waiter that is cancelled does not cancel it for the others."""
        if self._closed:
            raise NotSent("closed")
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._make(), name="nearcache-connect")
            self._connecting.add_done_callback(self._connected)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if connecting.cancelled() and not (task and task.cancelling()):  # by close; nobody cancelled this task
                raise NotSent("closed") from None
            raise

    async def _make(self) -> Pipeline:
        pipeline = Pipeline(self._timeout)
        connection = self._factory()
        try:
            async with _deadline(connection, self._timeout):
                await pipeline.stream.connect(lambda: connection)
                await self._introduced(pipeline)
        except BaseException as error:
            pipeline.stream.close()
            if not isinstance(error, Exception):
                raise
            failure = resp.translate(error)
            failure.sent = failure.answered = False
            raise failure from None
        self._pipeline = pipeline
        return pipeline

    async def _introduced(self, pipeline: Pipeline) -> None:
        if self.introduce is not None:
            asked_at = time.monotonic()
            self.introduce.hear(await pipeline.send(self.introduce.packed, self.introduce.count), asked_at)

    def _connected(self, task: asyncio.Task[Pipeline]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # retrieved: who waited may be gone


class TaskBus:
    """The subscribed connection, read by one task."""

    def __init__(self, factory: AsyncConnectionFactory, timeout: float, names: Names) -> None:
        self._factory = factory
        self._timeout = timeout
        self._talk = Talk(names)
        self._stream = Stream(self._take, self._ended)
        self._items: list[BusItem] = []
        self._failure: RemoteFailed | None = None
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Connect and subscribe."""
        connection = self._factory()
        try:
            async with _deadline(connection, self._timeout):
                await self._stream.connect(lambda: connection)
        except TimeoutError:
            raise RemoteTimeout("connecting took too long") from None
        self._stream.send(self._talk.subscribe)
        try:
            async with asyncio.timeout(self._timeout):
                while not self._talk.confirmed:
                    self._news.clear()
                    await self._news.wait()
                    if self._failure is not None:
                        raise self._failure
        except TimeoutError:
            raise RemoteTimeout("the subscription was not confirmed in time") from None

    async def ask_greeting(self) -> None:
        """Send the question."""
        self._stream.send(self._talk.ask_greeting())

    async def ask_beat(self) -> None:
        """Send the question."""
        self._stream.send(self._talk.ask_beat())

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Wait until something comes. When time is over, the socket is read once more: the loop may have stalled."""
        if not self._items and self._failure is None:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        if self._items:
            items, self._items = self._items, []
            return items
        if self._failure is not None:
            raise self._failure
        return []

    def interrupt(self) -> None:
        """Close; on the loop's thread alone, where all of an AsyncNearCache lives."""
        self._stream.close()

    async def close(self) -> None:
        """Close."""
        self.interrupt()
        await asyncio.sleep(0)  # let connection_lost run: nothing of ours is left on the loop

    def _take(self, replies: list[Any]) -> None:
        self._items += self._talk.understand(replies)
        self._news.set()

    def _ended(self, error: RemoteFailed) -> None:
        self._failure = self._failure or error
        self._news.set()
