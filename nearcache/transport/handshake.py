"""The questions asked on new connections and on the bus, and the meaning of the replies.

A connection for commands is asked who the server is before it is used. The bus subscribes first. Its questions are then
pipelined on the subscribed connection itself, so that an answer stands behind every message that the server sent before
it. RESP2 does not allow that: there a subscribed connection takes no other command, so the bus is refused.
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

_NEEDS_RESP3 = (
    "the connection speaks RESP2, and L1 needs RESP3: only there an answer comes on the connection of the messages and "
    "cannot overtake one, which proves that none was missed. Every server that can run the scripts speaks RESP3: "
    "remove protocol=2 from the URL, and let the server or the proxy before it accept HELLO 3"
)
_INFO = ((b"INFO", b"server"), (b"INFO", b"replication"))
_PASSING = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "READONLY", "TRYAGAIN"}
"""Error codes of a state that ends by itself, and that says nothing about the rights of the user."""
_TRIPLE = struct.Struct(">QQQ")


class Query:
    """Commands that are sent together, and one function for all their replies.

    Args:
        parse: makes the result from the replies.
        commands: sent in this order.
        deniable: names of commands whose reply may be an error; ``parse`` gets the error then.
    """

    def __init__(
        self,
        parse: Callable[[Sequence[Any]], Any],
        commands: Sequence[tuple[Any, ...]],
        deniable: AbstractSet[bytes] = frozenset({b"INFO"}),
    ) -> None:
        self.packed = b"".join(map(resp.pack, commands))
        self.count = len(commands)
        self._commands = commands
        self._deniable = deniable
        self._parse = parse

    def parse(self, replies: Sequence[Any]) -> Any:
        """The result.

        Raises:
            RemoteFailed: the server refused a command that it may not refuse.
        """
        for command, reply in zip(self._commands, replies, strict=True):
            if isinstance(reply, resp.ServerError):
                if reply.code in _PASSING:
                    raise reply
                if command[0] not in self._deniable:
                    raise BusRefused(f"{reply} to {command[0].decode()}")
        return self._parse(replies)


class Handshake:
    """The question on each new connection for commands: who the server is, its role, its clock, the namespace's owner.

    Args:
        names: of the namespace.
        on_connected: called with the server that answered.
    """

    def __init__(self, names: Names, on_connected: Callable[[Peer], None]) -> None:
        self._on_connected = on_connected
        self.query = Query(tuple, ((b"HELLO",), *_INFO, (b"TIME",), (b"GET", names.meta)), {b"HELLO", b"INFO"})

    def check(self, replies: Sequence[Any], asked_at: float) -> None:
        """Accept or refuse the server.

        Args:
            replies: to ``query``.
            asked_at: when it was sent, in monotonic seconds.

        Raises:
            RemoteFailed: the server is no primary, or another version of the protocol keeps the namespace.
        """
        hello, server, replication, (seconds, micros), owner = self.query.parse(replies)
        # Where the user may call neither HELLO nor INFO, the first write finds out that the server is a replica.
        role = _field(replication, b"role") if isinstance(hello, resp.ServerError) else _role(hello)
        if role not in (None, b"master"):
            raise RemoteFailed("the server is no master")
        _check_owner(owner or PROTOCOL)
        self._on_connected(Peer(_identity(server, replication), int(seconds) + int(micros) / 1e6 - asked_at))


class BusProtocol:
    """The conversation on one subscribed connection."""

    def __init__(self, names: Names) -> None:
        self.subscribe = resp.pack((b"SUBSCRIBE", names.channel))
        hello = (b"HELLO", b"3")  # tells the role
        greet = (b"EVAL", scripts.GREET.text, b"2", names.counters, names.meta, PROTOCOL)
        self.greeting = Query(_greeting, (hello, *_INFO, greet))
        self.beat = Query(_beat, (hello, (b"HMGET", names.counters, b"s", b"f"), (b"TIME",)))
        self.confirmed = False
        """Whether the server has confirmed the subscription."""
        self._pending: deque[Query] = deque()
        self._replies: list[Any] = []
        """The replies to the oldest pending query, as far as they have come."""

    def request(self, query: Query) -> bytes:
        """The bytes to send for ``greeting`` or ``beat``; ``parse`` gives its result when all replies are there."""
        self._pending.append(query)
        return query.packed

    def parse(self, replies: Sequence[Any]) -> list[BusItem]:
        """The messages and the results of queries in these replies, in order.

        Raises:
            RemoteFailed: the server refused or ended the subscription, or refused a query.
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
            if not self._pending:
                raise _refusal(reply)
            self._replies.append(reply)
            if len(self._replies) == self._pending[0].count:
                complete, self._replies = self._replies, []
                items.append(self._pending.popleft().parse(complete))
        return items


def _refusal(reply: object) -> RemoteFailed:
    """The reason why a reply that is no push refuses the subscription."""
    if isinstance(reply, list) and reply[:1] == [b"subscribe"]:  # RESP2 confirms by a plain array
        return BusRefused(_NEEDS_RESP3)
    code = reply.code if isinstance(reply, resp.ServerError) else ""
    if isinstance(reply, resp.ServerError) and code in _PASSING:
        return reply
    if code == "NOAUTH":
        return RemoteMisconfigured("the server wants a password: NOAUTH; name it in the URL")
    code = code and f": {code}"
    return BusRefused(f"the server refused to subscribe{code}; the user needs SUBSCRIBE and the channel")


def _greeting(replies: Sequence[Any]) -> Greeting:
    hello, server, replication, counters = replies
    _check_owner(counters[_TRIPLE.size :])
    number, floor, server_time = _TRIPLE.unpack_from(counters)
    return Greeting(_identity(server, replication), number, floor, server_time, _role(hello) == b"master")


def _beat(replies: Sequence[Any]) -> Beat:
    hello, (number, floor), (seconds, micros) = replies
    server_time = int(seconds) * 1_000_000 + int(micros)
    return Beat(number and int(number), floor and int(floor), server_time, _role(hello) == b"master")


def _check_owner(owner: bytes) -> None:
    if owner != PROTOCOL:
        raise Incompatible(
            f"the namespace is kept by protocol {owner[:20].decode(errors='replace')}, this is {PROTOCOL.decode()}; "
            "use another namespace, or the same release everywhere"
        )


def _role(hello: Mapping[bytes, object] | Sequence[object]) -> object:
    facts = hello if isinstance(hello, Mapping) else dict(zip(hello[::2], hello[1::2], strict=False))
    return facts.get(b"role", b"master")


def _identity(server: object, replication: object) -> str | None:
    """The server process and the history of its data set; None where the user may not call INFO."""
    run_id, history = _field(server, b"run_id"), _field(replication, b"master_replid")
    return f"{run_id.decode()}/{history.decode()}" if run_id and history else None


def _field(info: object, name: bytes) -> bytes | None:
    """A field of INFO's reply; None where the user may not call it."""
    found = re.search(rb"^%b:(\w+)" % name, info, re.MULTILINE) if isinstance(info, bytes) else None
    return found[1] if found else None
