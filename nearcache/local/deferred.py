"""Work that is put off: to free 100,000 entries at once would stop every reader.

A store that readers no longer see is freed step by step. When a tag of many entries is invalidated, the tier takes the
proof of all entries away at once, which no reader can pass, and notes here which entries have to leave; the others get
the new proof as they are asked for.
"""

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
    """Dead stores that have still to be freed, and invalidated tags whose entries have still to leave.

    All under the tier's lock.
    """

    def __init__(self) -> None:
        self.dead: deque[Store[Any]] = deque()
        self._floors: dict[str, int] = {}
        """By tag, the number of its invalidation; an entry that carries it and is older has to leave."""
        self.doomed: deque[tuple[str, set[str]]] = deque()
        """Those tags, and the keys that carried them; the store's own index has only keys that came later."""
        self.left: set[str] = set()
        """Of one bucket of several: the keys of entries that were dropped at once, and are still in the store."""

    def __bool__(self) -> bool:
        return bool(self.doomed or self.dead or self.left)

    def release(self, store: Store[Any]) -> None:
        """Free a store that no reader will ask again, step by step if it is large."""
        if len(store.entries) > STEP:  # a small one is freed with its last reference
            self.dead.append(store)

    def concerns(self, tags: Iterable[str]) -> bool:
        """Whether entries of one of the tags have still to be looked at, which the store's index may not have."""
        return not self._floors.keys().isdisjoint(tags)

    def invalidate(self, tag: str, number: int, keys: set[str] | None) -> None:
        """Let no entry pass that carries the tag and is older; with its keys, those that are to be looked at."""
        if keys:
            self.doomed.append((tag, keys))
        if keys or tag in self._floors:
            self._floors[tag] = max(self._floors.get(tag, 0), number)

    def allows(self, entry: Entry) -> bool:
        """Whether no tag of the entry was invalidated after it."""
        floors = self._floors
        return not floors or all(number_of(entry.version) >= floors.get(tag, 0) for tag in entry.tags)

    @property
    def dooms(self) -> bool:
        """Whether entries have to leave that readers can't pass with any more."""
        return bool(self._floors)

    def forget_entries(self) -> None:
        """The store has lost all entries at once: none has to leave any more."""
        self._floors = {}
        self.doomed.clear()

    def step(self, count: int, store: Store[Any]) -> Iterator[str]:
        """Take up to ``count`` steps: yield the keys of entries that have to leave ``store``, and free dead stores."""
        while count > 0 and self.doomed:
            count -= 1
            tag, keys = self.doomed[0]
            if not keys:
                self.doomed.popleft()
                continue
            key = keys.pop()
            entry = store.entries.get(key)
            if entry is None or tag not in entry.tags:
                continue
            if self.allows(entry):
                store.index(key, tag)  # it came back into the store's own index
            else:
                yield key
        if not self.doomed:
            self._floors = {}
        while count > 0 and self.dead:
            if self.dead[0].entries:
                self.dead[0].popitem()
                count -= 1
            else:
                self.dead.popleft()

    def leave(self, keys: set[str]) -> None:
        """Let these keys leave the store of all buckets step by step, unless they come anew."""
        self.left = self.left | keys if self.left else keys

    def step_left(self, count: int) -> Iterator[str]:
        """Up to ``count`` of these keys."""
        while count > 0 and self.left:
            count -= 1
            yield self.left.pop()

    def clear(self) -> None:
        """Release everything now."""
        self.dead.clear()
        self.left = set()
        self.forget_entries()
