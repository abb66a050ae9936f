"""S3-FIFO: two queues and the ghosts of a third. A hit raises a counter, and nothing else.

Source: Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from nearcache.local.store import Entry, Store

USES_MAX = 3
"""Hits that are counted; the fast path of readers compares with it too."""
STEPS = 100
"""Entries that may get another chance before one is evicted all the same: it bounds the time of one insert."""
GHOST_BITS = (1 << 30) - 1
"""Bits of a key's hash that a ghost keeps. If two keys share a ghost, an entry only comes into the wrong queue."""


@dataclass(slots=True, eq=False)
class Used(Entry):
    """An entry that knows how often it was hit since it came into its queue, up to USES_MAX."""

    uses: int = 0


class S3Fifo(Store[Used]):
    """New entries pass through a small queue, a tenth of all; those that were hit there go on to the main queue.

    In the main queue an entry that was hit goes round again, at the price of one use. Keys that left from the small
    queue are remembered as ghosts, up to 0.9 times the number of entries: such a key comes back into the main queue.

    The queues have the keys alone. Each change of them is one C call, so that an exception of a signal handler between
    two of them loses a place in a queue at worst.
    """

    make_entry = Used

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        super().__init__({}, max_entries, max_bytes)
        self._small: OrderedDict[str, None] = OrderedDict()
        self._main: OrderedDict[str, None] = OrderedDict()
        # Ordered: the first key of a plain dict is found only after a scan of all that were deleted before it.
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def oldest(self) -> str:
        """The head of the small queue, or else of the main one."""
        for queue in (self._small, self._main, self.entries):
            for key in queue:
                return key
        raise KeyError("empty")

    def clear(self) -> None:
        """Remove everything, ghosts too."""
        super().clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()

    def _place(self, key: str, entry: Used, held: Used | None) -> None:
        if held is not None:
            entry.uses = min(held.uses + 1, USES_MAX)
        elif self._ghosts.pop(hash(key) & GHOST_BITS, self) is None:
            self._main[key] = None
        else:
            self._small[key] = None
        self.entries[key] = entry

    def _remove(self, key: str) -> Used:
        entry = self.entries.pop(key)
        self._small.pop(key, None)
        self._main.pop(key, None)
        return entry

    def _evict(self) -> tuple[str, Used]:
        key = self._victim()
        if key in self._small:
            self._ghosts[hash(key) & GHOST_BITS] = None
            for _ in range(2):  # the bound falls when large values leave less room: it is followed step by step
                if len(self._ghosts) > 0.9 * len(self.entries):
                    self._ghosts.popitem(last=False)
        return key, self._remove(key)

    def _victim(self) -> str:
        """The key to evict, after entries at the heads of the queues that were hit have had another chance."""
        small, main, entries = self._small, self._main, self.entries
        for _ in range(STEPS):
            if small and 10 * len(small) >= len(entries):
                key = next(iter(small))
                entry = entries.get(key)
                if entry is None:
                    del small[key]
                elif entry.uses:
                    entry.uses = 0
                    main[key] = None
                    del small[key]
                else:
                    return key
            elif main:
                key = next(iter(main))
                entry = entries.get(key)
                if entry is None:
                    del main[key]
                elif entry.uses:
                    entry.uses -= 1
                    main.move_to_end(key)
                else:
                    return key
        return self.oldest()
