"""Stores that left L1 whole and are emptied step by step: to free 100,000 entries at once would stop every reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from nearcache.local.store import Entry, Store
from nearcache.protocol.versions import number_of

STEP = 100
"""Entries of one step: about a millisecond when they have tags, less without."""
PAUSE = 0.002
"""Seconds between two steps, in which other threads run."""


class Deferred:
    """Stores that readers no longer see and whose entries have still to be released; all under the tier's lock.

    A dead store is only emptied. A store is set aside when a tag was invalidated that many of its entries carry: they
    are dropped from it step by step, then the smaller of it and the present store is moved into the larger. Until then
    its other entries are misses, each of which comes back when anything is done with its key.
    """

    def __init__(self) -> None:
        self._dead: deque[Store[Any]] = deque()
        self._aside: Store[Any] | None = None
        self._floors: dict[str, int] = {}
        """The tags that were invalidated since the store was set aside."""
        self._tags: deque[str] = deque()
        """Those of them whose entries are still in the store."""

    def __bool__(self) -> bool:
        return self._aside is not None or bool(self._dead)

    def drop(self, store: Store[Any]) -> int:
        """Release this store and the one that is set aside; how many entries they had."""
        dropped = len(store.entries)
        self.release(store)
        if self._aside is not None:
            dropped += len(self._aside.entries)
            self.release(self._aside)
        self._hold(None)
        return dropped

    def release(self, store: Store[Any]) -> None:
        """Free a store that no reader will ask again, step by step if it is large."""
        if len(store.entries) > STEP:  # a small one is freed with its last reference
            self._dead.append(store)

    def set_aside(self, store: Store[Any]) -> None:
        """Set a store aside, whose entries may come back; the one that was set aside before is released."""
        if self._aside is not None:
            self._dead.append(self._aside)
        self._hold(store)

    def raise_tags(self, tags: Iterable[str], number: int) -> None:
        """Let no entry come back that carries one of the tags and is older."""
        if self._aside is not None:
            for tag in tags:
                self._floors[tag] = max(self._floors.get(tag, 0), number)
                self._tags.append(tag)

    def take(self, key: str) -> Entry | None:
        """Take out the entry of a key that was set aside; None: there is none, or its tag was invalidated."""
        if self._aside is None or key not in self._aside.entries:
            return None
        entry: Entry = self._aside.entries[key]
        del self._aside[key]
        kept = all(number_of(entry.version) >= self._floors.get(tag, 0) for tag in entry.tags)
        return entry if kept else None

    def exchange(self, present: Store[Any]) -> Store[Any] | None:
        """The store that was set aside, once it is clean and if it is larger: ``present`` takes its place."""
        aside = self._aside
        if aside is None or self._tags or len(aside.entries) <= len(present.entries):
            return None
        self._hold(present)
        return aside

    def step(self, count: int) -> Iterator[tuple[str, Entry]]:
        """Take up to ``count`` entries out: yield those that come back, drop the others, free dead stores."""
        while count > 0 and (key := self._next()) is not None:
            count -= 1
            entry = self.take(key)
            if entry is not None:
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
        self._hold(None)

    def _hold(self, aside: Store[Any] | None) -> None:
        self._aside = aside
        self._floors = {}
        self._tags.clear()

    def _next(self) -> str | None:
        """A key that is set aside: first those of invalidated tags, then the one that would be evicted first."""
        if self._aside is None:
            return None
        while self._tags:
            keys = self._aside.tagged.get(self._tags[0])
            if keys:
                return keys.pop()
            self._tags.popleft()
        if not self._aside.entries:
            self._hold(None)
            return None
        return self._aside.oldest()
