"""L1: entries, and the guards that decide what may be put there (docs/protocol.md, "Local state", "Read", "Write").

Everything that changes state is called under ``lock``; readers take none. A reader's hit is

    entry = tier.entries[key]; now < entry.deadline and now < tier.fresh_until
    tier.touch(key), or where that is None: entry.uses += 1, up to USES_MAX of local/s3fifo.py

Before a reader sends anything it takes a snapshot; what comes back is put by the one rule in ``put``. Pub/sub comes
over another connection than the reply, and nothing orders the two. But if a write ran after the read did, its message
reaches this process after the snapshot was taken: either before the put, and the snapshot has changed, or after it, and
the message drops the entry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nearcache.local.deferred import STEP, Deferred
from nearcache.local.fallback import Fallback
from nearcache.local.floors import Floors
from nearcache.local.journal import KEYS, TAGS, Batch, Journal
from nearcache.local.s3fifo import S3Fifo
from nearcache.local.snapshot import STRIPES, Snapshot, stripe_of
from nearcache.local.store import Entry, Lru, Store
from nearcache.protocol.versions import Version, number_of, version_of

NEVER = float("-inf")
STORES: Mapping[str, Callable[[int, int | None], Store[Any]]] = {"lru": Lru, "s3fifo": S3Fifo}
"""By the name that the setting has."""


class Tier:
    """The entries of one process and what is known of the writes of all others."""

    def __init__(
        self, max_entries: int, max_bytes: int | None = None, journal_max: int = 10_000, eviction: str = "lru"
    ) -> None:
        # Re-entrant, here and elsewhere: a signal handler or a finaliser may call the cache while its thread holds it.
        self.lock = threading.RLock()
        self._new_store = partial(STORES[eviction], max_entries, max_bytes)
        self._store = self._new_store()
        self.make_entry = self._store.make_entry
        self.entries: dict[str, Entry] = self._store.entries
        self.touch = self._store.touch
        self.fresh_until = NEVER
        self.hits = 0
        """Raised by readers, as `Counters` says."""
        self.decode: Callable[[Any], Any] | None = None
        """Makes a value of what an entry has; None: it has the value."""
        self.synced = False
        self.epoch = 0
        self.stamps: list[Version] = [0] * STRIPES
        self.turns = [0] * STRIPES
        """Per stripe, how many values without a version were returned: an epoch of its own."""
        self.floors = Floors()
        self.journal = Journal(journal_max)
        self._evicted_before = 0
        self._deferred = Deferred()
        self.fallback = Fallback(max_entries, max_bytes)

    @property
    def evictions(self) -> int:
        """Entries that left for want of room."""
        return self._evicted_before + self._store.evicted

    @property
    def size(self) -> int:
        """Encoded bytes of the keys and values held."""
        return self._store.bytes

    # ------------------------------------------------------------------------------------------------------- reading

    def snapshot(self, key: str) -> Snapshot:
        """A snapshot for a read that begins now."""
        with self.lock:
            stripe = stripe_of(key)
            trusted = not self.journal.covers(key)
            return Snapshot(self.epoch, stripe, self.stamps[stripe], self.turns[stripe], trusted)

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put what a GET, a fill or an own set brought, if nothing was written since the snapshot; the one rule.

        Refused: an entry of lower version is dropped, since the caller is about to see a newer one (C); after an own
        write, of any version. Either way the stamp rises, so that a slower put can't bring back an older value (B).

        Args:
            key: the key.
            entry: the value with its version.
            snapshot: taken before anything was sent.
            own: the value was written by this process.

        Returns:
            Whether the entry is in L1 now.
        """
        with self.lock:
            scattered = self.scattered
            if scattered:
                self.fallback.drop(key)
                self._recall(key)
            held = self.entries.get(key)
            stamp = self.stamps[snapshot.stripe]
            allowed = (
                self.synced
                and self.epoch == snapshot.epoch
                and self.turns[snapshot.stripe] == snapshot.turn
                and (stamp == snapshot.stamp or entry.version >= stamp)
                and (held is None or held.version <= entry.version)
            )
            if allowed:
                try:
                    self._store[key] = entry
                except ValueError:  # alone it is larger than l1_max_bytes: cachetools refuses it
                    self._drop(key)
                    allowed = False
            elif held is not None and (own or held.version < entry.version):
                self._drop(key)
            if stamp < entry.version:
                self.stamps[snapshot.stripe] = entry.version
            if scattered and self._deferred:  # more leave than come, also where no bus frees them
                self._free_some(2)
            return allowed

    def returned_stale(self, key: str, version: Version, snapshot: Snapshot) -> None:
        """A value of this version is returned although it is fresh no more: as a put that is refused (S)."""
        with self.lock:
            held = self.entries.get(key)
            if held is None or held.version < version:
                self._drop(key)
            self.stamps[snapshot.stripe] = max(self.stamps[snapshot.stripe], version)

    def returned_unversioned(
        self, key: str, now: float, snapshot: Snapshot | None = None, fallback: Entry | None = None
    ) -> None:
        """A loaded value of unknown version is about to be returned: drop the key's entry and reject results in flight.

        The entry in L1, results under way and loads that others could join may be older: all end here (G4).

        Args:
            key: the key.
            now: monotonic seconds.
            snapshot: taken before the load.
            fallback: the value, to be kept while Redis is away, unless something was written or loaded since (N).
        """
        with self.lock:
            self._drop(key)
            if fallback is not None and snapshot is not None:
                stripe = snapshot.stripe
                if (self.epoch, self.stamps[stripe], self.turns[stripe]) == (
                    snapshot.epoch,
                    snapshot.stamp,
                    snapshot.turn,
                ):
                    self.fallback.keep(key, fallback)
            self._note_unversioned(key, now)

    def _note_unversioned(self, key: str, now: float) -> None:
        self.turns[stripe_of(key)] += 1
        # The value may follow a clear whose message is on its way: until a heartbeat, L2 is read with its floors.
        self.floors.suspect(now)

    def serve_loaded(self, key: str, now: float) -> Entry | None:
        """The value of a key that was loaded while Redis is away, if it is fresh.

        It may follow a write whose message is on its way: each time, results under way are refused (G4).
        """
        with self.lock:
            entry = self.fallback.get(key)
            if entry is None or now >= entry.deadline:
                return None
            self._note_unversioned(key, now)
            return entry

    def last_resort(self, key: str) -> Entry | None:
        """What there is of a key, however old, to be served after an error."""
        return self.fallback.get(key) or self.entries.get(key) or self.fallback.flushed(key)

    def keep_tag_floors(self, floors: dict[str, int], epoch: int) -> None:
        """Keep tag floors that were read, unless a tag or a clear may have come since ``epoch``."""
        with self.lock:
            if self.epoch == epoch and self.synced:
                self.floors.raise_tags(floors)

    # ------------------------------------------------------------------------------------------------------- writing

    def wrote(self, key: str, version: Version) -> None:
        """An own write without a value was acknowledged."""
        with self.lock:
            self._drop(key)
            stripe = stripe_of(key)
            self.stamps[stripe] = max(self.stamps[stripe], version)

    def journal_keys(self, keys: Sequence[str], *, not_before: int = 0, hold_ms: int = 0) -> None:
        """Journal writes of unknown outcome: misses here from now on, and nothing that is under way may be put."""
        with self.lock:
            for key in keys:
                self._drop(key)
            self.epoch += 1
            self.journal.note(keys, not_before, hold_ms)
            if self.journal.clear is not None:
                self.drop_all()

    def journal_floors(self, tags: Sequence[str]) -> None:
        """Journal a clear (no tags) or an invalidation of unknown outcome: every key is a miss here from now on."""
        with self.lock:
            if tags:
                self.journal.note_tags(tags)
            else:
                self.journal.note_clear()
            self.drop_all()

    def replayed(self, batch: Batch, number: int) -> None:
        """A replay was acknowledged under this number: apply it here, and end its entries."""
        with self.lock:
            if batch.kind == KEYS:
                for key in batch.names:
                    self.wrote(key, version_of(number, 0))
            elif batch.kind == TAGS:
                self.apply_tags(batch.names, number)
            else:
                self.apply_clear(number)
            self.journal.replayed(batch)

    # ---------------------------------------------------------------- called by Invalidation, and above, under the lock

    def apply_changes(self, keys: Sequence[str], version: Version) -> None:
        """A message says that keys were written: drop what is older. An own write is known by its version.

        Invalidation._changes does the same for messages of one key.

        Args:
            keys: the keys.
            version: the least that the write's number may have.
        """
        if self.scattered:
            for key in keys:
                self.fallback.drop(key)
                self._recall(key)
        stamps, get, drop = self.stamps, self.entries.get, self.drop
        for key in keys:
            stripe = stripe_of(key)
            if stamps[stripe] < version:  # noqa: PLR1730  # a call of max takes longer than all of this
                stamps[stripe] = version
            held = get(key)
            if held is not None and held.version < version:
                drop(key)

    @property
    def scattered(self) -> bool:
        """Whether something of a key may stand elsewhere than in ``entries``."""
        return self.fallback.used or bool(self._deferred)

    @property
    def drop(self) -> Callable[[str], None]:
        """Drops an entry that is there, and nothing that stands elsewhere."""
        return self._store.__delitem__

    def apply_clear(self, number: int) -> None:
        """The namespace was cleared; nothing to do when it was applied already."""
        if number > self.floors.namespace:
            self.drop_all()
            self.floors.raise_to(number)

    def apply_tags(self, tags: Sequence[str], number: int) -> None:
        """Some tags were invalidated: drop what carries them and is older.

        A floor that is known already says nothing about the entries: it may have been read with another value.
        """
        self._release(self.fallback.drop_tagged(tags))
        tagged = self._store.tagged
        if sum(len(tagged.get(tag, ())) for tag in tags) > STEP:  # to drop so many one by one would take too long
            self._deferred.set_aside(self._show(self._new_store()))
        self._deferred.raise_tags(tags, number)
        for tag in tags:
            for key in tuple(self._store.tagged.get(tag, ())):
                if number_of(self.entries[key].version) < number:
                    self._drop(key)
        self.floors.raise_tags(dict.fromkeys(tags, number))
        self.epoch += 1

    def drop_all(self) -> int:
        """Drop every entry, and refuse every put that is under way; how many were dropped."""
        self.epoch += 1
        self._release(self.fallback.clear())
        return self._deferred.drop(self._show(self._new_store()))

    def flush(self) -> int:
        """Messages may have been missed: drop all; keep entries as fallback values where stale_if_error is used."""
        dropped = len(self.entries)
        if self.fallback.keeps_flushed:
            self.epoch += 1
            self._release(self.fallback.take_over(self._show(self._new_store())))
            dropped += self._deferred.drop(self._new_store())
        else:
            dropped = self.drop_all()
        self.stamps = [0] * STRIPES
        self.floors.forget()
        return dropped

    # ------------------------------------------------------------------------------- what is too much for one step

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
