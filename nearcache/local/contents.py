"""What L1 holds, and how it leaves: the store that readers see, and what left it whole and is freed step by step.

Readers look into ``entries``, compare the entry's proof with the clock, and note hits by ``touch``, all without a lock;
everything else is called under ``lock``. A value of a key may also stand among the fallback values: while these are
used, every change of a key has to look there too.

A namespace may be spread over several buckets, each with its own write numbers and messages, and so with its own proof,
floors and guards. They are parts of one store, so that one look-up finds any entry, and the bound is for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nearcache.local import drops
from nearcache.local.deferred import STEP, Deferred
from nearcache.local.drops import Drops
from nearcache.local.fallback import Fallback
from nearcache.local.interrupts import make_lock
from nearcache.local.s3fifo import S3Fifo
from nearcache.local.store import NEVER, Entry, Lru, Proof, Store

STORES: Mapping[str, Callable[[int, int | None], Store[Any]]] = {"lru": Lru, "s3fifo": S3Fifo}
"""By the name that the setting has."""
OWN_MIN = 1000
"""So many keys of a bucket are noted, at least, before it is looked which of them have left."""


class Contents:
    """The entries of one process; a Tier adds the rules for what may be put and what has to be dropped.

    Args:
        max_entries: the most entries.
        max_bytes: the most bytes; None: no bound.
        eviction: which entry leaves first.
        whole: the contents of all buckets, of which these are the part of one; None: the store is theirs alone.
        bucket: the number of that bucket.
    """

    def __init__(
        self, max_entries: int, max_bytes: int | None, eviction: str, whole: Contents | None = None, bucket: int = 0
    ) -> None:
        # Re-entrant, here and elsewhere: a signal handler or a finaliser may call the cache while its thread holds it.
        self.lock: Any = make_lock() if whole is None else whole.lock
        self._new_store = partial(STORES[eviction], max_entries, max_bytes)
        self._is_part = whole is not None
        self.drops: Drops = Drops() if whole is None else whole.drops
        self._store: Store[Any] = self._new_store() if whole is None else whole._store  # noqa: SLF001  # of this class
        self._store.note_drop = self.drops.note
        self.make_entry = self._store.make_entry
        self.entries: dict[str, Entry] = self._store.entries
        self.touch = self._store.touch
        self.proof = Proof(bucket=bucket)
        self.fallback = Fallback(max_entries, max_bytes)
        self._own: set[str] = set()
        """Of one bucket of several: the keys of its entries, and of some that have left."""
        self._own_max = OWN_MIN
        self._left_why = drops.LOCAL
        """Why all entries were dropped the last time."""
        self._deferred = Deferred()
        self._evicted_before = 0

    @property
    def evictions(self) -> int:
        """Entries that left for want of room."""
        return self._evicted_before + self._store.evicted

    @property
    def count(self) -> int:
        """How many entries are held."""
        return len(self._held()) if self._is_part else len(self.entries)

    @property
    def size(self) -> int:
        """Encoded bytes of the keys and values held."""
        return self._store.bytes

    @property
    def drop(self) -> Callable[[str], None]:
        """Drops an entry that is there, and no fallback value."""
        return self._store.__delitem__

    def entry(self, key: str) -> Entry | None:
        """The entry of a key for those that the fast path did not serve; it may be past its end or its proof.

        After an invalidation of a large tag no entry has the present proof: one that no invalidated tag concerns gets
        it here.
        """
        entry = self.entries.get(key)
        if entry is None or entry.proof is self.proof:
            return entry
        with self.lock:
            return self._prove(key)

    def used_lately(self, count: int) -> list[str]:
        """Some keys that were used lately, at most ``count``, such that each use counts about the same."""
        with self.lock:
            return self._store.used_lately(count) if count else []

    @property
    def frees(self) -> bool:
        """Whether dropped entries have still to be freed."""
        return bool(self._deferred)

    def free_some(self) -> bool:
        """Free up to STEP dropped entries; whether some remain. The bus asks for it, with pauses for other threads."""
        if self._deferred:
            with self.lock:
                self._free_some(STEP)
        return bool(self._deferred)

    def release(self) -> None:
        """Release everything that was dropped at once: the cache is closed."""
        with self.lock:
            self.fallback.clear()
            self._deferred.clear()

    def _release(self, store: Store[Any] | None) -> None:
        if store is not None:
            self._deferred.release(store)

    def _free_some(self, count: int) -> None:
        for key in self._deferred.step(count, self._store):
            del self._store[key]
            self.drops.note((key, drops.TAG))
        for key in self._deferred.step_left(count):
            if key in self.entries:
                self._prove(key)  # which drops it, unless it has come anew

    def _end_proof(self) -> None:
        """Let no reader pass with an entry that it has looked up before; what is put from now on has another proof."""
        before, self.proof = self.proof, Proof(self.proof.until, self.proof.bucket, self.proof.generation)
        before.until = NEVER

    def _prove(self, key: str) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.proof is not self.proof:
            left = entry.proof.generation != self.proof.generation
            if left or not self._deferred.allows(entry):
                del self._store[key]
                self.drops.note((key, self._left_why if left else drops.TAG))
                return None
            entry.proof = self.proof
        return entry

    def _carrying(self, tag: str) -> set[str]:
        """The keys of this bucket that carry a tag; the index's own set where there is one bucket."""
        keys = self._store.tagged.get(tag, set())
        return keys & self._own if self._is_part else keys

    def _take_out(self, why: str) -> Store[Any]:
        """Take every entry out of the readers' sight, and note why for ``explain``; the store that has them now.

        One bucket of several moves its own entries one by one: this is for those that still serve after an error.
        """
        if not self._is_part:
            if self.entries:
                self.drops.note((None, why))
            return self._show(self._new_store())
        taken, store = self._new_store(), self._store
        for key in self._held():
            entry = self._prove(key)
            if entry is not None:
                del store[key]
                taken[key] = entry
                self.drops.note((key, why))
        self._own = set()
        self._deferred.forget_entries()
        return taken

    def _leave_behind(self, why: str) -> int:
        """Drop every entry of one bucket of several, however many others there are; how many they were.

        Their proof ends, so that no reader passes with them; they leave the store step by step, or as they are met.
        """
        keys = self._own
        count = len(self._held())
        self._end_proof()
        self.proof.generation += 1
        self._own, self._left_why = set(), why
        self._deferred.forget_entries()
        self._deferred.leave(keys)
        return count

    def _held(self) -> list[str]:
        """The keys of the entries of one bucket of several."""
        return list(filter(self.entries.__contains__, self._own))

    def _follow(self, whole: Contents) -> None:
        """Be a part of the store that readers of all buckets see now."""
        self._store, self.entries, self.touch = whole._store, whole.entries, whole.touch  # of this class
        self._deferred.left.clear()

    def _left_count(self) -> int:
        """How many dropped entries of one bucket of several are still in the store."""
        found = (self.entries.get(key) for key in self._deferred.left)
        return sum(one is not None and one.proof.generation != self.proof.generation for one in found)

    def _forget_left(self) -> None:
        """Forget the keys of entries of this bucket that have left, and look again when it has twice as many."""
        self._own = set(self._held())
        self._own_max = max(OWN_MIN, 2 * len(self._own))

    def _show(self, store: Store[Any]) -> Store[Any]:
        """Let readers see this store; the one that they saw before."""
        before, self._store = self._store, store
        store.note_drop = self.drops.note
        self._deferred.forget_entries()
        self._evicted_before += before.evicted
        before.evicted = store.evicted = 0
        # Touch first: a reader that pairs the old entries with the new order gets a KeyError, that is, a miss.
        self.touch = store.touch
        self.entries = store.entries
        return before

    def _drop(self, key: str, why: str = drops.OLDER) -> None:
        self.fallback.drop(key)
        if key in self.entries:
            del self._store[key]
            self.drops.note((key, why))
