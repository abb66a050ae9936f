"""RESP by hiredis, without a socket: commands to bytes, bytes to replies, errors to the engine's exceptions.

This is the only file that knows hiredis. An error reply is an object among the replies, it is not raised.
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
    """An error reply. Only its code is kept, since the text behind it may quote keys and values."""

    sent = False

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]
        self.answered = self.code not in SERVES_NOBODY
        super().__init__(f"the server answered {self.code}")


class Decoder:
    """A parser of one connection's bytes."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=ServerError, notEnoughData=NOTHING)

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete with these bytes.

        Args:
            data: at most CHUNK bytes.

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
        case exceptions.InvalidResponse():
            return RemoteMisconfigured(_NO_RESP)
        case exceptions.NoPermissionError():
            return RemoteMisconfigured("the user may not connect as set up: NOPERM; check its ACL")
        case TimeoutError() | BlockingIOError() | exceptions.TimeoutError():  # the second is the kernel's SO_RCVTIMEO
            return RemoteTimeout("no answer in time")
        case exceptions.ResponseError():
            return ServerError(str(error))
        case _:
            # The innermost cause: ConnectionRefusedError says more than redis-py's ConnectionError around it.
            while (inner := error.__cause__ or error.__context__) is not None:
                error = inner
            return RemoteFailed(f"the connection failed: {type(error).__name__}")
