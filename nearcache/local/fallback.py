"""Fallback values: loaded while Redis is away, or flushed and good enough to serve after an error.

The fast path does not see them; the engine asks for them when L1 and L2 have nothing. Every own write and every
message of a key drops its fallback value, and so does every value of it that is read or loaded, so that no read goes
back to it (N, G4). All under the tier's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nearcache.local.deferred import STEP
from nearcache.local.store import Entry, Lru, Store


class Fallback:
    """Values that the fast path does not see.

    Args:
        max_entries: of values that were loaded while Redis is away; the oldest leaves first.
        max_bytes: the same in bytes, as L1 counts them; None: no bound.
    """

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        self._loaded = Lru(max_entries, max_bytes)
        self._flushed: Store[Any] | None = None
        self._restart = False
        self.keeps_flushed = False
        """Whether flushed entries are kept at all: some reader uses stale_if_error."""
        self.used = False
        """Whether anything is here, so that the bus need not ask for each key while Redis is well."""

    def get(self, key: str) -> Entry | None:
        """The value that was loaded while Redis is away; the caller compares its deadline."""
        return self._loaded.entries.get(key)

    def keep(self, key: str, entry: Entry) -> None:
        """Keep a value that was loaded while Redis is away."""
        with suppress(ValueError):  # alone it is larger than all of them may be
            self._loaded[key] = entry
            self.used = True

    def flushed(self, key: str, *, away: bool) -> Entry | None:
        """An entry that was flushed, while Redis does not answer, or because it has lost what it had."""
        if self._flushed is None or not (away or self._restart):
            return None
        return self._flushed.entries.get(key)

    def take_over(self, store: Store[Any], *, restart: bool) -> Store[Any] | None:
        """These entries have been flushed; the store that is to be released instead, if there is one.

        A few of them join those that were flushed before, many take their place: both is one short step.
        """
        before, self.used = self._flushed, True
        self._restart = restart
        if before is None or len(store.entries) > STEP:
            self._flushed = store
            return before
        for key, entry in store.entries.items():
            before[key] = entry
        return store

    def drop(self, key: str) -> None:
        """Something newer is known of a key."""
        if key in self._loaded:
            del self._loaded[key]
        if self._flushed is not None and key in self._flushed.entries:
            del self._flushed[key]

    def drop_tagged(self, tags: Sequence[str]) -> Store[Any] | None:
        """Some tags were invalidated; the store that is to be released: many of its entries take the others along."""
        self.back()
        store = self._flushed
        if store is None or sum(len(store.tagged.get(tag, ())) for tag in tags) > STEP:
            return self.clear()
        for tag in tags:
            for key in tuple(store.tagged.get(tag, ())):
                del store[key]
        return None

    def back(self) -> None:
        """Redis is back: values that were loaded without it end."""
        self._loaded.clear()
        self.used = self._flushed is not None

    def clear(self) -> Store[Any] | None:
        """Everything was cleared; the store that is to be released."""
        store, self._flushed = self._flushed, None
        self.back()
        return store
