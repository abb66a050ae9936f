"""What is said on new connections and on the bus: introduce, subscribe, greet, heartbeat; and what the replies mean.

Queries are pipelined on the subscribed connection itself, so that an answer stands behind every message that the server
sent before it. Only RESP3 allows that; on RESP2 there is no bus, and L1 stays off.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from nearcache.engine.ports import BusRefused, Incompatible, RemoteFailed, RemoteMisconfigured
from nearcache.protocol import scripts
from nearcache.protocol.answers import Beat, BusItem, Greeting, Peer
from nearcache.protocol.names import PROTOCOL, Names
from nearcache.transport import resp

_TRIPLE = struct.Struct(">QQQ")
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_REPLICATION_ID = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)
_ROLE = re.compile(rb"^role:(\w+)", re.MULTILINE)
INFO = ((b"INFO", b"server"), (b"INFO", b"replication"))
"""Who the server is, and its role."""


class Handshake:
    """What every new connection for commands is asked before it is used."""

    def __init__(self, names: Names, met: Callable[[Peer], None]) -> None:
        self._met = met
        self._question = Query(tuple, ((b"HELLO",), *INFO, (b"TIME",), (b"GET", names.meta)), {b"HELLO", b"INFO"})
        self.packed = self._question.packed
        self.count = self._question.count

    def hear(self, answers: Sequence[Any], asked_at: float) -> None:
        """Take the answers to what was asked then (monotonic seconds).

        Raises:
            RemoteFailed: the server is no master, or the namespace is kept by another protocol.
        """
        hello, server, replication, (seconds, micros), meta = self._question.meaning(answers)
        # Where both are denied, a replica is found out when something is written.
        known = role_of(replication) if isinstance(hello, resp.ServerError) else _role(hello)
        if known not in (None, b"master"):
            raise RemoteFailed("the server is no master")
        _check_protocol(meta or PROTOCOL)
        self._met(Peer(identity_of(server, replication), int(seconds) + int(micros) / 1e6 - asked_at))


def _check_protocol(meta: bytes) -> None:
    if meta != PROTOCOL:
        raise Incompatible(
            f"the namespace is kept by protocol {meta[:20].decode(errors='replace')}, this is {PROTOCOL.decode()}; "
            "use another namespace, or the same release everywhere"
        )


class BusProtocol:
    """One connection's conversation."""

    def __init__(self, names: Names) -> None:
        self.subscribe = resp.pack((b"SUBSCRIBE", names.channel))
        self.greeting = Query(_greeted, (_HELLO, *INFO, greet(names)))
        self.beat = Query(_beaten, (_HELLO, *count(names)))
        self._asked: deque[Query] = deque()
        self._replies: list[Any] = []
        self.confirmed = False

    def request(self, query: Query) -> bytes:
        """The bytes to send for ``greeting`` or ``beat``; its answer stands behind every earlier message."""
        self._asked.append(query)
        return query.packed

    def parse(self, replies: Sequence[Any]) -> list[BusItem]:
        """What the replies mean, in order.

        Raises:
            RemoteFailed: the subscription was refused or ended, or a question was not answered as it should be.
        """
        items: list[BusItem] = []
        for reply in replies:
            if isinstance(reply, resp.Push):
                kind: bytes = reply[0]
                if kind == b"message":
                    items.append(reply[2])
                elif kind == b"subscribe":
                    self.confirmed = True
                else:
                    raise RemoteFailed(f"the server ended the subscription: {kind.decode(errors='replace')}")
                continue
            if not self._asked:
                raise refusal(reply)
            self._replies.append(reply)
            if len(self._replies) == self._asked[0].count:
                answers, self._replies = self._replies, []
                items.append(self._asked.popleft().meaning(answers))
        return items


_HELLO = (b"HELLO", b"3")


def count(names: Names) -> tuple[tuple[Any, ...], ...]:
    """The commands that tell where the counters stand, and when."""
    return (b"HMGET", names.counters, b"s", b"f"), (b"TIME",)


