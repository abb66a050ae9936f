"""What a put is compared with: epoch, stamps, turns, marks, floors and the journal, and snapshots of them.

A snapshot is taken before anything is sent. What is heard or written since then shows in these, and decides whether the
value that the reply brings may be put (``local/tier.py``). Everything here is called under ``lock``, or takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from nearcache.local.contents import Contents
from nearcache.local.floors import Floors
from nearcache.local.journal import Journal
from nearcache.local.marks import NO_MARK, Marks
from nearcache.local.snapshot import STRIPES, Snapshot, Snapshots, stripe_of
from nearcache.protocol.versions import Version

TURNS_MAX = 10_000


class Guards(Contents):
    """The entries of L1, and what is known of the writes of all processes."""

    def __init__(
        self,
        max_entries: int,
        max_bytes: int | None = None,
        journal_max: int = 10_000,
        eviction: str = "lru",
        whole: Guards | None = None,
        bucket: int = 0,
    ) -> None:
        super().__init__(max_entries, max_bytes, eviction, whole, bucket)
        self.hits = 0
        """Raised by readers without a lock, as `Counters` says."""
        self.synced = False
        self.stripes_held = STRIPES
        """Keys of further stripes are not held: the setting l1_share, or what the fleet is told."""
        self.epoch = 0
        self.stamps: list[Version] = [0] * STRIPES
        self.turns: dict[str, int] = {}
        """By key, how often results under way were rejected: an epoch for the key alone."""
        self.marks: Marks = Marks() if whole is None else whole.marks
        self.floors = Floors()
        self.journal = Journal(journal_max)

    def snapshot(self, key: str) -> Snapshot:
        """A snapshot for a read, a write or a load of one key that begins now."""
        with self.lock:
            stripe, journal = crc32(key.encode()) % STRIPES, self.journal
            doubted = (journal.keys or journal.tags or journal.clear is not None) and journal.covers(key)
            mark = self.marks.of(key) if self.marks.used else NO_MARK
            parts = self.epoch, stripe, self.stamps[stripe], self.turns.get(key, 0), not doubted, mark
            return tuple.__new__(Snapshot, parts)  # a call less

    def snapshots(self, keys: Sequence[str]) -> list[Snapshot]:
        """Snapshots for writes or loads that begin now, under one hold of the lock."""
        with self.lock:
            return list(map(self.snapshot, keys))

    def take(self, keys: Sequence[str]) -> Snapshots:
        """Snapshots for reads that begin now, under one hold of the lock."""
        with self.lock:
            stamps, journal = self.stamps, self.journal
            if len(keys) == 1:  # as ``snapshot``, and as below for one: calls and lists less
                (key,) = keys
                stripe = crc32(key.encode()) % STRIPES
                doubted = (journal.keys or journal.tags or journal.clear is not None) and journal.covers(key)
                mark = self.marks.of(key) if self.marks.used else NO_MARK
                one = self.epoch, (stripe,), (stamps[stripe],), (self.turns.get(key, 0),), (not doubted,), (mark,)
                return tuple.__new__(Snapshots, one)
            stripes = [code % STRIPES for code in map(crc32, map(str.encode, keys))]  # as stripe_of
            turns, trusted, marks = [0] * len(stripes), [True] * len(stripes), [NO_MARK] * len(stripes)
            if self.turns:
                turns = [self.turns.get(key, 0) for key in keys]
            if journal.keys or journal.tags or journal.clear is not None:
                trusted = [not journal.covers(key) for key in keys]
            if self.marks.used:
                marks = [self.marks.of(key) for key in keys]
            before = list(map(stamps.__getitem__, stripes))
            return tuple.__new__(Snapshots, (self.epoch, stripes, before, turns, trusted, marks))  # a call less

    def _note_version(self, key: str, version: Version, epoch: int) -> None:
        """Refuse what is older and still under way.

        A version that was asked for under another epoch may be of another history, whose numbers say nothing (Y): it
        raises the turn, which refuses all that is under way, and no stamp.
        """
        if epoch != self.epoch:
            self._take_turn(key)
            return
        stripe = stripe_of(key)
        self.stamps[stripe] = max(self.stamps[stripe], version)

    def _take_turn(self, key: str) -> None:
        """Reject all results of a key that are under way."""
        if len(self.turns) >= TURNS_MAX and key not in self.turns:
            self.turns.clear()
            self.epoch += 1
        self.turns[key] = self.turns.get(key, 0) + 1
