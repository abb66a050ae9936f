"""L1: entries, and the guards that decide what may be put there (PROTOCOL.md, "Local state", "Read", "Write").

Everything that changes state is called under ``lock``; readers take none. A reader's hit is

    entry = tier.entries[key]; now < entry.deadline and now < tier.fresh_until
    tier.touch(key), or where that is None: entry.uses += 1, up to USES_MAX of local/s3fifo.py

Before a reader sends anything it takes a token; what comes back is put by the one rule in ``put``. Pub/sub comes over
another connection than the reply, and nothing orders the two. But if a write ran after the read did, its message
reaches this process after the token was taken: either before the put, and the token has changed, or after it, and the
message drops the entry.
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
        self.thaw: Callable[[Any], Any] | None = None
        """Makes a value of what an entry has; None: it has the value."""
        self.synced = False
        self.epoch = 0
        self.stamps: list[Version] = [0] * STRIPES
        self.turns = [0] * STRIPES
        """Per stripe, how many values without a version were returned: an epoch of its own."""
        self.floors = Floors()
        self.journal = Journal(journal_max)
        self._evicted_before = 0
        self._leftovers = Deferred()
        self.outage = Fallback(max_entries, max_bytes)

    @property
    def evictions(self) -> int:
        """Entries that left for want of room."""
        return self._evicted_before + self._store.evicted

    @property
    def size(self) -> int:
        """Encoded bytes of the keys and values held."""
        return self._store.bytes

    # ------------------------------------------------------------------------------------------------------- reading

    def token(self, key: str) -> Snapshot:
        """A token for a read that begins now."""
        with self.lock:
            stripe = stripe_of(key)
            trusted = not self.journal.doubts(key)
            return Snapshot(self.epoch, stripe, self.stamps[stripe], self.turns[stripe], trusted)

    def put(self, key: str, entry: Entry, token: Snapshot, *, own: bool = False) -> bool:
        """Put what a GET, a fill or an own set brought, if nothing was written since the token; the one rule.

        Refused: an entry of lower version is dropped, since the caller is about to see a newer one (C); after an own
        write, of any version. Either way the stamp rises, so that a slower put can't bring back an older value (B).

        Args:
            key: the key.
            entry: the value with its version.
            token: taken before anything was sent.
            own: the value was written by this process.

        Returns:
            Whether the entry is in L1 now.
        """
        with self.lock:
            scattered = self.scattered
            if scattered:
                self.outage.drop(key)
                self._recall(key)
            held = self.entries.get(key)
            stamp = self.stamps[token.stripe]
            allowed = (
                self.synced
                and self.epoch == token.epoch
                and self.turns[token.stripe] == token.turn
                and (stamp == token.stamp or entry.version >= stamp)
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
                self.stamps[token.stripe] = entry.version
            if (
                scattered and self._leftovers
            ):  # more than one comes: so they end, and are bounded, also where no bus tidies up
                self._tidy(2)
            return allowed

    def passed_stale(self, key: str, version: Version, token: Snapshot) -> None:
        """A value of this version is returned although it is fresh no more: as a put that is refused (S)."""
        with self.lock:
            held = self.entries.get(key)
            if held is None or held.version < version:
                self._drop(key)
            self.stamps[token.stripe] = max(self.stamps[token.stripe], version)

    def passed_by(self, key: str, now: float, token: Snapshot | None = None, outage: Entry | None = None) -> None:
        """A loaded value of this key is returned but not put, and nothing says how new it is.

        What L1 holds may be older, what is under way too, and so may a load that others could join: all of it ends
        here, so that nobody goes back (G4).

        Args:
            key: the key.
            now: monotonic seconds.
            token: taken before the load.
            outage: the value, to be kept while Redis is away, unless something was written or loaded since (N).
        """
        with self.lock:
            self._drop(key)
            if outage is not None and token is not None:
                stripe = token.stripe
                if (self.epoch, self.stamps[stripe], self.turns[stripe]) == (token.epoch, token.stamp, token.turn):
                    self.outage.keep(key, outage)
            self._pass_by(key, now)

    def _pass_by(self, key: str, now: float) -> None:
        self.turns[stripe_of(key)] += 1
        # The value may follow a clear whose message is on its way: until a heartbeat, L2 is read with its floors.
        self.floors.doubt(now)

    def serve_loaded(self, key: str, now: float) -> Entry | None:
        """The value of a key that was loaded while Redis is away, if it is fresh.

        It may follow a write whose message is on its way; so each time it is served, it is passed by as when it was
        loaded: what is under way is not put, and L2 is read with its floors.
        """
        with self.lock:
            entry = self.outage.get(key)
            if entry is None or now >= entry.deadline:
                return None
            self._pass_by(key, now)
            return entry

    def last_resort(self, key: str) -> Entry | None:
        """What there is of a key, however old, for who serves a stale value after an error."""
        return self.outage.get(key) or self.entries.get(key) or self.outage.flushed(key)

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

    def doubt(self, keys: Sequence[str], *, not_before: int = 0, hold_ms: int = 0) -> None:
        """Journal writes of unknown outcome: misses here from now on, and nothing that is under way may be put."""
        with self.lock:
            for key in keys:
                self._drop(key)
            self.epoch += 1
            self.journal.note(keys, not_before, hold_ms)
            if self.journal.clear is not None:
                self.drop_all()

    def doubt_floors(self, tags: Sequence[str]) -> None:
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

    # ---------------------------------------------------------------- called by the feed, and above, under the lock

    def apply_changes(self, keys: Sequence[str], version: Version) -> None:
        """A message says that keys were written: drop what is older. An own write is known by its version.

        Feed._changes does the same for messages of one key.

        Args:
            keys: the keys.
            version: the least that the write's number may have.
        """
        if self.scattered:
            for key in keys:
                self.outage.drop(key)
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
        return self.outage.used or bool(self._leftovers)

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
        self._release(self.outage.drop_tagged(tags))
        tagged = self._store.tagged
        if sum(len(tagged.get(tag, ())) for tag in tags) > STEP:  # to drop so many one by one would take too long
            self._leftovers.set_aside(self._show(self._new_store()))
        self._leftovers.raise_tags(tags, number)
        for tag in tags:
            for key in tuple(self._store.tagged.get(tag, ())):
                if number_of(self.entries[key].version) < number:
                    self._drop(key)
        self.floors.raise_tags(dict.fromkeys(tags, number))
        self.epoch += 1

    def drop_all(self) -> int:
        """Drop every entry, and refuse every put that is under way; how many were dropped."""
        self.epoch += 1
        self._release(self.outage.clear())
        return self._leftovers.drop(self._show(self._new_store()))

    def flush(self) -> int:
        """Messages may have been missed: nothing that is known of other writers holds any more.

        Who serves stale values after an error may still do so: then the entries are kept out of readers' sight.
        """
        dropped = len(self.entries)
        if self.outage.keeps_flushed:
            self.epoch += 1
            self._release(self.outage.take_over(self._show(self._new_store())))
            dropped += self._leftovers.drop(self._new_store())
        else:
            dropped = self.drop_all()
        self.stamps = [0] * STRIPES
        self.floors.forget()
        return dropped

    # ------------------------------------------------------------------------------- what is too much for one step

    def tidy(self) -> bool:
        """A step of what was put off; whether there is more. The bus asks for it, with pauses for everybody else."""
        if self._leftovers:
            with self.lock:
                self._tidy(STEP)
        return bool(self._leftovers)

    def release(self) -> None:
        """Release what was dropped, whatever it takes: nobody reads any more."""
        with self.lock:
            self.outage.clear()
            self._leftovers.clear()

    def _release(self, store: Store[Any] | None) -> None:
        if store is not None:
            self._leftovers.release(store)

    def _tidy(self, count: int) -> None:
        returned = self._leftovers.exchange(self._store)
        if returned is not None:
            self._show(returned)
        for key, entry in self._leftovers.step(count):
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
        entry = self._leftovers.take(key)
        if entry is not None:
            self._store[key] = entry

    def _drop(self, key: str) -> None:
        self.outage.drop(key)
        self._leftovers.take(key)
        if key in self.entries:
            del self._store[key]
