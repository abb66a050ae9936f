"""A clock that stands until it is told to advance: put where the library reads the time, while it is entered."""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Protocol, Self

PLACES = (
    "nearcache.sync",
    "nearcache.aio",
    "nearcache.functions.cached",
    "nearcache.base",
    "nearcache.runtime.threads",
    "nearcache.runtime.tasks",
    "nearcache.transport.memory",
    "nearcache.testing.network",
)
"""The modules that read the time of a cache by a global of their own named ``monotonic``; a test holds this complete.

What is not here reads the real time on purpose: sockets, and the clocks of real servers, which nothing here can move.
"""


class Watcher(Protocol):
    """Who sleeps until some time of the clock."""

    def time_moved(self) -> None:
        """Look at the clock again; called on the thread that moved it."""
        ...


_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
_lock = threading.Lock()


def watch(watcher: Watcher) -> None:
    """Have somebody told when a clock is entered, advanced or left, for as long as they live."""
    with _lock:
        _watchers.add(watcher)


class ManualClock:
    """The time of every cache in this process, while it is entered; it stands until it is told to advance.

    It decides what a cache decides by the time: ttl, l1_ttl, negative_ttl, max_staleness, breaker_reset, leases, holds
    and all that expires in a :class:`FakeServer`. What really waits, for a reply or for another thread, waits in real
    time. A real server has a clock of its own, so that what expires in Redis does not follow.

    Enter it before the caches are made or used, and close them before it is left: real time is another. One clock can
    be entered at a time.

    >>> from nearcache import NearCache
    >>> with ManualClock() as clock, NearCache.from_url("memory://", ttl=30, jitter=0) as cache:
    ...     cache.set("user:7", "Ada")
    ...     clock.advance(29)
    ...     cache.get("user:7")
    ...     clock.advance(1)
    ...     cache.get("user:7", "gone")
    True
    'Ada'
    'gone'
    """

    _entered: ManualClock | None = None

    def __init__(self) -> None:
        self._micros = 0
        self._kept: list[tuple[ModuleType, Callable[[], float]]] = []

    def monotonic(self) -> float:
        """The time, in seconds that mean nothing by themselves."""
        # Between two µs, so that whole ones come out of it whatever floats round to.
        return (self._micros + 0.5) / 1e6

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass at once.

        By a µs more than asked, so that what is due exactly then is due. When more than ``max_staleness`` passes, L1 is
        not trusted until the next heartbeat, which comes at once but on another thread or task:
        ``FakeServer.settle`` waits for it, as does ``cache.wait_healthy()``.

        Args:
            seconds: how long, in seconds or as a timedelta.

        Raises:
            ValueError: it is negative.
        """
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not length >= 0:
            raise ValueError(f"seconds={seconds!r}: time does not go back")
        self._micros += round(length * 1e6) + 1
        _tell()

    def __enter__(self) -> Self:
        if ManualClock._entered is not None:
            raise RuntimeError("a ManualClock is entered already, and there is one time: use that one")
        ManualClock._entered = self
        self._micros = max(self._micros, int(time.monotonic() * 1e6) + 1)
        for name in PLACES:
            module = importlib.import_module(name)
            self._kept.append((module, vars(module)["monotonic"]))
            vars(module)["monotonic"] = self.monotonic
        _tell()
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._kept:
            module, real = self._kept.pop()
            vars(module)["monotonic"] = real
        ManualClock._entered = None
        _tell()

    def __repr__(self) -> str:
        return f"<ManualClock at {self.monotonic():.6f} s>"


def _tell() -> None:
    with _lock:
        watchers = tuple(_watchers)
    for watcher in watchers:
        watcher.time_moved()
