"""S3-FIFO whose small queue adapts: two queues, and the ghosts of what left them. A hit raises a counter, nothing else.

Sources: Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023, for the queues and
the counters; Megiddo, Modha: "ARC: a self-tuning, low overhead replacement cache", FAST 2003, for the adaptation.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from itertools import islice

from nearcache.local.store import Entry, Store

USES_MAX = 3
"""Hits that are counted; the fast path of readers compares with it too."""
STEPS = 100
"""Entries that may get another chance before one is evicted all the same: it bounds the time of one insert."""
SMALL = 0.3
"""The part of the entries that the small queue has at first before its keys have to leave."""
SMALL_LEAST, SMALL_MOST = 0.01, 0.99
REMEMBERED = 0.9
"""The ghosts of a queue, at most, as a part of the entries."""
GHOST_BITS = (1 << 30) - 1
"""Bits of a key's hash that a ghost keeps. If two keys share a ghost, an entry only comes into the wrong queue."""


@dataclass(slots=True, eq=False, repr=False)
class Used(Entry):
    """An entry that knows how often it was hit since it came into its queue, up to USES_MAX."""

    uses: int = 0
    main: bool = False
    """Whether its key is in the main queue."""


class Queue:
    """Keys in the order in which they came. A removed key leaves its place behind, until that comes to the head.

    A place in a deque costs 8 bytes, one in an OrderedDict more than a hundred. Of several places of a key the first
    ones are those that were left behind, for a new place is at the end.
    """

    __slots__ = ("_left", "_places", "count")

    def __init__(self) -> None:
        self._places: deque[str] = deque()
        self._left: dict[str, int] = {}
        """How many places each removed key has left behind."""
        self.count = 0
        """The keys in the queue."""

    def append(self, key: str) -> None:
        """Add a key at the end."""
        self._places.append(key)
        self.count += 1

    def head(self) -> str | None:
        """The first key; None if there is none."""
        places, left = self._places, self._left
        while places:
            key = places[0]
            if key not in left:
                return key
            self._forget(key)
        left.clear()
        self.count = 0
        return None

    def pop(self) -> None:
        """Remove the first key, which ``head`` has just returned."""
        self._places.popleft()
        self.count -= 1

    def rotate(self) -> None:
        """Let the first key, which ``head`` has just returned, be the last one."""
        self._places.rotate(-1)

    def remove(self, key: str) -> None:
        """Remove a key wherever it is."""
        self._left[key] = self._left.get(key, 0) + 1
        self.count -= 1
        if len(self._places) > 1.25 * self.count + 16:  # let the places that were left behind come to the head
            for _ in range(16):
                key = self._places[0]
                if key in self._left:
                    self._forget(key)
                else:
                    self._places.rotate(-1)

    def clear(self) -> None:
        """Remove all keys."""
        self._places.clear()
        self._left.clear()
        self.count = 0

    def _forget(self, key: str) -> None:
        self._places.popleft()
        if self._left[key] == 1:
            del self._left[key]
        else:
            self._left[key] -= 1


class Ghosts:
    """The keys that left a queue lately, by a part of their hashes."""

    __slots__ = ("_keys", "_order")

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, most: float) -> None:
        """Remember a key, and forget the first ones above a number."""
        ghost = hash(key) & GHOST_BITS
        self._order.append(ghost)
        self._keys.add(ghost)
        for _ in range(2):  # the number falls when large values leave less room: it is followed step by step
            if len(self._order) > most:
                self._keys.discard(self._order.popleft())

    def take(self, key: str) -> bool:
        """Forget a key; whether it was remembered."""
        ghost = hash(key) & GHOST_BITS
        known = ghost in self._keys
        self._keys.discard(ghost)
        return known

    def clear(self) -> None:
        """Forget all keys."""
        self._keys.clear()
        self._order.clear()


class S3Fifo(Store[Used]):
    """New entries pass through a small queue; those that were hit there go on to the main queue.

    In the main queue an entry that was hit goes round again, at the price of one use. Keys that left either queue are
    remembered as ghosts: such a key comes back into the main queue. A key that comes back from the small queue's ghosts
    would have stayed if that queue were larger, and one from the main queue's if it were smaller: each moves the
    boundary. So the small queue grows where it is shorter than the scans between two uses of a key, which is where the
    queue of the paper, a tenth of all, loses against LRU.

    The queues have the keys alone. Each change of them is one C call, so that an exception of a signal handler between
    two of them loses a place in a queue at worst.
    """

    make_entry = Used

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        super().__init__({}, max_entries, max_bytes)
        self._small, self._main = Queue(), Queue()
        self._left_small, self._left_main = Ghosts(), Ghosts()
        self._share = SMALL
        """The part of the entries above which a key of the small queue leaves first."""

    def oldest(self) -> str:
        """The head of the queue that is to give up a key."""
        for queue in (self._small, self._main) if self._small_is_due() else (self._main, self._small):
            key = queue.head()
            if key is not None and key in self.entries:
                return key
        for key in self.entries:
            return key
        raise KeyError("empty")

    def used_lately(self, count: int) -> list[str]:
        """Some that were used since they came to where they are in a queue: a random part of a random stretch."""
        stretch = 16 * count
        start = random.randrange(max(1, len(self.entries) - stretch))
        used = [key for key, entry in islice(self.entries.items(), start, start + stretch) if entry.uses]
        return random.sample(used, min(count, len(used)))

    def clear(self) -> None:
        """Remove everything, ghosts too."""
        super().clear()
        for each in (self._small, self._main, self._left_small, self._left_main):
            each.clear()

    def _small_is_due(self) -> bool:
        small = self._small.count
        return small > 0 and (small >= self._share * len(self.entries) or not self._main.count)

    def _place(self, key: str, entry: Used, held: Used | None) -> None:
        if held is not None:
            entry.uses, entry.main = min(held.uses + 1, USES_MAX), held.main
        else:
            entry.uses, entry.main = 0, self._returns(key)
            (self._main if entry.main else self._small).append(key)
        self.entries[key] = entry

    def _returns(self, key: str) -> bool:
        """Whether a key is a ghost; if it is, the small queue's part changes."""
        step = 1 / max(1, len(self.entries))
        small, main = len(self._left_small), len(self._left_main)
        if self._left_small.take(key):
            self._share = min(SMALL_MOST, self._share + step * max(1, main / (small or 1)))
        elif self._left_main.take(key):
            self._share = max(SMALL_LEAST, self._share - step * max(1, small / (main or 1)))
        else:
            return False
        return True

    def _remove(self, key: str) -> Used:
        entry = self.entries.pop(key)
        (self._main if entry.main else self._small).remove(key)
        return entry

    def _evict(self) -> tuple[str, Used]:
        for step in range(STEPS + 1):
            small = self._small_is_due()
            queue = self._small if small else self._main
            key = queue.head()
            if key is None:
                break
            entry = self.entries.get(key)
            if entry is None:  # an interruption left the place behind
                queue.pop()
            elif not entry.uses or step == STEPS:
                (self._left_small if small else self._left_main).add(key, REMEMBERED * len(self.entries))
                queue.pop()
                return key, self.entries.pop(key)
            elif small:
                entry.uses = 0
                self._main.append(key)
                entry.main = True
                queue.pop()
            else:
                entry.uses -= 1
                queue.rotate()
        key = next(iter(self.entries))  # interruptions took the places of all
        return key, self.entries.pop(key)
