"""Stores that left L1 whole and are emptied step by step: to free 100,000 entries at once would stop every reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from nearcache.local.eviction import Entry, Lru
from nearcache.ports import number_of

STEP = 200
"""Entries that are dealt with at once: a fraction of a millisecond."""
PAUSE = 0.002
"""Seconds between two steps, which belong to everybody else."""


class Leftovers:
    """What was taken out of readers' sight in one step, and has still to be released; all under the tier's lock.

    A dead store is only emptied. A store is set aside when a tag was invalidated that many of its entries carry: what
    does not carry it comes back, when it is asked for by its key or when its turn comes. Until then it is a miss.
    """

    def __init__(self) -> None:
        self._dead: deque[Lru] = deque()
        self._aside: Lru | None = None
        self._floors: dict[str, int] = {}
        """The tags that were invalidated since the store was set aside."""

    def __bool__(self) -> bool:
        return self._aside is not None or bool(self._dead)

    def drop(self, store: Lru) -> int:
        """This store is dead, and what is set aside too; how many entries that are."""
        dropped = len(store.entries)
        for dead in (store, self._aside):
            if dead is not None and len(dead.entries) > STEP:  # a small one is freed by nobody's holding it
                self._dead.append(dead)
        if self._aside is not None:
            dropped += len(self._aside.entries)
            self._aside = None
        return dropped

    def set_aside(self, store: Lru) -> None:
        """Entries of this store may come back. What was set aside before may not: one at a time is enough."""
        if self._aside is not None:
            self._dead.append(self._aside)
        self._aside = store
        self._floors = {}

    def raise_tags(self, tags: Iterable[str], number: int) -> None:
        """What carries one of the tags and is older does not come back."""
        if self._aside is not None:
            for tag in tags:
                self._floors[tag] = max(self._floors.get(tag, 0), number)

    def take(self, key: str) -> Entry | None:
        """The entry of a key if it was set aside and still holds; it is here no more."""
        if self._aside is None or key not in self._aside.entries:
            return None
        entry = self._aside.entries[key]
        del self._aside[key]
        return entry if self._holds(entry) else None

    def step(self, count: int) -> Iterator[tuple[str, Entry]]:
        """Deal with some entries: release what is dead, and give what comes back into L1."""
        while count > 0 and self._aside is not None:
            if not self._aside.entries:
                self._aside = None
                return
            key, entry = self._aside.popitem()
            count -= 1
            if self._holds(entry):
                yield key, entry
        while count > 0 and self._dead:
            if self._dead[0].entries:
                self._dead[0].popitem()
                count -= 1
            else:
                self._dead.popleft()

    def clear(self) -> None:
        """Release everything now."""
        self._dead.clear()
        self._aside = None

    def _holds(self, entry: Entry) -> bool:
        return all(number_of(entry.version) >= self._floors.get(tag, 0) for tag in entry.tags)
