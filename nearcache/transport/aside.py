"""The bus on RESP2: a subscribed connection takes no questions, so they are asked aside, on a second connection.

On RESP3 an answer is proof because the server sends it behind every earlier message on the same connection. Here the
same is made of two connections, the bus B and the aside A, in this order:

    t0      this process notes its clock
    t1 > t0 A: HMGET gives the number n, TIME its time; behind it, INFO tells who answers, and its role
    t2 > t1 B: PING with a nonce is sent once the answer is there; its PONG comes

**Why it is a proof.** A write takes its number and publishes its message in one script. If A and B lead to the same
server, then each message up to n was published before t1, so it was put into B's stream before the PONG; Redis drops
nothing out of that stream but the whole connection. So at the PONG every message up to n has been applied or its gap
was seen, and L1 is as fresh as t1, which is after t0: ``fresh_until = t0 + max_staleness``, as on RESP3.

**What the flows are given.** Messages above n that come between t0 and the PONG were published after t1. They are
followed, n to n + 1 and so on, and a clear among them raises the floor. So the Greeting or Beat that stands at the PONG
tells the counters as they were when the server answered PING: exactly what RESP3 gives, and ``Feed`` compares it with
``last`` without knowing which of the two it was. Numbers that do not follow each other end the connection: the floor
that was read at t1 says nothing about a clear among those that are missing.

**What would be wrong.**

- n itself compared with ``last`` by ==: write n + 1 between HMGET and PING, and a healthy L1 is flushed, at each
  heartbeat under load. By >= alone, a counter that went back, or another server's, would pass.
- PING first: PONG; write n + 1, its message is on its way; HMGET tells n + 1. A healthy L1 looks late, and when it is
  flushed to n + 1 (a reconnect), the message that comes then looks like a gap and flushes it again.
- Another server behind A than behind B: A, connected just after a failover, asks the new primary, B hears the old one.
  The old one gave 10, the new one had got 9 and gives 10 to another write, whose message B never hears: 10 == 10, and
  L1 is stale for as long as both live. So B is asked who it is before it subscribes, each answer on A says who gave it,
  and they have to be the same process (run_id) in the same history (master_replid, which changes with every promotion
  and every data set that is taken over). Asked behind HMGET and not before it, since the history of B's connection
  began earlier: if it still is the same afterwards, it was at t1.
- A primary that was demoted goes on answering on both connections; INFO's role tells, or its replication id.

Where INFO is denied there is no proof, and so no L1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count as count_up
from typing import Any

from nearcache.engine.ports import BusRefused, RemoteFailed
from nearcache.protocol import messages
from nearcache.protocol.answers import Beat, BusItem, Greeting
from nearcache.protocol.names import Names
from nearcache.transport import resp
from nearcache.transport.endpoint import RESP2
from nearcache.transport.handshake import (
    INFO,
    BusProtocol,
    Query,
    beat_of,
    count,
    greet,
    greeting_of,
    identity_of,
    refusal,
    role_of,
)


@dataclass(slots=True, eq=False)
class Answer:
    """What is told aside and stands on the bus at its PONG."""

    nonce: bytes
    told: Greeting | Beat | None = None
    heard: list[bytes] = field(default_factory=list)
    """Messages since the question was sent; with asyncio they may come before its answer is seen."""

    def at_pong(self) -> Greeting | Beat:
        """The counters when the server answered PING.

        Raises:
            RemoteFailed: a message between the number and the PONG is missing.
        """
        told = self.told
        if told is None:
            raise RemoteFailed("the server answered a PING that was not sent")
        for data in self.heard:
            try:
                message = messages.unpack(data)
            except messages.BadMessage:  # L1 is flushed for it; its number, if it had one, is missing
                continue
            if told.number is None or message.number <= told.number:
                continue
            if message.number > told.number + 1:
                raise RemoteFailed("a message is missing between a number and its PONG")
            told = told._replace(number=message.number)
            if message.kind == messages.CLEARED:
                told = told._replace(floor=message.number)
        return told


class AsideProtocol(BusProtocol):
    """The bus's half of the conversation on RESP2, where pushes are arrays like any other."""

    aside = True

    def __init__(self, names: Names) -> None:
        super().__init__(names)
        self.subscribe = b"".join(map(resp.pack, INFO)) + self.subscribe
        self.greeting = Query(_greeted, (greet(names), *INFO))
        self.beat = Query(_beaten, (*count(names), *INFO))
        self._facts: list[Any] = []
        self._identity: str | None = None
        self._answers: deque[Answer] = deque()
        self._nonces = count_up(1)

    def begin(self) -> None:
        """A question is about to be asked aside: what is heard from now on counts."""
        self._answers.append(Answer(b"%d" % next(self._nonces)))

    def ask(self, question: Query, answers: Sequence[Any] = ()) -> bytes:
        """What to send on the bus, now that the question was answered aside.

        Raises:
            RemoteFailed: another server answered, or it is no master any more.
        """
        identity, item = question.meaning(answers)
        if identity != self._identity:
            raise RemoteFailed("questions are answered by another server than the one listened to")
        self._answers[-1].told = item
        return resp.pack((b"PING", self._answers[-1].nonce))

    def understand(self, replies: Sequence[Any]) -> list[BusItem]:
        """See BusProtocol."""
        items: list[BusItem] = []
        for reply in replies:
            if not isinstance(reply, list):
                self._before_subscribing(reply)
                continue
            kind = reply[0]
            if kind == b"message":
                for answer in self._answers:
                    answer.heard.append(reply[2])
                items.append(reply[2])
            elif kind == b"pong":
                items.append(self._ponged(reply[1]))
            elif kind == b"subscribe":
                self._subscribed()
            else:
                raise RemoteFailed("the server ended the subscription")
        return items

    def _before_subscribing(self, reply: object) -> None:
        if self.confirmed or len(self._facts) == len(INFO):
            raise refusal(reply)
        self._facts.append(reply)

    def _subscribed(self) -> None:
        self._identity = identity_of(*self._facts)
        if self._identity is None:
            raise BusRefused(
                "the server speaks RESP2 alone and does not tell who it is, so nothing proves that no message was "
                "missed; the user needs INFO"
            )
        self.confirmed = True

    def _ponged(self, nonce: bytes) -> Greeting | Beat:
        if not self._answers or self._answers[0].nonce != nonce:
            raise RemoteFailed("the server answered a PING that was not sent")
        return self._answers.popleft().at_pong()


def _greeted(answers: Sequence[Any]) -> tuple[str | None, Greeting]:
    counters, server, replication = answers
    identity = identity_of(server, replication)
    return identity, greeting_of(identity, counters, role_of(replication))


def _beaten(answers: Sequence[Any]) -> tuple[str | None, Beat]:
    *counters, server, replication = answers
    return identity_of(server, replication), beat_of(counters, role_of(replication))


def new_talk(names: Names, protocol: int) -> BusProtocol:
    """The conversation of a bus whose connection speaks this version of RESP."""
    return AsideProtocol(names) if protocol == RESP2 else BusProtocol(names)
