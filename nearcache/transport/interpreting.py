"""Replies that are well-formed, but not what their command gives: each becomes a RemoteFailed, in one place.

A proxy, a server of another kind or a bug may answer anything. Code that interprets replies need not check for all of
that: an exception out of it says that the reply was odd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from nearcache.engine.ports import RemoteFailed
from nearcache.local.interrupts import from_signal_handler

P = ParamSpec("P")
R = TypeVar("R")


class OddReply(RemoteFailed):
    """A reply that is not what the command gives. Its contents are not kept, since they may be a value."""

    def __init__(self, surprise: Exception) -> None:
        super().__init__(f"the server answered something else than the command gives: {type(surprise).__name__}")


def interprets(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of replies raise nothing but RemoteFailed."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RemoteFailed:
            raise
        except Exception as surprise:  # whatever an odd reply leads to
            if from_signal_handler(surprise):
                raise
            raise OddReply(surprise) from None

    return guarded


def raise_odd(remote: Any, surprise: Exception) -> NoReturn:
    """Raise what an exception out of code that interprets replies stands for; an odd reply ends the connection.

    Raises:
        RemoteFailed: for a reply that is odd, or is an error. Else the exception itself, from a signal handler.
    """
    if isinstance(surprise, RemoteFailed) or from_signal_handler(surprise):
        raise surprise
    remote.discard_idle()
    raise OddReply(surprise) from None