def greet(names: Names) -> tuple[Any, ...]:
    """The command that makes a namespace if need be, and tells the same."""
    return b"EVAL", scripts.GREET.text, b"2", names.counters, names.meta, PROTOCOL


def refusal(reply: object) -> RemoteFailed:
    """Why there is no subscription; an error that goes away by itself says nothing about rights."""
    if isinstance(reply, resp.ServerError) and reply.code in _PASSING:
        return reply
    if isinstance(reply, list):  # a confirmation, but no push: on RESP2 an answer could overtake a message
        return BusRefused(
            "the connection speaks RESP2, on which nothing proves that no message was missed, so L1 stays off and only "
            "Redis serves; use RESP3, which every server speaks that runs the scripts: remove protocol=2 from the URL, "
            "or let the proxy pass HELLO 3 on"
        )
    code = f": {reply.code}" if isinstance(reply, resp.ServerError) else ""
    if code == ": NOAUTH":
        return RemoteMisconfigured("the server wants a password: NOAUTH; name it in the URL")
    return BusRefused(f"the server refused to subscribe{code}; the user needs SUBSCRIBE and the channel")


class Query:
    """Some commands sent at once, and what their replies mean together; the deniable ones may be answered by errors."""

    def __init__(
        self,
        meaning: Callable[[Sequence[Any]], Any],
        commands: Sequence[tuple[Any, ...]],
        deniable: AbstractSet[bytes] = frozenset({b"INFO"}),
    ) -> None:
        self.packed = b"".join(map(resp.pack, commands))
        self.count = len(commands)
        self._commands = commands
        self._deniable = deniable
        self._meaning = meaning

    def meaning(self, answers: Sequence[Any]) -> Any:
        """What the answers mean."""
        for command, answer in zip(self._commands, answers, strict=True):
            if isinstance(answer, resp.ServerError) and answer.code in _PASSING:
                raise answer
            if isinstance(answer, resp.ServerError) and command[0] not in self._deniable:
                raise BusRefused(f"{answer} to {command[0].decode()}")
        return self._meaning(answers)


_PASSING = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "READONLY", "TRYAGAIN"}
"""Errors that go away by themselves; any other says that the server or its user will not do."""


def _greeted(answers: Sequence[Any]) -> Greeting:
    hello, server, replication, counters = answers
    return greeting_of(identity_of(server, replication), counters, _role(hello))


def greeting_of(identity: str | None, counters: bytes, role: object) -> Greeting:
    """A Greeting of what ``greet`` answered.

    Raises:
        Incompatible: the namespace is kept by another protocol.
    """
    _check_protocol(counters[_TRIPLE.size :])
    number, floor, server_time = _TRIPLE.unpack_from(counters)
    return Greeting(identity, number, floor, server_time, role == b"master")


def _beaten(answers: Sequence[Any]) -> Beat:
    hello, *counters = answers
    return beat_of(counters, _role(hello))


def beat_of(counters: Sequence[Any], role: object) -> Beat:
    """A Beat of what ``count`` answered."""
    (number, floor), (seconds, micros) = counters
    return Beat(_int(number), _int(floor), int(seconds) * 1_000_000 + int(micros), role == b"master")


def _role(hello: Mapping[bytes, object] | Sequence[object]) -> object:
    facts = hello if isinstance(hello, Mapping) else dict(zip(hello[::2], hello[1::2], strict=False))
    return facts.get(b"role", b"master")


def role_of(replication: object) -> bytes | None:
    """The role that INFO tells; None where it is denied."""
    found = _ROLE.search(replication) if isinstance(replication, bytes) else None
    return found[1] if found else None


def _int(text: bytes | None) -> int | None:
    return None if text is None else int(text)


def identity_of(server: object, replication: object) -> str | None:
    """Who the server is and whose data it has; None where INFO is denied."""
    if not isinstance(server, bytes) or not isinstance(replication, bytes):
        return None
    run_id, replication_id = _RUN_ID.search(server), _REPLICATION_ID.search(replication)
    return f"{run_id[1].decode()}/{replication_id[1].decode()}" if run_id and replication_id else None
