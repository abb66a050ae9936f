"""The database of a run and its log of writes, in memory that all processes share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

KEYS = 48
WRITERS = 2
SET, DROP = 1, 2
"""How a version was told to the cache: its value was set, or something dropped what was there."""
PENDING, ACKNOWLEDGED, UNKNOWN = 0, 1, 2
NEVER = 1 << 62

now: Callable[[], int] = time.monotonic_ns
"""CLOCK_MONOTONIC, which the processes of one machine share."""


def name(key: int) -> str:
    """The key's name in the cache."""
    return f"item:{key}"


def tags(key: int) -> tuple[str, ...]:
    """The tags that each value of a key carries, whoever stores it."""
    return (f"tag:{key % WRITERS}",) if key % 6 < WRITERS else ()


def owned(writer: int) -> range:
    """The keys that a writer writes: each key has one writer, since Redis orders concurrent sets, not the database."""
    return range(writer, KEYS, WRITERS)


@dataclass(frozen=True)
class Window:
    """Writes that a failover may have lost: nothing is promised of those acknowledged in it."""

    begin: int = NEVER
    end: int = NEVER


NOTHING_LOST = Window()


class Book:
    """Per key the row, that is, the newest version; per version when and how it was written.

    A row is raised before its write is sent to the cache, and the write is noted as acknowledged when its call has
    returned True. Each key has one writer, so versions and times of a key rise together.

    Args:
        context: makes the shared memory.
        versions: how many of each key there is room for.
        patience: seconds after which a set of unknown outcome must not run any more.
    """

    def __init__(self, context: SpawnContext, versions: int, patience: float) -> None:
        self.versions = versions
        self._patience = int(patience * 1e9)
        self._row: Any = context.RawArray("q", KEYS)
        self._began: Any = context.RawArray("q", KEYS * versions)
        self._ended: Any = context.RawArray("q", KEYS * versions)
        self._how: Any = context.RawArray("b", KEYS * versions)
        self._outcome: Any = context.RawArray("b", KEYS * versions)

    def row(self, key: int) -> int:
        """What the database holds: the loader's answer."""
        return int(self._row[key])

    def full(self, key: int) -> bool:
        """Whether there is no room for a further version."""
        return self.row(key) + 1 >= self.versions

    def begin(self, key: int, how: int) -> int:
        """Raise the row; the new version."""
        version = self.row(key) + 1
        at = self._at(key, version)
        self._how[at] = how
        self._began[at] = now()
        self._row[key] = version
        return version

    def end(self, key: int, version: int, *, acknowledged: bool) -> None:
        """The write's call has returned."""
        at = self._at(key, version)
        self._ended[at] = now()
        self._outcome[at] = ACKNOWLEDGED if acknowledged else UNKNOWN

    def began(self, key: int, version: int) -> int:
        """When the row was raised."""
        return int(self._began[self._at(key, version)])

    def ended(self, key: int, version: int) -> int:
        """When the call returned; NEVER for one that did not."""
        return int(self._ended[self._at(key, version)]) or NEVER

    def acknowledged(self, key: int, version: int, window: Window) -> bool:
        """Whether a write counts: it was acknowledged, and no failover may have lost it."""
        return self._outcome[self._at(key, version)] == ACKNOWLEDGED and not self.lost(key, version, window)

    def lost(self, key: int, version: int, window: Window) -> bool:
        """Whether a failover may have lost a write."""
        return self.ended(key, version) >= window.begin and self.began(key, version) <= window.end

    def unanswered(self, key: int, version: int) -> bool:
        """Whether the write's outcome is not known."""
        return version > 0 and self._outcome[self._at(key, version)] != ACKNOWLEDGED

    def orders(self, key: int, older: int, newer: int) -> bool:
        """Whether the older version must be gone when the newer one is there: they were not concurrent.

        A set of unknown outcome counts as concurrent with every write that began before its deadline.
        """
        if not (self.unanswered(key, older) and self._how[self._at(key, older)] == SET):
            return newer > older
        ended = self.ended(key, older)
        deadline = max(ended, self.began(key, older) + self._patience)
        return newer > older and self.began(key, newer) >= deadline

    def outdated(self, key: int, version: int, window: Window) -> int:
        """When the first write that supersedes a version was acknowledged; NEVER if none was."""
        for newer in range(version + 1, self.row(key) + 1):
            if self.acknowledged(key, newer, window) and self.orders(key, version, newer):
                return self.ended(key, newer)
        return NEVER

    def writes(self) -> Iterator[tuple[int, int]]:
        """All of them, as key and version."""
        return ((key, version) for key in range(KEYS) for version in range(1, self.row(key) + 1))

    def _at(self, key: int, version: int) -> int:
        return key * self.versions + version
