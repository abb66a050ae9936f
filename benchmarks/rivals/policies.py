"""Eviction policies that L1's are compared with, from their papers and, for W-TinyLFU, from Caffeine.

Each is written to be read beside its source, and counts entries alone. ``hits`` is how many accesses of a trace it
answers: a key that is missed comes in.

Sources: Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is simpler than LRU", NSDI 2024. Yang, Zhang, Qiu, Yue, Rashmi:
"FIFO queues are all you need for cache eviction", SOSP 2023. Einziger, Friedman, Manes: "TinyLFU: a highly efficient
cache admission policy", ACM ToS 2017; Einziger, Eytan, Friedman, Manes: "Adaptive software cache management",
Middleware 2018; and Caffeine's BoundedLocalCache for the constants.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

Key: TypeAlias = int | str


def hits(reads: Callable[[Key], bool], trace: Iterable[Key]) -> int:
    """How many accesses are hits."""
    return sum(map(reads, trace))


class Sieve:
    """One queue and a hand, which passes over what was read and evicts the first that was not."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._visited: dict[Key, bool] = {}
        self._newer: dict[Key, Key | None] = {}
        self._older: dict[Key, Key | None] = {}
        self._newest: Key | None = None
        self._oldest: Key | None = None
        self._hand: Key | None = None

    def read(self, key: Key) -> bool:
        """Read a key, which comes in if it is not there; whether it was."""
        if key in self._visited:
            self._visited[key] = True
            return True
        if len(self._visited) >= self._size:
            self._evict()
        self._visited[key] = False
        self._older[key], self._newer[key] = self._newest, None
        if self._newest is None:
            self._oldest = key
        else:
            self._newer[self._newest] = key
        self._newest = key
        return False

    def _evict(self) -> None:
        hand = self._oldest if self._hand is None else self._hand
        while hand is not None and self._visited[hand]:
            self._visited[hand] = False
            hand = self._oldest if self._newer[hand] is None else self._newer[hand]
        assert hand is not None  # it is full
        older, newer = self._older.pop(hand), self._newer.pop(hand)
        if older is None:
            self._oldest = newer
        else:
            self._newer[older] = newer
        if newer is None:
            self._newest = older
        else:
            self._older[newer] = older
        self._hand = newer
        del self._visited[hand]


