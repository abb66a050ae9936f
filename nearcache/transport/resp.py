"""RESP by hiredis, without a socket: commands to bytes, bytes to replies, errors to the engine's exceptions.

This is the only file that knows hiredis. An error reply is an object among the replies, it is not raised.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import hiredis
import redis.exceptions

from nearcache.engine.breaker import SERVES_NOBODY
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured, RemoteTimeout
from nearcache.transport import diagnosis

NOTHING: Final = object()
CHUNK = 64 * 1024
"""Bytes decoded at a time; fed more at once, hiredis slows down."""
SILENCES = 10
"""An answer that keeps coming may take so many times ``redis_timeout``, which is the longest silence."""
BUS_CHUNK = 16 * 1024
"""Bytes of the bus that are decoded at a time, some hundreds of keys; other threads and tasks run in between."""

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""Make the bytes of a command whose parts are bytes or str.

Never an int: hiredis calls its repr, which runs signal handlers; when one raises there, as Ctrl-C does, hiredis 3.5
uses the missing result, and the process dies (SIGSEGV).
"""

Push: Any = hiredis.PushNotification
"""The type of RESP3's push messages, which answer no command."""
_NO_RESP = "the server does not speak Redis' protocol; check host and port of the URL"


class ServerError(RemoteFailed):
    """An error reply, with the server's sentence, but not with the arguments of the command that it may quote."""

    sent = False

    def __init__(self, text: str) -> None:
        code = re.match(r"[A-Z]{3,}\b", text)
        self.code = code[0] if code else "ERR"  # which redis-py cuts off
        self.answered = self.code not in SERVES_NOBODY
        self.moved_to = text if self.code in {"ASK", "MOVED"} else ""
        """What a node of a cluster says of the place of a slot."""
        self.advice = diagnosis.advice_on(text)
        super().__init__(diagnosis.explained(text, self.code))

    def unless_final(self) -> RemoteFailed:
        """This error, or RemoteMisconfigured if it is a mistake of the set-up."""
        return RemoteMisconfigured(*self.args) if self.advice and self.advice.final else self


def pack_call(command: tuple[bytes, bytes], names: Sequence[bytes], fields: Sequence[Any]) -> bytes:
    r"""Make the bytes of a call of a script; an int among its fields becomes decimal.

    By a format, which takes large values faster than hiredis does.

    >>> pack_call((b"EVALSHA", b"5f"), (b"m",), (7, b"a")) == pack((b"EVALSHA", b"5f", b"1", b"m", b"7", b"a"))
    True
    """
    count = b"%d" % len(names)
    parts: list[Any] = [len(command[0]), command[0], len(command[1]), command[1], len(count), count]
    for name in names:
        parts.append(len(name))
        parts.append(name)
    for field in fields:
        text = b"%d" % field if type(field) is int else field
        parts.append(len(text))
        parts.append(text)
    size = len(parts) // 2
    return b"*%d\r\n" % size + b"$%d\r\n%b\r\n" * size % tuple(parts)


def commands_of(packed: bytes) -> list[bytes]:
    r"""The bytes of each of some packed commands.

    >>> commands_of(pack((b"GET", b"a")) + pack((b"PING",)))
    [b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n', b'*1\r\n$4\r\nPING\r\n']
    """
    return [pack(tuple(parts)) for parts in _parts_of(packed)]


def single_reads(packed: bytes) -> list[bytes]:
    """One GET for each key of an MGET of several; nothing for another command.

    >>> single_reads(pack((b"MGET", b"a", b"b"))) == [pack((b"GET", b"a")), pack((b"GET", b"b"))]
    True
    """
    name, *keys = next(_parts_of(packed))
    return [pack((b"GET", key)) for key in keys] if name == b"MGET" and len(keys) > 1 else []


def _parts_of(packed: bytes) -> Iterator[list[bytes]]:
    """The parts of each of some packed commands, which are arrays of strings as replies may be."""
    reader = hiredis.Reader(notEnoughData=NOTHING)
    reader.feed(packed)
    while (parts := reader.gets()) is not NOTHING:
        yield parts


class Decoder:
    """A parser of one connection's bytes."""

    __slots__ = ("reader",)

    def __init__(self) -> None:
        self.reader = hiredis.Reader(replyError=ServerError, notEnoughData=NOTHING)

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete with these bytes.

        Args:
            data: at most CHUNK bytes.

        Raises:
            RemoteMisconfigured: the bytes are not RESP.
        """
        reader = self.reader
        replies: list[Any] = []
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOTHING:
                replies.append(reply)
        except hiredis.HiredisError:
            raise RemoteMisconfigured(_NO_RESP) from None
        return replies


def translate(error: BaseException) -> RemoteFailed:
    """An exception of redis-py or a socket as one of the engine; its text may hold secrets and is not kept."""
    exceptions = redis.exceptions
    match error:
        case RemoteFailed():
            return error
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            return RemoteMisconfigured("the server refused the user or password; check both in the URL")
        case exceptions.InvalidResponse() | hiredis.HiredisError():
            return RemoteMisconfigured(_NO_RESP)
        case exceptions.NoPermissionError():
            return RemoteMisconfigured(
                f"the user may not connect as set up: NOPERM {diagnosis.sentence(str(error))}; check its ACL"
            )
        case TimeoutError() | BlockingIOError() | exceptions.TimeoutError():  # the second is the kernel's SO_RCVTIMEO
            return RemoteTimeout("no answer in time")
        case exceptions.ResponseError():
            return ServerError(str(error)).unless_final()
        case _:
            if "max number of clients" in str(error):
                return ServerError(str(error))
            return _of_cause(error)


def _of_cause(error: BaseException) -> RemoteFailed:
    """The innermost cause: ConnectionRefusedError says more than redis-py's ConnectionError around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, redis.exceptions.ResponseError | redis.exceptions.AuthenticationError):
        return translate(error)
    problem = diagnosis.problem_of_tls(error) if isinstance(error, ssl.SSLError) else None
    return (
        RemoteFailed(f"the connection failed: {type(error).__name__}")
        if problem is None
        else RemoteMisconfigured(problem)
    )
