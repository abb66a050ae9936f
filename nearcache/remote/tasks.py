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
from functools import partial
from typing import Any, cast

from nearcache.ports import BusItem, NotSent, RemoteFailed, RemoteTimeout
from nearcache.remote import resp
from nearcache.remote.aside import new_talk
from nearcache.remote.endpoint import Endpoint
from nearcache.remote.names import Names
from nearcache.remote.talk import Introduction, Question, Talk


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
        self.protocol = 0

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
        self.protocol = int(connection.protocol)
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

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._flying

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


class TaskWire:
    """One multiplexed connection, made when first needed and again when lost."""

    introduce: Introduction | None = None

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._pipeline: Pipeline | None = None
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
        """The connection is closed unless it is in use: then its own failure will."""
        if self._pipeline is not None and self._pipeline.idle:
            self._pipeline.stream.close()

    async def close(self) -> None:
        """Close the connection; what is in flight fails."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._pipeline is not None:
            self._pipeline.stream.close()
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
        try:
            await pipeline.stream.connect(self._endpoint)
            await self._introduced(pipeline)
        except BaseException as failure:
            pipeline.stream.close()
            if isinstance(failure, RemoteFailed):
                failure.sent = False
            raise
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
    """The subscribed connection, read by one task; and with RESP2, one more for the questions."""

    def __init__(self, endpoint: Endpoint, timeout: float, names: Names) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._names = names
        self._talk = Talk(names)
        self._stream = Stream(self._take, self._ended, resp.BUS_CHUNK)
        self._aside: Pipeline | None = None
        self._pieces: deque[list[BusItem]] = deque()
        self._failure: RemoteFailed | None = None
        self._news: asyncio.Future[bool] | None = None
        """Set to True when something has come, to False when the time is over."""

    async def open(self) -> None:
        """Connect and subscribe."""
        self._endpoint.try_anew()
        await self._stream.connect(self._endpoint)
        self._talk = new_talk(self._names, self._stream.protocol)
        self._stream.send(self._talk.subscribe)
        until = time.monotonic() + self._timeout
        while not self._talk.confirmed:
            if not await self._news_within(until - time.monotonic()):
                raise RemoteTimeout("the subscription was not confirmed in time")
            if self._failure is not None:
                raise self._failure
        if self._talk.aside:
            self._aside = Pipeline(self._timeout)
            await self._aside.stream.connect(self._endpoint)

    async def ask_greeting(self) -> None:
        """Send the question."""
        await self._ask(self._talk.greeting)

    async def ask_beat(self) -> None:
        """Send the question."""
        await self._ask(self._talk.beat)

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Wait until something comes. When time is over, the socket is read once more: the loop may have stalled."""
        if self._pieces:  # more than one came at once: in between, it is the other tasks' turn
            await asyncio.sleep(0)
        elif self._failure is None and not await self._news_within(timeout):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self._pieces:
            return self._pieces.popleft()
        if self._failure is not None:
            raise self._failure
        return []

    def interrupt(self) -> None:
        """Close; on the loop's thread alone, where all of an AsyncNearCache lives."""
        self._stream.close()
        if self._aside is not None:
            self._aside.stream.close()

    async def close(self) -> None:
        """Close."""
        self.interrupt()
        await asyncio.sleep(0)  # let connection_lost run: nothing of ours is left on the loop

    async def _ask(self, question: Question) -> None:
        self._talk.begin()
        answers = () if self._aside is None else await self._aside.send(question.packed, question.count)
        self._stream.send(self._talk.ask(question, answers))

    def _take(self, replies: list[Any]) -> None:
        items = self._talk.understand(replies)
        if items:
            self._pieces.append(items)
        self._wake(news=True)

    def _ended(self, error: RemoteFailed) -> None:
        self._failure = self._failure or error
        self._wake(news=True)

    async def _news_within(self, timeout: float) -> bool:
        """Wait until something comes, or for so many seconds; whether something came.

        Once per message: asyncio.timeout and Event ask for the running loop again and again, which is a system call
        each time.
        """
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = loop.call_later(timeout, partial(self._wake, news=False))
        try:
            return await self._news
        finally:
            timer.cancel()
            self._news = None

    def _wake(self, *, news: bool) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(news)
