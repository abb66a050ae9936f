"""What L1 holds, and how it leaves: the store that readers see, and what left it whole and is freed step by step.

Readers look into ``entries`` and note hits by ``touch`` without a lock; everything else is called under ``lock``. The
entry of a key may also stand in a store that was set aside, and a value of it among the fallback values: while
``scattered`` says so, every change of a key has to look there too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nearcache.local.deferred import STEP, Deferred
from nearcache.local.fallback import Fallback
from nearcache.local.s3fifo import S3Fifo
from nearcache.local.store import Entry, Lru, Store

STORES: Mapping[str, Callable[[int, int | None], Store[Any]]] = {"lru": Lru, "s3fifo": S3Fifo}
"""By the name that the setting has."""


class Contents:
    """The entries of one process; a Tier adds the rules for what may be put and what has to be dropped."""

    def __init__(self, max_entries: int, max_bytes: int | None, eviction: str) -> None:
        # Re-entrant, here and elsewhere: a signal handler or a finaliser may call the cache while its thread holds it.
        self.lock = threading.RLock()
        self._new_store = partial(STORES[eviction], max_entries, max_bytes)
        self._store = self._new_store()
        self.make_entry = self._store.make_entry
        self.entries: dict[str, Entry] = self._store.entries
        self.touch = self._store.touch
        self.fallback = Fallback(max_entries, max_bytes)
        self._deferred = Deferred()
        self._evicted_before = 0

    @property
    def evictions(self) -> int:
        """Entries that left for want of room."""
        return self._evicted_before + self._store.evicted

    @property
    def size(self) -> int:
        """Encoded bytes of the keys and values held."""
        return self._store.bytes

    @property
    def scattered(self) -> bool:
        """Whether something of a key may stand elsewhere than in ``entries``."""
        return self.fallback.used or bool(self._deferred)

    @property
    def drop(self) -> Callable[[str], None]:
        """Drops an entry that is there, and nothing that stands elsewhere."""
        return self._store.__delitem__

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
        returned = self._deferred.exchange(self._store)
        if returned is not None:
            self._show(returned)
        for key, entry in self._deferred.step(count):
            self._store[key] = entry

    def _show(self, store: Store[Any]) -> Store[Any]:
        """Let readers see this store; the one that they saw before."""
        before, self._store = self._store, store
        self._evicted_before += before.evicted
        before.evicted = store.evicted = 0
        # Touch first: a reader that pairs the old entries with the new order gets a KeyError, that is, a miss.
        self.touch = store.touch
        self.entries = store.entries
        return before

    def _recall(self, key: str) -> None:
        """An entry that was set aside comes back before anything is done about its key."""
        entry = self._deferred.take(key)
        if entry is not None:
            self._store[key] = entry

    def _drop(self, key: str) -> None:
        self.fallback.drop(key)
        self._deferred.take(key)
        if key in self.entries:
            del self._store[key]
