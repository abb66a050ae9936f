"""L1 of a namespace of several buckets: one store, and a Tier for each bucket."""

from __future__ import annotations

from nearcache.local import drops
from nearcache.local.fallback import Fallback
from nearcache.local.snapshot import bucket_of
from nearcache.local.store import Entry
from nearcache.local.tier import Tier


class WholeTier(Tier):
    """L1 of several buckets: readers look into its entries; each bucket's own Tier decides what is put and dropped."""

    def __init__(
        self, max_entries: int, max_bytes: int | None, journal_max: int, eviction: str, *, buckets: int
    ) -> None:
        super().__init__(max_entries, max_bytes, journal_max, eviction)
        journals = max(1, journal_max // buckets)
        self.parts = tuple(Tier(max_entries, max_bytes, journals, eviction, self, bucket) for bucket in range(buckets))
        for part in self.parts:
            part.fallback = Fallback(max(1, max_entries // buckets), max_bytes and max(1, max_bytes // buckets))

    def entry(self, key: str) -> Entry | None:
        """As that of the key's bucket."""
        return self.parts[bucket_of(key, len(self.parts))].entry(key)

    def drop_all(self, why: str = drops.LOCAL) -> int:
        """Drop every entry of every bucket; how many entries were dropped."""
        count = sum(part.drop_all(why) for part in self.parts)
        before = self._take_out(why)
        for part in self.parts:
            part._follow(self)  # noqa: SLF001  # of the base class
        self.parts[0]._release(before)  # noqa: SLF001  # of the base class
        return count

    @property
    def count(self) -> int:
        """How many entries are held."""
        with self.lock:
            return len(self.entries) - sum(part._left_count() for part in self.parts)  # noqa: SLF001  # of the base class

    def release(self) -> None:
        """Release everything that was dropped at once."""
        for part in self.parts:
            part.release()
