"""What an exception out of a signal handler must not leave behind, wherever it comes: a lock held, an outcome shared.

``with lock`` releases the lock only where the interpreter looks for signals at no point between the acquisition and
the protected body; and a compiler may leave a point of the body unprotected, as that of 3.13.0 does with the jump back
of a loop. So an operation that ends with an exception also releases the locks that its thread still has.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any, Protocol

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def make_lock() -> Any:
    """A new lock that ``release_left`` frees; its thread may take it again, as a signal handler or finaliser does."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def release_left() -> None:
    """Release the locks that this thread has; where an exception leaves the outermost operation of the thread."""
    for lock in tuple(_locks):
        while lock._is_owned():  # noqa: SLF001  # what threading.Condition asks, in every release of Python
            lock.release()


class Bounded(Protocol):
    """What gives permits away."""

    def add_permit(self) -> None:
        """Have one more to give."""
        ...


class Permit:
    """One of a few. Its destructor adds another when an interrupt lost it before it was returned."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Bounded) -> None:
        self._owner: Callable[[], Bounded | None] = weakref.ref(owner)

    def retire(self) -> None:
        """Let there be one less."""
        self._owner = _nobody

    def __del__(self) -> None:
        owner = self._owner()
        if owner is not None:
            owner.add_permit()


def _nobody() -> None:
    return None


def from_signal_handler(error: BaseException) -> bool:
    """Whether an exception was raised by a signal handler: its traceback runs through the code of one.

    Such an exception is not the failure of what it has interrupted, so it must reach the caller as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = [_code_of(signal.getsignal(number)) for number in signal.valid_signals()]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:
    handler = getattr(handler, "func", handler)  # a partial's
    handler = getattr(handler, "__func__", handler)  # a method's
    code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
