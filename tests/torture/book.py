"""The database of a run and its log of writes, in a file that all processes map into their memory."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KEYS = 48
WRITERS = 2
LATE = (40, 44, 46)
"""Keys without tags that are written on a phase's order alone, so that nothing hides what became of that write."""
BRIEF = 1.0
"""Seconds for which the values of some keys are fresh, which are refreshed early or served stale."""
SET, DROP, FLOOR = 1, 2, 3
"""How a version was told to the cache: its value was set, the key was dropped, or a clear or tag dropped it unnamed."""
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


def ttl(key: int) -> float | None:
    """How long a value of a key is fresh, in seconds; None: as the setting says."""
    return BRIEF if key % 12 in (2, 3) else None


def options(key: int) -> dict[str, float]:
    """How reads load a key whose values are brief."""
    if ttl(key) is None:
        return {}
    return {"ttl": BRIEF, **({"early_refresh": 0.5} if key % 12 == 2 else {"stale_while_revalidate": BRIEF})}


def owned(writer: int) -> range:
    """The keys that a writer writes: each key has one writer, since Redis orders concurrent sets, not the database."""
    return range(writer, KEYS, WRITERS)


@dataclass(frozen=True)
class Window:
    """Writes that a failover may have lost: nothing is promised of those acknowledged in it."""

    begin: int = NEVER
    end: int = NEVER
    earlier: Window | None = None
    """That of the failover before."""

    def touches(self, began: int, ended: int) -> bool:
        """Whether something happened in it, or in an earlier one."""
        if began <= self.end and ended >= self.begin:
            return True
        return self.earlier is not None and self.earlier.touches(began, ended)

    def histories(self, end: int = NEVER) -> Iterator[tuple[int, int]]:
        """The times after, between and before the failovers, as begin and end."""
        yield self.end, end
        if self.earlier is None:
            yield -NEVER, self.begin
        else:
            yield from self.earlier.histories(self.begin)


NOTHING_LOST = Window()


class Book:
    """Per key the row, that is, the newest version; per version when and how it was written.

    A row is raised before its write is sent to the cache, and the write is noted as acknowledged when its call has
    returned True. Each key has one writer, so versions and times of a key rise together.

    Args:
        path: of the file; a process to which the book is sent maps the same one.
        versions: how many of each key there is room for.
        patience: seconds after which a set of unknown outcome must not run any more.
    """

    def __init__(self, path: Path, versions: int, patience: float) -> None:
        self._made_of = path, versions, patience
        self.versions = versions
        self._patience = int(patience * 1e9)
        size = KEYS * versions
        with path.open("a+b") as file:
            os.truncate(file.fileno(), 8 * (KEYS + 4 * size))
            cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._row = cells[:KEYS]
        self._began, self._ended, self._how, self._outcome = (
            cells[begin : begin + size] for begin in range(KEYS, KEYS + 4 * size, size)
        )

    def __reduce__(self) -> tuple[type[Book], tuple[Path, int, float]]:
        return Book, self._made_of

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
        return window.touches(self.began(key, version), self.ended(key, version))

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

    def named(self, key: int) -> int:
        """How many acknowledged writes of a key had a message that names it."""
        versions = range(1, self.row(key) + 1)
        return sum(
            self._how[self._at(key, version)] != FLOOR and not self.unanswered(key, version) for version in versions
        )

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
