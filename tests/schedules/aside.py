"""A bus of the scheduler that speaks RESP2: the library's own conversation, its questions asked aside as requests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from nearcache.protocol.answers import BusItem
from nearcache.protocol.names import PROTOCOL, Names
from nearcache.testing.model import Server
from nearcache.transport.aside import AsideProtocol
from nearcache.transport.handshake import Query
from tests.schedules.stepper import Instance, ModelBus, Receiving, Request

CHANNEL = b"channel"


def facts(server: Server) -> list[bytes]:
    """What INFO tells of a server."""
    identity = server.identity.encode()
    return [b"run_id:%b\r\n" % identity, b"role:master\r\nmaster_replid:%b\r\n" % identity]


def counters(server: Server) -> list[Any]:
    """HMGET and TIME."""
    numbers = [None, None] if server.number is None else [b"%d" % server.number, b"%d" % server.floor]
    return [numbers, [b"%d" % part for part in divmod(server.clock(), 1_000_000)]]


def greet(server: Server) -> list[Any]:
    """greet.lua."""
    return [struct.pack(">QQQ", *server.counters(), server.clock()) + PROTOCOL]


class AsideBus(ModelBus):
    """A Bus over a Line that takes no questions but PING."""

    talk: type[AsideProtocol] = AsideProtocol

    def __init__(self, owner: Instance) -> None:
        super().__init__(owner)
        self._talk = self.talk(Names("shop"))

    async def open(self) -> None:
        """Ask who it is, and subscribe."""
        await super().open()
        self._talk.understand([*facts(self._server), [b"subscribe", CHANNEL, 1]])

    async def ask_greeting(self) -> None:
        """Ask aside, then PING."""
        await self._ask(self._talk.greeting, greet)

    async def ask_beat(self) -> None:
        """Ask aside, then PING."""
        await self._ask(self._talk.beat, counters)

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Suspend."""
        heard = await Receiving(self, timeout)
        return self._talk.understand([one if isinstance(one, list) else [b"message", CHANNEL, one] for one in heard])

    async def _ask(self, question: Query, read: Callable[[Server], list[Any]]) -> None:
        self._talk.begin()
        answers = await self.aside(read)
        self._talk.ask(question, answers)
        self.line.questions.append(self.nonce)

    @property
    def nonce(self) -> bytes:
        """Of the newest PING."""
        return self._talk._answers[-1].nonce

    async def aside(self, read: Callable[[Server], list[Any]]) -> list[Any]:
        """Ask whatever server is there now."""
        label = f"{self.owner.name}: aside"
        answers: list[Any] = await Request(self.world, label, lambda server: [*read(server), *facts(server)])
        return answers
