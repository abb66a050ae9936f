"""The transport and the bus for asyncio: one multiplexed connection, and one subscribed. The ports document both.

One connection carries the commands of all tasks: replies come in the order of the commands, so each is matched to its
future, and a cancelled task leaves the connection in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nearcache.engine.ports import NotSent, RemoteFailed, RemoteTimeout
from nearcache.protocol.answers import BusItem
from nearcache.protocol.names import Names
from nearcache.transport import resp
from nearcache.transport.async_connection import Pipeline, Stream, connect_deadline
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import BusProtocol, Handshake
from nearcache.transport.port import Transport


class AsyncTransport(Transport):
    """One multiplexed connection, made at the first use and made again after a loss."""

    handshake: Handshake | None = None

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._pipeline: Pipeline | None = None
        self._retired: list[Pipeline] = []
        self._connecting: asyncio.Task[Pipeline] | None = None
        self._closed = False

    async def execute(
        self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
    ) -> list[Any]:
        del repeatable, waited  # a closed transport is known to be closed; no task waits for others' commands
        pipeline = self._pipeline
        while pipeline is None or pipeline.stream.closing:
            await self._connect()
            pipeline = self._pipeline  # None: the new one was discarded before this task was woken
        return await pipeline.send(packed, count)

    async def connect(self) -> None:
        if self._pipeline is None or self._pipeline.stream.closing:
            await self._connect()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def discard_idle(self) -> None:
        """Use the connection no more, and close it; with commands in flight, when their last reply has come."""
        self._retired = [one for one in self._retired if not one.stream.closing]
        if self._pipeline is not None:
            retired, self._pipeline = self._pipeline, None
            self._retired.append(retired)
            retired.retire()

    async def close(self) -> None:
        """Close the connection; commands in flight fail."""
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
        """Connect once for all tasks that wait; the cancellation of one does not cancel it for the others."""
        if self._closed:
            raise NotSent("closed")
        # The task has connected · the connection is discarded · a command runs before the task's callbacks: to await
        # the task gives the loop no turn, so that they never run, and the command asks for the connection for ever.
        if self._connecting is None or self._connecting.done():
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
        pipeline, handshake = Pipeline(self._timeout), self.handshake
        try:
            async with connect_deadline(self._endpoint):
                await pipeline.stream.connect(self._endpoint)
                while handshake is not None:
                    query, asked_at = handshake.query, time.monotonic()
                    handshake.check(await pipeline.send(query.packed, query.count), asked_at)
                    if handshake is self.handshake:  # else other buckets have come meanwhile
                        break
                    handshake = self.handshake
        except BaseException as error:
            pipeline.stream.close()
            if not isinstance(error, Exception):
                raise
            failure = resp.translate(error)
            failure.sent = failure.answered = False
            raise failure from None
        self._pipeline = pipeline
        return pipeline

    def _connected(self, task: asyncio.Task[Pipeline]) -> None:
        if self._connecting is task:
            self._connecting = None
        if not task.cancelled():
            task.exception()  # retrieved: the tasks that waited may be gone


class AsyncBus:
    """The subscribed connection, which one task reads."""

    def __init__(self, endpoint: Endpoint, timeout: float, names: Names, seen: Callable[[], int] = lambda: 0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._protocol = BusProtocol(names, seen)
        self._stream = Stream(self._on_replies, self._on_lost, resp.BUS_CHUNK)
        self._chunks: deque[list[BusItem]] = deque()
        """The items of each chunk that has come, and that ``receive`` has not yet returned."""
        self._failure: RemoteFailed | None = None
        self._news: asyncio.Future[bool] | None = None
        """Set to True when something has come, to False when the time is over."""

    async def open(self) -> None:
        self._endpoint.ask_for_resp3()
        try:
            async with connect_deadline(self._endpoint):
                await self._stream.connect(self._endpoint)
        except TimeoutError:
            raise await self._explained(RemoteTimeout("connecting took too long")) from None
        except RemoteFailed as failure:
            raise await self._explained(failure) from None
        self._endpoint.connected()
        self._stream.send(self._protocol.subscribe)
        until = time.monotonic() + self._timeout
        while not self._protocol.confirmed:
            if not await self._news_within(until - time.monotonic()):
                raise RemoteTimeout("the subscription was not confirmed in time")
            if self._failure is not None:
                raise self._failure

    async def _explained(self, failure: RemoteFailed) -> RemoteFailed:
        if not self._endpoint.probes:
            return self._endpoint.explain(failure)
        return await asyncio.to_thread(self._endpoint.explain, failure)

    async def ask_greeting(self) -> None:
        self._stream.send(self._protocol.request(self._protocol.greeting))

    async def ask_beat(self) -> None:
        self._stream.send(self._protocol.request(self._protocol.beat))

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        if self._chunks:  # more than one came at once: between two, let other tasks run
            await asyncio.sleep(0)
        elif self._failure is None and not await self._news_within(timeout):
            # Let the loop read the socket once more: it may have stalled for longer than the timeout.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self._chunks:
            return self._chunks.popleft()
        if self._failure is not None:
            raise self._failure
        return []

    def interrupt(self) -> None:
        """Close; only on the thread of the loop, where all of an AsyncNearCache lives."""
        self._stream.close()

    async def close(self) -> None:
        self._stream.close()
        await asyncio.sleep(0)  # let connection_lost run: nothing of ours is left on the loop

    def _on_replies(self, replies: list[Any]) -> None:
        items = self._protocol.parse(replies)
        if items:
            self._chunks.append(items)
        self._wake(news=True)

    def _on_lost(self, error: RemoteFailed) -> None:
        self._failure = self._failure or error
        self._wake(news=True)

    async def _news_within(self, timeout: float) -> bool:
        """Wait until something comes, for at most ``timeout`` seconds; whether something came.

        It is called once per message: asyncio.timeout and Event would ask for the running loop again and again, which
        is a system call each time.
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
