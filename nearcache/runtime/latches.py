"""Latches and permits for threads: from primitives in C alone, which an interrupt leaves intact; in real time."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from nearcache.local.interrupts import Permit

LOOK_AGAIN = 1.0
"""Seconds after which a waiting thread checks by itself whether the latch was set."""


class ThreadLatch:
    """A Latch for threads.

    It is a flag and a lock in C, since threading.Event runs Python code under its lock: a signal handler or a finaliser
    that sets one on a thread inside that code would wait for itself, and a KeyboardInterrupt would leave it locked.
    """

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        self._is_set = True
        try:  # noqa: SIM105  # suppress is three calls more for each load
            self._gate.release()
        except RuntimeError:  # it is open already
            pass

    async def wait(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while not self._is_set:
            left = until - time.monotonic()
            if left <= 0:
                return False
            # Checked again now and then: a thread that should have opened the gate for the next may be interrupted.
            if self._gate.acquire(timeout=min(left, LOOK_AGAIN)):
                self.set()
        return True


class ThreadPermits:
    """Permits for threads; in C, unlike threading.Semaphore, whose locks a KeyboardInterrupt can leave locked."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[Permit] = SimpleQueue()
        for _ in range(count):
            self.add_permit()

    def add_permit(self) -> None:
        """Let there be one more."""
        self._free.put(self.more())

    def more(self) -> Permit:
        return Permit(self)

    def release(self, permit: Any) -> None:
        self._free.put(permit)

    def retire(self, permit: Any) -> None:
        permit.retire()

    async def acquire(self, timeout: float) -> Permit | None:
        try:
            return self._free.get(timeout=timeout) if timeout > 0 else self._free.get_nowait()
        except Empty:
            return None
