"""How threads wait: by primitives in C alone, which an interruption leaves whole; and in real time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

LOOK_AGAIN = 1.0
"""Seconds after which a waiting thread looks for itself whether it was woken."""


class ThreadLatch:
    """A Latch for threads.

    Made of a flag and a lock in C, since threading.Event has code in Python under its lock: a signal handler or a
    finaliser that sets one on the thread that is in there waits for itself, and a KeyboardInterrupt leaves it locked.
    """

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        self._is_set = True
        self._open()

    async def wait(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while not self._is_set:
            left = until - time.monotonic()
            if left <= 0:
                return False
            # Looking again now and then: whoever was to open the gate for the next one may have been interrupted.
            if self._gate.acquire(timeout=min(left, LOOK_AGAIN)):
                self._open()
        return True

    def _open(self) -> None:
        with suppress(RuntimeError):  # it is open
            self._gate.release()


class ThreadPermits:
    """Permits for threads; in C, unlike threading.Semaphore, whose locks a KeyboardInterrupt can leave locked."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)
        self.release = partial(self._free.put, None)

    async def acquire(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds."""
        try:
            self._free.get(timeout=timeout) if timeout > 0 else self._free.get_nowait()
        except Empty:
            return False
        return True
