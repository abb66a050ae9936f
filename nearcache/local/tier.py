"""L1: its entries, and the guards that decide what may be put (docs/protocol.md, "Local state", "Read", "Write").

Everything that changes state is called under ``lock``; readers take none. A reader's hit is

    entry = tier.entries[key]; now < entry.deadline and now < entry.proof.until
    tier.touch(key), or where that is None: entry.uses += 1, up to USES_MAX of local/s3fifo.py

Before a reader sends anything it takes a snapshot; the value in the reply is put by the one rule in ``put``. Messages
come over another connection than replies, and nothing orders the two. But if a write ran after the read did, its
message reaches this process after the snapshot was taken: either before the put, and the snapshot has changed, or after
it, and the message drops the entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from nearcache.local import drops
from nearcache.local.deferred import STEP
from nearcache.local.guards import Guards
from nearcache.local.journal import KEYS, Batch
from nearcache.local.marks import Mark
from nearcache.local.snapshot import STRIPES, Snapshot, Snapshots, stripe_of
from nearcache.local.store import NEVER, Entry
from nearcache.protocol.answers import TagFloor
from nearcache.protocol.versions import Version, number_of, version_of

__all__ = ["NEVER", "Tier"]


class Tier(Guards):
    """L1 of one cache: the rule by which entries are put, and what drops them."""

    # ------------------------------------------------------------------------------------------------------- putting

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put the value of a read, a fill or an own set, unless something was written since the snapshot; the one rule.

        Refused: an entry of lower version is dropped, since the caller is about to see a newer one (C); after an own
        write, of any version. Either way the stamp rises, so that a slower put can't bring back an older value (B).

        Args:
            key: the key.
            entry: the value with its version.
            snapshot: taken before anything was sent.
            own: the value was written by this process.

        Returns:
            False: refused. True: the entry is in L1 now, unless L1 may not hold its key (``hold``).
        """
        epoch, stripe, stamp, turn, _, _ = snapshot
        with self.lock:
            return bool(self._put(((key, entry, stripe, stamp, turn),), epoch, own=own))

    def put_plain(self, keys: Sequence[str], entries: list[Entry | None], snapshots: Snapshots, now: float) -> int:
        """Put what one request has brought, under one hold of the lock, unless its floors may have risen since.

        Args:
            keys: the keys.
            entries: of each key; None: it is not plain. Set to None are those that have to be judged again: since their
                snapshots a clear, an invalidation, a flush or a loss has come, or a value of the key was returned
                without a version.
            snapshots: of the keys.
            now: monotonic seconds.

        Returns:
            How many were put.
        """
        epoch, stripes, stamps, turns, _, _ = snapshots
        with self.lock:
            if self.epoch != epoch or not (self.synced and self.floors.known and now < self.proof.until):
                entries[:] = [None] * len(entries)
            elif self.turns:
                for at, (key, turn) in enumerate(zip(keys, turns, strict=True)):
                    if self.turns.get(key, 0) != turn:
                        entries[at] = None
            return self._put(zip(keys, entries, stripes, stamps, turns, strict=True), epoch)

    def _put(
        self, reads: Iterable[tuple[str, Entry | None, int, Version, int]], epoch: int, *, own: bool = False
    ) -> int:
        """Put by the one rule.

        Args:
            reads: of each its key, its entry if there is one, and of its snapshot stripe, stamp and turn.
            epoch: of the snapshots.
            own: as of ``put``.

        Returns:
            How many were put.
        """
        # What is looked up once here changes only along with the epoch, also by a signal handler in the middle.
        put, held_of, turn_of, stamps, proof = 0, self.entries.get, self.turns.get, self.stamps, self.proof
        special = self.marks.used or self._is_part or self._store.max_bytes is not None
        keep = self._keep if special else self._store.put
        for key, entry, stripe, before, turn in reads:
            if entry is None:
                continue
            if self.fallback.used:
                self.fallback.drop(key)
            held = held_of(key)
            if held is not None and held.proof is not proof:
                held = self._prove(key)
            version, stamp = entry.version, stamps[stripe]
            if (
                self.epoch == epoch
                and self.synced
                and turn_of(key, 0) == turn
                and (stamp == before or version >= stamp)
                and (held is None or held.version <= version)
            ):
                entry.proof = proof
                put += stripe >= self.stripes_held or not keep(key, entry)
            elif held is not None and (own or held.version < version):
                self._drop(key, drops.OWN_WRITE if own else drops.OLDER)
            if self.epoch != epoch:
                self._note_version(key, version, epoch)
            elif stamp < version:
                stamps[stripe] = version
        deferred = self._deferred
        if deferred.dead or deferred.doomed or deferred.left:  # more leave than come, also where no bus frees them
            self._free_some(2 * put or 2)
        return put

    def _keep(self, key: str, entry: Entry) -> bool:
        """Put where more than the store has to know of it; whether it is too large."""
        if self.marks.used:
            # The turn is that of the snapshot: what is put began after the mark, if there is one.
            self.marks.end(key)
        if self._is_part:
            self._own.add(key)
            if len(self._own) > self._own_max:
                self._forget_left()
        try:
            self._store.put(key, entry)
        except ValueError:  # alone it is larger than l1_max_bytes: cachetools refuses it
            self._drop(key, drops.EVICTED)
            return True
        return False

    def returned_unkept(self, key: str, version: Version, snapshot: Snapshot) -> None:
        """Record the version of a value that is returned and not kept, so that no later read returns an older one (S).

        It is stale, or a counter.
        """
        with self.lock:
            held = self.entries.get(key)
            if held is None or held.version < version:
                self._drop(key, drops.OLDER)
            self._note_version(key, version, snapshot.epoch)

    def returned_unversioned(
        self, key: str, mark: Mark | None, snapshot: Snapshot, fallback: Entry | None = None
    ) -> None:
        """A loaded value of unknown version is about to be returned: drop the key's entry and reject results in flight.

        The entry in L1, results under way and loads that others could join may be older: all end here (G4).

        Args:
            key: the key.
            mark: when its load ended; None: no record of the key in L2 can be older.
            snapshot: taken before the load.
            fallback: the value, to be kept for readers without Redis or after errors, unless something was written or
                loaded since (N).
        """
        with self.lock:
            self._drop(key, drops.UNVERSIONED)
            if fallback is not None:
                stripe = snapshot.stripe
                if (self.epoch, self.stamps[stripe], self.turns.get(key, 0)) == (
                    snapshot.epoch,
                    snapshot.stamp,
                    snapshot.turn,
                ):
                    self.fallback.keep(key, fallback)
            self._take_turn(key)
            if mark is not None:
                self.marks.note(key, mark)

    def serve_loaded(self, key: str, now: float) -> Entry | None:
        """The fresh value of a key that was loaded while Redis is away, or None; its mark refuses what is older (T)."""
        entry = self.fallback.get(key)
        return None if entry is None or now >= entry.deadline else entry

    def last_resort(self, key: str, *, away: bool) -> Entry | None:
        """The newest value of a key here, however old, to be served after an error.

        Args:
            key: the key.
            away: Redis did not answer this read. If it did, and has nothing, what a flush took out may have been
                deleted by a write whose message was missed.
        """
        return self.fallback.get(key) or self.entry(key) or self.fallback.flushed(key, away=away)

    def keep_tag_floors(self, floors: dict[str, TagFloor], epoch: int) -> None:
        """Keep tag floors that were read, unless an invalidation or a clear may have been applied since ``epoch``."""
        with self.lock:
            if self.epoch == epoch and self.synced:
                self.floors.raise_tags(floors)

    # ------------------------------------------------------------------------------------------------------- writing

    def wrote(self, key: str, version: Version, epoch: int) -> None:
        """An own write without a value was acknowledged; it was sent under this epoch."""
        with self.lock:
            self._drop(key, drops.OWN_WRITE)
            self._note_version(key, version, epoch)

    def unknown(self, key: str) -> None:
        """An operation of unknown outcome is not replayed: its key is read anew, and results in flight are rejected."""
        with self.lock:
            self._drop(key)
            self.epoch += 1

    def journal_keys(self, keys: Sequence[str], *, not_before: int = 0, hold_ms: int = 0) -> None:
        """Journal writes of unknown outcome: their keys are misses from now on, and results in flight are rejected."""
        with self.lock:
            for key in keys:
                self._drop(key, drops.UNKNOWN_WRITE)
            self.epoch += 1
            self.journal.note(keys, not_before, hold_ms)
            if self.journal.clear is not None:
                self.drop_all(drops.UNKNOWN_FLOOR)

    def journal_floors(self, tags: Sequence[str]) -> None:
        """Journal a clear (no tags) or an invalidation of unknown outcome: every key is a miss from now on."""
        with self.lock:
            if tags:
                self.journal.note_tags(tags)
            else:
                self.journal.note_clear()
            self.drop_all(drops.UNKNOWN_FLOOR)

    def replayed(self, batch: Batch, number: int, epoch: int, now: float) -> None:
        """A replay was acknowledged under this number: apply it to L1, and end its journal entries (F)."""
        with self.lock:
            if batch.kind == KEYS:
                for key in batch.names:
                    self.wrote(key, version_of(number, 0), epoch)
            else:
                self.raised_floors(batch.names, number, now)
            self.journal.replayed(batch)

    def raised_floors(self, tags: Sequence[str], number: int, now: float, *, stale: bool = False) -> None:
        """An own clear (no tags) or invalidation was acknowledged under this number: apply it to L1 (G)."""
        with self.lock:
            if tags:
                self.apply_tags(tags, number, stale=stale)
            else:
                self.apply_clear(number)
            self.floors.raised(now)

    # ---------------------------------------------------------------- called by Invalidation, and above, under the lock

    def apply_changes(self, keys: Sequence[str], version: Version) -> None:
        """Apply a message that keys were written: drop older entries. An own write is known by its version.

        Invalidation._changes does the same for messages of one key.

        Args:
            keys: the keys.
            version: the least that the write's number may have.
        """
        if self.fallback.used:
            for key in keys:
                self.fallback.drop(key)
        stamps, get, drop, note = self.stamps, self.entries.get, self.drop, self.drops.note
        for key in keys:
            stripe = stripe_of(key)
            if stamps[stripe] < version:  # noqa: PLR1730  # a call of max takes longer than all of this
                stamps[stripe] = version
            held = get(key)
            if held is not None and held.version < version:
                drop(key)
                note((key, drops.ANOTHER_WRITE))

    def apply_clear(self, number: int) -> None:
        """Apply a clear of the namespace, unless it was applied already."""
        if number > self.floors.namespace:
            self.drop_all(drops.CLEARED)
            self.floors.raise_to(number)

    def apply_tags(self, tags: Sequence[str], number: int, *, stale: bool = False) -> None:
        """Apply an invalidation of tags: drop the entries that carry one of them and are older.

        This is done even if the floors are known already: they may have been read with another value. What was only
        made stale leaves L1, too: its record in L2 may still serve after an error.
        """
        self._release(self.fallback.drop_tagged(tags))
        carrying = {tag: self._carrying(tag) for tag in tags}
        # To drop very many one by one takes too long: all lose their proof, and those that may stay get the new one.
        many = self._deferred.concerns(tags) or sum(map(len, carrying.values())) > STEP
        if many:
            self._end_proof()
        for tag, keys in carrying.items():
            self._deferred.invalidate(tag, number, self._store.take_index(tag, keys) if many else None)
            for key in () if many else tuple(keys):
                entry = self.entries.get(key)  # None: an interrupt came while it was dropped
                if entry is not None and number_of(entry.version) < number:
                    self._drop(key, drops.TAG)
        self.floors.invalidate(tags, number, stale=stale)
        self.epoch += 1

    def hold(self, share: float) -> None:
        """Hold a part of the keys alone from now on, by their stripes; what is held is dropped when it is lowered."""
        held = ceil(share * STRIPES)
        if held != self.stripes_held:
            with self.lock:
                if held < self.stripes_held and (self.entries or self.fallback.used):
                    self.drop_all(drops.SHARE)
                self.stripes_held = held

    def drop_all(self, why: str = drops.LOCAL) -> int:
        """Drop every entry, and reject results in flight; how many entries were dropped."""
        self.epoch += 1
        self._release(self.fallback.clear())
        if self._is_part:
            return self._leave_behind(why)
        before = self._take_out(why)
        self._release(before)
        return len(before.entries)

    def flush(self, why: str = drops.LOCAL, *, restart: bool = False) -> int:
        """Drop every entry: messages may have been missed. They stay as fallback values if stale_if_error is used.

        Args:
            why: for ``explain``.
            restart: the server has lost its values, or is another one.
        """
        self._end_proof()
        if self.fallback.keeps_flushed and not self._deferred.dooms:
            self.epoch += 1
            before = self._take_out(why)
            dropped = len(before.entries)
            self._release(self.fallback.take_over(before, restart=restart))
        else:
            dropped = self.drop_all(why)
        self.stamps = [0] * STRIPES
        self.floors.forget()
        return dropped
