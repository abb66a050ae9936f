"""The transport and the bus for threads: a connection pool, and one subscribed connection. The port documents both."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from nearcache.engine.gathering import Question, gathers, turn
from nearcache.engine.ports import NotSent, RemoteFailed, RemoteTimeout
from nearcache.local.interrupts import Permit
from nearcache.protocol.answers import BusItem
from nearcache.protocol.names import Names
from nearcache.transport import resp
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import BusProtocol, Handshake
from nearcache.transport.port import Transport
from nearcache.transport.sync_connection import SocketConnection


class SyncTransport(Transport):
    """A bounded connection pool; the connection used last is used first."""

    handshake: Handshake | None = None

    def __init__(self, endpoint: Endpoint, timeout: float, max_connections: int) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._idle: list[SocketConnection] = []
        # In C, unlike threading.Semaphore, whose locks a KeyboardInterrupt can leave locked.
        self._permits: SimpleQueue[Permit] = SimpleQueue()
        for _ in range(max_connections):
            self.add_permit()
        self._timed_out_at = 0.0
        self._generation = 0
        """Connections of an earlier generation are not used again."""
        self._closed = False

    async def execute_along(self, packed: bytes, count: int, *, repeatable: bool = False) -> list[Any]:
        if not gathers():
            return await self.execute(packed, count, repeatable=repeatable)
        return await Question(self, partial(self._execute_in_turn, repeatable), packed, count)

    async def _execute_in_turn(self, repeatable: bool, packed: bytes, count: int) -> list[Any]:
        return await self.execute(packed, count, repeatable=repeatable, sent=turn())

    async def execute(
        self,
        packed: bytes,
        count: int = 1,
        *,
        repeatable: bool = False,
        waited: float = 0.0,
        sent: Awaitable[None] | None = None,
    ) -> list[Any]:
        """See Transport.

        Args:
            packed: see there.
            count: see there.
            repeatable: see there.
            waited: see there.
            sent: awaited between sending and receiving.
        """
        try:
            permit = self._permits.get_nowait()
        except Empty:
            permit, waited = self._await_permit(waited)
        try:
            while True:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    connection = self._connect(waited)
                    break
                # A write is not repeated, so it takes no connection that has ended.
                if connection.generation == self._generation and (repeatable or not connection.readable(0)):
                    break
                connection.close()
            try:
                if sent is not None:
                    await _send(connection, packed, sent)
                    packed = b""
                replies = connection.execute(packed, count, waited)
            except RemoteFailed as failure:
                if isinstance(failure, RemoteTimeout):
                    if waited:  # it had less than the timeout, so this says nothing about the server
                        failure.counted = True
                        raise
                    self._timed_out_at = time.monotonic()
                self.discard_idle()  # they lead to the same server
                raise
            self._idle.append(connection)
            if self._closed:
                self.discard_idle()
            return replies
        finally:
            self._permits.put(permit)

    def add_permit(self) -> None:
        """Let one connection more be used at a time."""
        self._permits.put(Permit(self))

    def _await_permit(self, waited: float) -> tuple[Permit, float]:
        """Wait for a permit, so long that a tenth of the timeout is left.

        Returns:
            The permit, and the seconds waited in all.

        Raises:
            NotSent: none came free in time, or the server hung meanwhile.
        """
        began = time.monotonic()
        try:
            permit = self._permits.get(timeout=max(0.0, 0.9 * self._timeout - waited))
        except Empty:
            raise NotSent("every connection is in use; raise max_connections") from None
        if self._timed_out_at > began:  # this command would time out on the same server as well
            self._permits.put(permit)
            raise NotSent("the server hung while this waited for a connection")
        return permit, waited + time.monotonic() - began

    async def connect(self) -> None:
        if not self._idle:
            await self.execute(resp.pack((b"PING",)))

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def discard_idle(self) -> None:
        """Close the idle connections now and the others when they come back."""
        self._generation += 1
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    async def close(self) -> None:
        self._closed = True
        self.discard_idle()

    def _connect(self, waited: float) -> SocketConnection:
        """A new connection, for a caller that has waited so many seconds.

        Raises:
            NotSent: the transport is closed.
        """
        if self._closed:
            raise NotSent("closed")
        generation = self._generation
        try:
            connection = SocketConnection(self._endpoint, self._timeout, self.handshake)
        except RemoteFailed as failure:
            failure.sent = failure.answered = False
            if isinstance(failure, RemoteTimeout):
                failure.counted = waited > 0  # what it has waited for tells
            raise
        connection.generation = generation
        return connection


async def _send(connection: SocketConnection, packed: bytes, sent: Awaitable[None]) -> None:
    try:
        connection.send(packed)
        await sent
    except BaseException:  # an interrupt, too: replies will come that nobody awaits
        connection.close()
        raise


class SyncBus:
    """The subscribed connection, which one thread reads."""

    def __init__(self, endpoint: Endpoint, timeout: float, names: Names, seen: Callable[[], int] = lambda: 0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._protocol = BusProtocol(names, seen)
        self._connection: SocketConnection | None = None
        self._early: list[BusItem] = []
        """Items that came with the confirmation of the subscription."""
        self._closed = False

    async def open(self) -> None:
        self._endpoint.ask_for_resp3()
        try:
            self._connection = SocketConnection(self._endpoint, self._timeout)
        except RemoteFailed as failure:
            raise self._endpoint.explain(failure) from None
        self._endpoint.connected()
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
        self._connected.send(self._protocol.request(self._protocol.greeting))

    async def ask_beat(self) -> None:
        self._connected.send(self._protocol.request(self._protocol.beat))

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        if self._early:
            early, self._early = self._early, []
            return early
        return self._protocol.parse(self._connected.receive(timeout))

    def interrupt(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    async def close(self) -> None:
        self.interrupt()

    @property
    def _connected(self) -> SocketConnection:
        if self._connection is None:
            raise RemoteFailed("not connected")
        return self._connection
