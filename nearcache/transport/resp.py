"""RESP by hiredis, without a socket: commands to bytes, bytes to replies, errors to what the flows understand.

The only file that knows hiredis. A reply that is an error is an object in the stream, not an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hiredis
import redis.exceptions

from nearcache.engine.breaker import SERVES_NOBODY
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured, RemoteTimeout

NOTHING: Final = object()
CHUNK = 64 * 1024
"""Bytes decoded at a time; fed more at once, hiredis slows down."""
BUS_CHUNK = 16 * 1024
"""Bytes of the bus that are taken in at a time, some hundreds of keys: then it is everybody else's turn."""

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command of bytes and str, as sent.

Never an int: of those hiredis asks for the repr, which looks for signals; and when a signal's handler raises there, as
Ctrl-C does, hiredis 3.5 takes the missing answer for one, and the process dies (SIGSEGV).
"""
Push: Any = hiredis.PushNotification
"""The type of replies that were not asked for."""


class ServerError(RemoteFailed):
    """An error reply. Only its code is kept: the text behind it may quote keys and values."""

    sent = False

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]
        self.answered = self.code not in SERVES_NOBODY
        super().__init__(f"the server answered {self.code}")


class Decoder:
    """Bytes in, replies out."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=ServerError, notEnoughData=NOTHING)

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now; of at most CHUNK bytes.

        Raises:
            RemoteMisconfigured: the bytes are not RESP.
        """
        reader = self._reader
        replies: list[Any] = []
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOTHING:
                replies.append(reply)
        except hiredis.HiredisError:
            raise foreign_protocol() from None
        return replies


def foreign_protocol() -> RemoteMisconfigured:
    """What answers is no Redis."""
    return RemoteMisconfigured("the server does not speak Redis' protocol; check host and port of the URL")


def translate(error: BaseException) -> RemoteFailed:
    """What redis-py or a socket raised, as what the flows understand; its text is not kept, it may hold secrets."""
    exceptions = redis.exceptions
    match error:
        case RemoteFailed():
            return error
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            return RemoteMisconfigured("the server refused the user or password; check both in the URL")
        case exceptions.InvalidResponse():
            return foreign_protocol()
        case exceptions.NoPermissionError():
            return RemoteMisconfigured("the user may not connect as set up: NOPERM; check its ACL")
        case TimeoutError() | BlockingIOError() | exceptions.TimeoutError():  # the second is the kernel's SO_RCVTIMEO
            return RemoteTimeout("no answer in time")
        case exceptions.ResponseError():
            return ServerError(str(error))
        case _:
            return RemoteFailed(f"the connection failed: {type(_root(error)).__name__}")


def _root(error: BaseException) -> BaseException:
    """The innermost cause: ConnectionRefusedError says more than redis-py's ConnectionError around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
