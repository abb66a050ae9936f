"""What is said on new connections and on the bus: introduce, subscribe, greet, heartbeat; and what the replies mean.

Questions are pipelined on the subscribed connection itself (RESP3), so that an answer stands behind every message that
the server sent before it.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nearcache.ports import Beat, BusItem, BusRefused, Greeting, Incompatible, Met, RemoteFailed
from nearcache.remote import resp, scripts
from nearcache.remote.names import PROTOCOL, Names

_TRIPLE = struct.Struct(">QQQ")
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_REPLICATION_ID = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)


class Introduction:
    """What every new connection for commands is asked before it is used."""

    def __init__(self, names: Names, met: Callable[[Met], None]) -> None:
        self._met = met
        self._question = _Question(
            tuple, ((b"HELLO",), (b"INFO", b"server"), (b"INFO", b"replication"), (b"TIME",), (b"GET", names.meta))
        )
        self.packed = self._question.packed
        self.count = self._question.count

    def hear(self, answers: Sequence[Any], asked_at: float) -> None:
        """Take the answers to what was asked then (monotonic seconds).

        Raises:
            RemoteFailed: the server is no master, or the namespace is kept by another protocol.
        """
        hello, server, replication, (seconds, micros), meta = self._question.meaning(answers)
        if not _is_master(hello):
            raise RemoteFailed("the server is no master")
        _check_protocol(meta or PROTOCOL)
        self._met(Met(_identity(server, replication), int(seconds) + int(micros) / 1e6 - asked_at))


def _check_protocol(meta: bytes) -> None:
    if meta != PROTOCOL:
        raise Incompatible(
            f"the namespace is kept by protocol {meta[:20].decode(errors='replace')}, this is {PROTOCOL.decode()}; "
            "use another namespace, or the same release everywhere"
        )


class Talk:
    """One connection's conversation."""

    def __init__(self, names: Names) -> None:
        counters = (b"HMGET", names.counters, b"s", b"f")
        greet = (b"EVAL", scripts.GREET.text, b"2", names.counters, names.meta, PROTOCOL)
        self.subscribe = resp.pack((b"SUBSCRIBE", names.channel))
        self._greeting = _Question(_greeted, (_HELLO, (b"INFO", b"server"), (b"INFO", b"replication"), greet))
        self._beat = _Question(_beaten, (_HELLO, counters, (b"TIME",)))
        self._asked: deque[_Question] = deque()
        self._replies: list[Any] = []
        self.confirmed = False

    def ask_greeting(self) -> bytes:
        """What to send for a Greeting."""
        self._asked.append(self._greeting)
        return self._greeting.packed

    def ask_beat(self) -> bytes:
        """What to send for a Beat."""
        self._asked.append(self._beat)
        return self._beat.packed

    def understand(self, replies: Sequence[Any]) -> list[BusItem]:
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
                if isinstance(reply, resp.ServerError) and reply.code in _PASSING:
                    raise reply
                code = f": {reply.code}" if isinstance(reply, resp.ServerError) else ""
                raise BusRefused(f"the server refused to subscribe{code}; the user needs SUBSCRIBE and the channel")
            self._replies.append(reply)
            if len(self._replies) == self._asked[0].count:
                answers, self._replies = self._replies, []
                items.append(self._asked.popleft().meaning(answers))
        return items


_HELLO = (b"HELLO", b"3")


class _Question:
    """Some commands sent at once, and what their replies mean together."""

    def __init__(self, meaning: Callable[[Sequence[Any]], Any], commands: Sequence[tuple[Any, ...]]) -> None:
        self.packed = b"".join(map(resp.pack, commands))
        self.count = len(commands)
        self._commands = commands
        self._meaning = meaning

    def meaning(self, answers: Sequence[Any]) -> Any:
        """What the answers mean; INFO may be denied, nothing else."""
        for command, answer in zip(self._commands, answers, strict=True):
            if isinstance(answer, resp.ServerError) and command[0] != b"INFO":
                raise answer if answer.code in _PASSING else BusRefused(f"{answer} to {command[0].decode()}")
        return self._meaning(answers)


_PASSING = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "READONLY", "TRYAGAIN"}
"""Errors that go away by themselves; any other says that the server or its user will not do."""


def _greeted(answers: Sequence[Any]) -> Greeting:
    hello, server, replication, counters = answers
    _check_protocol(counters[_TRIPLE.size :])
    number, floor, server_time = _TRIPLE.unpack_from(counters)
    return Greeting(_identity(server, replication), number, floor, server_time, _is_master(hello))


def _beaten(answers: Sequence[Any]) -> Beat:
    hello, (number, floor), (seconds, micros) = answers
    return Beat(_int(number), _int(floor), int(seconds) * 1_000_000 + int(micros), _is_master(hello))


def _is_master(hello: Mapping[bytes, object] | Sequence[object]) -> bool:
    facts = hello if isinstance(hello, Mapping) else dict(zip(hello[::2], hello[1::2], strict=False))
    return facts.get(b"role", b"master") == b"master"


def _int(text: bytes | None) -> int | None:
    return None if text is None else int(text)


def _identity(server: object, replication: object) -> str | None:
    """Who the server is and whose data it has; None where INFO is denied."""
    if not isinstance(server, bytes) or not isinstance(replication, bytes):
        return None
    run_id, replication_id = _RUN_ID.search(server), _REPLICATION_ID.search(replication)
    return f"{run_id[1].decode()}/{replication_id[1].decode()}" if run_id and replication_id else None