class PlainS3Fifo:
    """S3-FIFO as its paper has it: a small queue of a tenth, and ghosts of the keys that left it."""

    def __init__(self, size: int) -> None:
        self._small_size = max(1, size // 10)
        self._main_size = max(1, size - self._small_size)
        self._small: OrderedDict[Key, int] = OrderedDict()
        self._main: OrderedDict[Key, int] = OrderedDict()
        self._ghosts: OrderedDict[Key, None] = OrderedDict()

    def read(self, key: Key) -> bool:
        """Read a key, which comes in if it is not there; whether it was."""
        for queue in (self._small, self._main):
            if key in queue:
                queue[key] = min(queue[key] + 1, 3)
                return True
        while len(self._small) + len(self._main) >= self._small_size + self._main_size:
            self._evict_small() if len(self._small) >= self._small_size else self._evict_main()
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = 0
        else:
            self._small[key] = 0
        return False

    def _evict_small(self) -> None:
        while self._small:
            key, uses = self._small.popitem(last=False)
            if uses <= 1:
                self._ghosts[key] = None
                if len(self._ghosts) > self._main_size:
                    self._ghosts.popitem(last=False)
                return
            self._main[key] = 0
            if len(self._main) > self._main_size:
                self._evict_main()
        self._evict_main()

    def _evict_main(self) -> None:
        while True:
            key, uses = self._main.popitem(last=False)
            if not uses:
                return
            self._main[key] = uses - 1


class Sketch:
    """How often keys were read of late, up to 15: the least of four counters, of 16 for each entry of the cache."""

    def __init__(self, size: int) -> None:
        self._width = 4 << max(3, (size - 1).bit_length())
        self._rows = [bytearray(self._width) for _ in range(4)]
        self._seeds = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)
        self._period = 10 * size
        self._added = 0

    def _places(self, key: Key) -> list[int]:
        mixed = hash(key) & 0xFFFFFFFFFFFFFFFF
        return [((mixed * seed) >> 29) % self._width for seed in self._seeds]

    def of(self, key: Key) -> int:
        """How often a key was read."""
        return min(row[at] for row, at in zip(self._rows, self._places(key), strict=True))

    def add(self, key: Key) -> None:
        """Count a read."""
        grew = False
        for row, at in zip(self._rows, self._places(key), strict=True):
            if row[at] < 15:
                row[at] += 1
                grew = True
        self._added += grew
        if self._added >= self._period:
            halves = bytes(number // 2 for number in range(256))
            self._rows = [row.translate(halves) for row in self._rows]
            self._added //= 2


class WTinyLfu:
    """W-TinyLFU with Caffeine's hill climber: a window of LRU, and behind a filter a main part of two segments.

    The window begins at 1 % of all and follows the hit ratio; a key that leaves it comes into the main part only if it
    was read more often than the one that would leave there.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._window_size = max(1, size // 100)
        self._window: OrderedDict[Key, None] = OrderedDict()
        self._probation: OrderedDict[Key, None] = OrderedDict()
        self._protected: OrderedDict[Key, None] = OrderedDict()
        self._sketch = Sketch(size)
        self._chance = random.Random(7)
        self._step = -0.0625 * size
        self._reads = self._hits = 0
        self._ratio = 0.0

    def read(self, key: Key) -> bool:
        """Read a key, which comes in if it is not there; whether it was."""
        self._sketch.add(key)
        found = True
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        elif key in self._probation:
            del self._probation[key]
            self._protected[key] = None
            self._demote()
        else:
            found = False
            self._window[key] = None
            self._make_room()
        self._reads += 1
        self._hits += found
        if self._reads >= 10 * self._size:
            self._climb()
        return found

    def _demote(self) -> None:
        while len(self._protected) > 0.8 * (self._size - self._window_size):
            self._probation[self._protected.popitem(last=False)[0]] = None

    def _make_room(self) -> None:
        while len(self._window) > self._window_size:
            candidate, _ = self._window.popitem(last=False)
            if len(self._window) + len(self._probation) + len(self._protected) < self._size:
                self._probation[candidate] = None
                continue
            part = self._probation or self._protected
            victim = next(iter(part), None)
            if victim is not None and self._admits(candidate, victim):
                del part[victim]
                self._probation[candidate] = None

    def _admits(self, candidate: Key, victim: Key) -> bool:
        new, old = self._sketch.of(candidate), self._sketch.of(victim)
        return new > old or (new >= 6 and not self._chance.randrange(128))  # by chance: keys that are made to collide

    def _climb(self) -> None:
        """Move the boundary on in the same direction while the hit ratio rises, else back; by less each time."""
        ratio = self._hits / self._reads
        change = ratio - self._ratio
        amount = self._step if change >= 0 else -self._step
        restart = abs(change) >= 0.05
        self._step = (0.0625 * self._size * (1 if amount >= 0 else -1)) if restart else 0.98 * amount
        self._ratio, self._reads, self._hits = ratio, 0, 0
        self._window_size = int(min(max(1, self._window_size + amount), 0.8 * self._size))
        while len(self._window) > self._window_size:
            self._probation[self._window.popitem(last=False)[0]] = None
        while len(self._window) < self._window_size and self._probation:  # the oldest of what is on probation
            self._window[self._probation.popitem(last=False)[0]] = None
        self._demote()


POLICIES: Mapping[str, Callable[[int], Callable[[Key], bool]]] = {
    "SIEVE": lambda size: Sieve(size).read,
    "S3-FIFO": lambda size: PlainS3Fifo(size).read,
    "W-TinyLFU": lambda size: WTinyLfu(size).read,
}
"""By name, what makes a policy of so many entries."""
