"""A clock that stands until it is advanced; while it is entered, the library reads its time from it."""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from datetime import timedelta
from typing import Any, Protocol, Self

from nearcache.runtime.tasks import TaskRuntime
from nearcache.runtime.threads import ThreadRuntime

PLACES = (
    "nearcache.sync",
    "nearcache.aio",
    "nearcache.functions.cached",
    "nearcache.base",
    "nearcache.runtime.threads",
    "nearcache.runtime.tasks",
    "nearcache.transport.memory",
    "nearcache.testing.fake_network",
)
"""The modules that read the time of a cache by a global of their own named ``monotonic``; a test holds this complete.

Other modules read the real time on purpose: for sockets, and for the clocks of real servers, which do not follow.
"""
RUNTIMES = (ThreadRuntime, TaskRuntime)
"""The engine reads the time by an attribute of theirs of this name."""


class Watcher(Protocol):
    """An object that waits until some time of the clock."""

    def time_moved(self) -> None:
        """Look at the clock again; called on the thread that moved it."""
        ...


_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
_lock = threading.Lock()


def watch(watcher: Watcher) -> None:
    """Call a watcher whenever a clock is entered, advanced or left, as long as the watcher exists."""
    with _lock:
        _watchers.add(watcher)


class ManualClock:
    """The time of every cache in this process, while it is entered; it stands until it is advanced.

    It is used for ttl, l1_ttl, negative_ttl, max_staleness, breaker_reset, leases, holds and every expiry in a
    :class:`FakeServer`. A wait for a reply or for another thread takes real time. A real server has a clock of its own:
    expiry in Redis does not follow this one.

    Enter it before the caches are made or used, and close them before it is left, since real time differs. One clock
    can be entered at a time.

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
        self._kept: list[tuple[Any, Any]] = []

    def monotonic(self) -> float:
        """The time, in seconds that mean nothing by themselves."""
        # Between two µs, so that a conversion to whole µs never rounds to a neighbour.
        return (self._micros + 0.5) / 1e6

    def advance(self, seconds: float | timedelta) -> None:
        """Move the time forward.

        It moves by a µs more than asked, so that an event that is due exactly then is due. When more than
        ``max_staleness`` passes, L1 is not trusted until the next heartbeat, which comes at once but on another thread
        or task: ``FakeServer.settle`` waits for it, as does ``cache.wait_healthy()``.

        Args:
            seconds: how long, in seconds or as a timedelta.

        Raises:
            ValueError: it is negative.
        """
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not length >= 0:
            raise ValueError(f"seconds={seconds!r}: time does not go back")
        self._micros += round(length * 1e6) + 1
        _wake_watchers()

    def __enter__(self) -> Self:
        if ManualClock._entered is not None:
            raise RuntimeError("a ManualClock is entered already, and there is one time: use that one")
        ManualClock._entered = self
        self._micros = max(self._micros, int(time.monotonic() * 1e6) + 1)
        places: list[Any] = [*map(importlib.import_module, PLACES), *RUNTIMES]
        for place in places:
            self._kept.append((place, vars(place)["monotonic"]))
            place.monotonic = self.monotonic
        _wake_watchers()
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._kept:
            place, real = self._kept.pop()
            place.monotonic = real
        ManualClock._entered = None
        _wake_watchers()

    def __repr__(self) -> str:
        return f"<ManualClock at {self.monotonic():.6f} s>"


def _wake_watchers() -> None:
    with _lock:
        watchers = tuple(_watchers)
    for watcher in watchers:
        watcher.time_moved()
