"""Readers that wait for news of a key from other processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from nearcache.local.interrupts import make_lock


class Wake(Protocol):
    """Something that is woken from anywhere."""

    def set(self) -> None:
        """Wake the caller that waits, now or later."""
        ...


class Latch(Wake, Protocol):
    """Something that waits once and is woken from anywhere."""

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether it was woken."""
        ...


class Waiters:
    """Callers that wait for news of a key from other processes."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._waiting: dict[str, list[Wake]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str, wake: Wake) -> None:
        """Register a caller, before anything is sent, so that no news is missed."""
        with self._lock:
            self._waiting.setdefault(key, []).append(wake)

    def remove(self, key: str, wake: Wake) -> None:
        """Forget a caller."""
        with self._lock:
            waiting = self._waiting.get(key, [])
            if wake in waiting:  # unless an interrupt came before it was there
                waiting.remove(wake)
            if not waiting:
                self._waiting.pop(key, None)

    def wake(self, keys: Iterable[str]) -> None:
        """Wake the callers that wait for these keys."""
        if not self._waiting:
            return
        with self._lock:
            woken = [wake for key in keys for wake in self._waiting.get(key, ())]
        for wake in woken:
            wake.set()

    def wake_all(self) -> None:
        """Wake all callers: the news may be of any key."""
        with self._lock:
            woken = [wake for waiting in self._waiting.values() for wake in waiting]
        for wake in woken:
            wake.set()
