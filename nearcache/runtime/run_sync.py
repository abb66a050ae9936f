"""Run a coroutine of the engine to completion in the caller's thread.

Why it is safe: a coroutine suspends only where something that it awaits yields. The threaded adapters block instead and
never yield, so one ``send(None)`` runs the whole coroutine. An adapter that does yield is a bug, and raises at once.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from nearcache.engine.gathering import Question
from nearcache.local.interrupts import release_left

T = TypeVar("T")


def run_sync(flow: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over ports that never suspend.

    Raises:
        RuntimeError: a port suspended.

    >>> async def flow():
    ...     return 7
    >>> run_sync(flow())
    7
    """
    try:
        point = flow.send(None)
        while isinstance(point, Question):  # called by user code inside one of several flows
            try:
                replies = point.answer()
            except BaseException as failure:  # noqa: BLE001  # the flow has to take it
                point = flow.throw(failure)
            else:
                point = flow.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except BaseException:
        if not _is_nested():
            release_left()
        raise
    flow.close()
    raise RuntimeError("a port of a threaded cache suspended; it must block instead")


def _is_nested() -> bool:
    """Whether the caller's operation runs inside another one of this thread: in its loader, or in a signal handler."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # public in all but its name
    while frame is not None:
        if frame.f_code is run_sync.__code__:
            return True
        frame = frame.f_back
    return False
