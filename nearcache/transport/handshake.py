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
from functools import partial
from typing import Any

from nearcache.engine.breaker import ELSEWHERE
from nearcache.engine.ports import BusRefused, Incompatible, RemoteFailed, RemoteMisconfigured
from nearcache.protocol import scripts
from nearcache.protocol.answers import Beat, BusItem, Empty, Greeting, Introduction, Peer
from nearcache.protocol.names import Names
from nearcache.protocol.versions import share_of, whole
from nearcache.transport import resp
from nearcache.transport.claims import Claims, Vacant
from nearcache.transport.diagnosis import problem_of_server
from nearcache.transport.interpreting import interprets

_NEEDS_RESP3 = (
    "the connection speaks RESP2, and L1 needs RESP3: only there an answer comes on the connection of the messages and "
    "cannot overtake one, which proves that none was missed. Every server that can run the scripts speaks RESP3: "
    "remove protocol=2 from the URL, and let the server or the proxy before it accept HELLO 3"
)
_INFO = ((b"INFO", b"server"), (b"INFO", b"replication"))
_PASSING = {"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "READONLY", *ELSEWHERE}
"""Error codes of a state that ends by itself, and that says nothing about the rights of the user."""
_WHO = ((b"HELLO",), *_INFO, (b"TIME",))
_GREET = frozenset({b"EVAL"})
_DENIABLE = _GREET | {b"HELLO", b"INFO"}
_INTRODUCTION = struct.Struct(">QQQB")
_ALTERNATES = 2
_ROLE = (b"HELLO", b"3")
"""Its answer tells the role."""
BEAT_HEAD = (_ROLE, (b"TIME",))
"""The part of a heartbeat that asks for what is the server's."""
GREETING_HEAD = (_ROLE, *_INFO)
"""That of a greeting."""


class Query:
    """Commands that are sent together, and one function for all their replies.

    Args:
        parse: makes the result from the replies.
        commands: sent in this order.
        deniable: names of commands whose reply may be an error; ``parse`` gets the error then.
        passing: those of them for which this includes the errors of a cluster's node that does not serve the names.
    """

    def __init__(
        self,
        parse: Callable[[Sequence[Any]], Any],
        commands: Sequence[tuple[Any, ...]],
        deniable: AbstractSet[bytes] = frozenset({b"INFO"}),
        passing: AbstractSet[bytes] = frozenset(),
    ) -> None:
        self.packed = b"".join(map(resp.pack, commands))
        self.count = len(commands)
        self._commands = commands
        self._deniable = deniable
        self._passing = passing
        self._parse = parse

    @interprets
    def parse(self, replies: Sequence[Any]) -> Any:
        """The result.

        Raises:
            RemoteFailed: the server refused a command that it may not refuse.
        """
        for command, reply in zip(self._commands, replies, strict=True):
            if command[0] == b"HELLO" and (problem := problem_of_server(reply)):
                raise RemoteMisconfigured(problem)
            if isinstance(reply, resp.ServerError):
                if reply.code in ELSEWHERE and command[0] in self._passing:
                    continue
                if reply.code in _PASSING or reply.unless_final() is not reply:
                    raise reply.unless_final()
                if command[0] not in self._deniable:
                    raise BusRefused(f"{command[0].decode()} was refused: {reply}")
        return self._parse(replies)


class Handshake:
    """The question on each new connection for commands: who the server is, its role, its clock, the namespace's owner.

    Args:
        names: of the namespace.
        on_connected: called with the server that answered.
        seen: the highest number that the client has seen.
        claims: what the buckets have told; None: there is one.
    """

    def __init__(
        self,
        names: Names,
        on_connected: Callable[[Peer], None],
        seen: Callable[[], int] = lambda: 0,
        claims: Claims | None = None,
    ) -> None:
        self._on_connected = on_connected
        self._names = names
        self._seen = seen
        self.claims = claims or Claims()

    @property
    def query(self) -> Query:
        """The commands. greet comes before anything else that this connection is used for (U)."""
        return Query(tuple, (*_WHO, self.greet), _DENIABLE)

    @property
    def greet(self) -> tuple[bytes, ...]:
        """The command that introduces the client."""
        return _greet(self._names, self._seen(), self.claims)

    @interprets
    def check(self, replies: Sequence[Any], asked_at: float) -> None:
        """Accept or refuse the server.

        Args:
            replies: to ``query``.
            asked_at: when it was sent, in monotonic seconds.

        Raises:
            RemoteFailed: the server is no primary, or another version of the protocol keeps the namespace, or nobody.
        """
        self.accept(self.query.parse(replies), asked_at)

    def accept(self, told: Sequence[Any], asked_at: float) -> None:
        """Accept or refuse the server by the results of the commands.

        Raises:
            RemoteFailed: as ``check``.
        """
        hello, server, replication, (seconds, micros), introduction = told
        if isinstance(introduction, resp.ServerError) and introduction.code in _PASSING:
            raise introduction
        # Where the user may call neither HELLO nor INFO, the first write finds out that the server is a replica.
        role = _field(replication, b"role") if isinstance(hello, resp.ServerError) else _role(hello)
        if role not in (None, b"master"):
            raise RemoteFailed("the server is no master")
        alternates = False
        if isinstance(introduction, bytes):  # else the user may not run it, and only reads
            alternates = _introduced(introduction, self._names, self.claims).alternates
            self.claims.check(self._names)
        identity = None if alternates else _identity(server, replication, self._names.database)
        self._on_connected(Peer(identity, int(seconds) + int(micros) / 1e6 - asked_at))


class SharedHandshake(Handshake):
    """The handshake of a connection that serves several buckets: greet introduces the client to each.

    Args:
        members: the handshakes of the buckets.
    """

    def __init__(self, members: Sequence[Handshake]) -> None:
        one = members[0]
        super().__init__(one._names, one._on_connected)  # noqa: SLF001  # of this class; not used
        self._members = members

    @property
    def query(self) -> Query:
        """The commands."""
        greets = (one.greet for one in self._members)
        return Query(tuple, (*_WHO, *greets), _DENIABLE, _GREET)

    @interprets
    def check(self, replies: Sequence[Any], asked_at: float) -> None:
        """Accept or refuse the server, as each member does.

        A bucket that the server does not have, or not now, is left out: its requests will be refused there, too.
        """
        told = self.query.parse(replies)
        refusals: list[RemoteFailed] = []
        for one, introduction in zip(self._members, told[len(_WHO) :], strict=True):
            if not (isinstance(introduction, resp.ServerError) and introduction.code in ELSEWHERE):
                try:
                    one.accept((*told[: len(_WHO)], introduction), asked_at)
                except (Incompatible, Vacant) as refusal:  # what the others say is noted all the same
                    refusals.append(refusal)
        if refusals:
            raise min(refusals, key=lambda one: not isinstance(one, Incompatible))


class BusProtocol:
    """The conversation on one subscribed connection."""

    def __init__(self, names: Names, seen: Callable[[], int] = lambda: 0, claims: Claims | None = None) -> None:
        self._claims = claims or Claims()
        self.subscribe = resp.pack((b"SUBSCRIBE", names.channel))
        self._names = names
        self._seen = seen
        counters = (b"HMGET", names.counters, b"s", b"f", b"i", b"l")
        self.beat = Query(_beat, (*BEAT_HEAD, counters))
        self.counters = resp.pack(counters)
        """The part of a heartbeat that asks for what is the bucket's own."""
        self.confirmed = False
        """Whether the server has confirmed the subscription."""
        self._pending: deque[Query] = deque()
        self._replies: list[Any] = []
        """The replies to the oldest pending query, as far as they have come."""

    @property
    def greeting(self) -> Query:
        """The question for a greeting."""
        return Query(partial(_greeting, self._names, self._claims), (*GREETING_HEAD, *self._introduction))

    @property
    def introduction(self) -> bytes:
        """The part of a greeting that asks for what is the bucket's own."""
        return b"".join(map(resp.pack, self._introduction))

    @property
    def _introduction(self) -> Sequence[tuple[bytes, ...]]:
        return _greet(self._names, self._seen(), self._claims), (b"HMGET", self._names.counters, b"l")

    def request(self, query: Query) -> bytes:
        """The bytes to send for ``greeting`` or ``beat``; ``parse`` gives its result when all replies are there."""
        self._pending.append(query)
        return query.packed

    @interprets
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
                raise refusal(reply)
            self._replies.append(reply)
            if len(self._replies) == self._pending[0].count:
                complete, self._replies = self._replies, []
                items.append(self._pending.popleft().parse(complete))
        return items


def refusal(reply: object, *, sharded: bool = False) -> RemoteFailed:
    """The reason why a reply that is no push refuses the subscription; ``sharded``: which a cluster has."""
    if isinstance(reply, list) and reply[:1] in ([b"subscribe"], [b"ssubscribe"]):  # RESP2 confirms by a plain array
        return BusRefused(_NEEDS_RESP3)
    code = reply.code if isinstance(reply, resp.ServerError) else ""
    if isinstance(reply, resp.ServerError) and code in _PASSING:
        return reply
    if code == "NOAUTH":
        return RemoteMisconfigured("the server wants a password: NOAUTH; name it in the URL")
    said = f": {reply}" if isinstance(reply, resp.ServerError) else ""
    right = "+ssubscribe" if sharded else "+subscribe"
    return BusRefused(f"the server refused to subscribe{said}; the user needs {right} and the channel")


def _greet(names: Names, seen: int, claims: Claims) -> tuple[bytes, ...]:
    fields = names.protocol, b"%d" % names.database, b"%d" % seen, b"%d" % claims.may(names)
    return (b"EVAL", scripts.GREET.text, b"2", names.counters, names.scratch, *fields)


def _greeting(names: Names, claims: Claims, replies: Sequence[Any]) -> Greeting | Empty:
    hello, server, replication, answer, (share,) = replies
    told = _introduced(answer, names, claims)
    empty = claims.empty(names)
    if empty is not None:
        return empty
    claims.check(names)
    # Where two servers answer by turns, nothing says who answers: as where INFO is denied.
    identity = None if told.alternates else _identity(server, replication, names.database)
    master = _role(hello) == b"master"
    place = told.number, told.floor, told.server_time, master, told.history, told.adopted
    lone = not names.sharded and _told(hello).get(b"mode") == b"cluster"
    return Greeting(identity, *place, l1_share=share_of(share), lone_node=lone)


def _introduced(answer: bytes, names: Names, claims: Claims) -> Introduction:
    """The answer of greet; whose the bucket is, is noted."""
    number, floor, server_time, good = _INTRODUCTION.unpack_from(answer)
    history, _, owner = answer[_INTRODUCTION.size :].partition(b" ")
    claims.tell(names, owner)
    return Introduction(
        number, floor, server_time, good != 0, good == _ALTERNATES, history.decode(errors="replace") or None
    )


def _beat(replies: Sequence[Any]) -> Beat:
    hello, (seconds, micros), (number, floor, history, share) = replies
    server_time = int(seconds) * 1_000_000 + int(micros)
    told = history.decode(errors="replace") or None if isinstance(history, bytes) else None
    return Beat(whole(number), whole(floor), server_time, _role(hello) == b"master", told, share_of(share))


def _role(hello: Mapping[bytes, object] | Sequence[object]) -> object:
    return _told(hello).get(b"role", b"master")


def _told(hello: Mapping[bytes, object] | Sequence[object]) -> Mapping[Any, object]:
    """HELLO's reply by RESP3 or RESP2."""
    return hello if isinstance(hello, Mapping) else dict(zip(hello[::2], hello[1::2], strict=False))


def _identity(server: object, replication: object, database: int) -> str | None:
    """The server process, the history of its data set, and the database; None where the user may not call INFO."""
    run_id, history = _field(server, b"run_id"), _field(replication, b"master_replid")
    return f"{run_id.decode()}/{history.decode()}/{database}" if run_id and history else None


def _field(info: object, name: bytes) -> bytes | None:
    """A field of INFO's reply; None where the user may not call it."""
    found = re.search(rb"^%b:(\w+)" % name, info, re.MULTILINE) if isinstance(info, bytes) else None
    return found[1] if found else None
