"""Run a coroutine of the engine to completion in the caller's thread.

Why it is safe: a coroutine suspends only where something that it awaits yields. The threaded adapters block instead and
never yield, so one ``send(None)`` runs the whole coroutine. An adapter that does yield is a bug, and raises at once.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

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
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise RuntimeError("a port of a threaded cache suspended; it must block instead")
