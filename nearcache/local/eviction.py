"""Which entry leaves when L1 is full, on the contract of cachetools.Cache.

Readers look into ``entries`` and touch its order without a lock; everything else is called under the tier's lock. That
is why the order is ours: cachetools' own LRUCache iterates in ``popitem``, which a reader's touch breaks, and may
re-insert a key that was just evicted. The C methods of OrderedDict that are used here are each atomic; the worst a
reader sees is a KeyError, which is a miss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cachetools import Cache

from nearcache.ports import Version

ENTRY_OVERHEAD = 250
"""Bytes that an entry is taken to cost beyond its encoded key and value: the object, its dicts, its version."""


@dataclass(slots=True, eq=False)
class Entry:
    """A value in L1, good while the clock stands before ``deadline`` (monotonic seconds) and L1 is trusted."""

    value: Any
    deadline: float
    version: Version
    tags: tuple[str, ...]
    size: int


def _size(entry: Entry) -> int:
    return entry.size + ENTRY_OVERHEAD


class Lru(Cache[str, Entry]):
    """Least recently used leaves first; bounded by entries, and by bytes too if asked.

    Source: cachetools' LRUCache, with the order kept so that lock-free readers can't disturb a writer.
    """

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        if max_bytes is None:
            super().__init__(max_entries)
        else:
            super().__init__(max_bytes, getsizeof=_size)
        self.max_entries = max_entries
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.touch: Callable[[str], None] = self.entries.move_to_end
        """Note that a key was used; KeyError when it has just left. A C method: it is on the hot path."""
        self.tagged: dict[str, set[str]] = {}
        """The keys that carry a tag."""
        self.bytes = 0
        self.evicted = 0

    def __setitem__(self, key: str, entry: Entry) -> None:
        super().__setitem__(key, entry)  # refuses what is too large; makes room, which may take the old entry too
        old = self.entries.get(key)
        if old is not None:
            self._forget(key, old)
        self.entries[key] = entry
        self.entries.move_to_end(key)
        while len(self.entries) > self.max_entries:
            self.popitem()
        self.bytes += entry.size
        for tag in entry.tags:
            self.tagged.setdefault(tag, set()).add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._forget(key, self.entries.pop(key))

    def popitem(self) -> tuple[str, Entry]:
        """Remove the least recently used entry and return it with its key."""
        key, entry = self.entries.popitem(last=False)
        super().__delitem__(key)
        self._forget(key, entry)
        self.evicted += 1
        return key, entry

    def _forget(self, key: str, entry: Entry) -> None:
        self.bytes -= entry.size
        for tag in entry.tags:
            self.tagged[tag].discard(key)
            if not self.tagged[tag]:
                del self.tagged[tag]
