"""L1 without one of its guards: the put rule, the marks of the journal, what is returned and not kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from nearcache.local.marks import NO_MARK, Mark
from nearcache.local.snapshot import Snapshot, Snapshots, stripe_of
from nearcache.local.store import Entry, Proof
from nearcache.local.tier import Tier
from nearcache.protocol.answers import TagFloor
from nearcache.protocol.versions import Version, number_of, version_of


class OneByOne(Tier):
    """Puts what has come together one by one."""

    def _put(
        self, reads: Iterable[tuple[str, Entry | None, int, Version, int]], epoch: int, *, own: bool = False
    ) -> int:
        """Put each."""
        return sum(
            self._put_one(key, entry, Snapshot(epoch, stripe, stamp, turn), own=own)
            for key, entry, stripe, stamp, turn in reads
            if entry is not None
        )

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put one."""
        epoch, stripe, stamp, turn, _, _ = snapshot
        return bool(super()._put(((key, entry, stripe, stamp, turn),), epoch, own=own))


class NoSnapshot(OneByOne):
    """The put looks at nothing that was written since the snapshot."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with the stamp and the epoch of now."""
        now = snapshot._replace(epoch=self.epoch, stamp=self.stamps[snapshot.stripe])
        return super()._put_one(key, entry, now, own=own)


class WroteLeavesStamp(OneByOne):
    """An own write raises no stamp: what was asked before it may be put after it."""

    def _put_one(self, key: str, entry: Any, snapshot: Any, *, own: bool = False) -> bool:
        """Put, and set the stamp back after an own write."""
        before = self.stamps[snapshot.stripe]
        done = super()._put_one(key, entry, snapshot, own=own)
        if own:
            self.stamps[snapshot.stripe] = before
        return done

    def wrote(self, key: str, version: Version, epoch: int) -> None:
        """Drop only."""
        del version
        super().wrote(key, 0, epoch)


class FreshForEver(OneByOne):
    """Once proven, L1 is served without a further proof."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with a proof that does not end by itself."""
        done = super()._put_one(key, entry, snapshot, own=own)
        if done:
            entry.proof = Proof(float("inf"))
        return done


class UnknownStaysInL1(Tier):
    """An operation of unknown outcome leaves L1 as it is."""

    def unknown(self, key: str) -> None:
        """Nothing."""


class UnknownIsJournalled(Tier):
    """An operation of unknown outcome is replayed as a delete, as a set is."""

    def unknown(self, key: str) -> None:
        """As of a set."""
        self.journal_keys([key])


class NoStamp(OneByOne):
    """The put does not look whether the key was written since the snapshot."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with the stamp of now."""
        return super()._put_one(key, entry, snapshot._replace(stamp=self.stamps[snapshot.stripe]), own=own)


class NoEpoch(OneByOne):
    """The put does not look whether a clear, a tag, a loss or a flush came since the snapshot."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with the epoch of now."""
        return super()._put_one(key, entry, snapshot._replace(epoch=self.epoch), own=own)


class PutAnything(OneByOne):
    """The put looks at nothing."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put."""
        with self.lock:
            self._store[key] = entry
        return True


class PutLeavesStamp(OneByOne):
    """A put does not raise the stamp, so that a slower put does not know of it."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put, and set the stamp back."""
        before = self.stamps[snapshot.stripe]
        done = super()._put_one(key, entry, snapshot, own=own)
        self.stamps[snapshot.stripe] = before
        return done


class RefusedPutDropsNothing(OneByOne):
    """A refused put leaves an older entry, also after an own write."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put, and bring back what was dropped."""
        held = self.entries.get(key)
        done = super()._put_one(key, entry, snapshot, own=own)
        if not done and held is not None:
            self._store[key] = held
        return done


class OwnPutAsAnyOther(OneByOne):
    """A refused own write drops only what is older."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put as if somebody else had written it."""
        del own
        return super()._put_one(key, entry, snapshot)


class NumbersAlone(OneByOne):
    """A version is its number: two loads under one number are not told apart."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put without the time."""
        return super()._put_one(key, replace(entry, version=version_of(number_of(entry.version), 0)), snapshot, own=own)


class NeverPassedBy(Tier):
    """A loaded value that is returned but not kept leaves L1 as it is."""

    def returned_unversioned(
        self, key: str, mark: Mark | None, snapshot: Snapshot, fallback: Entry | None = None
    ) -> None:
        """Nothing."""


class PassedByDropsOnly(Tier):
    """Such a value drops what L1 holds, but not what is under way."""

    def returned_unversioned(
        self, key: str, mark: Mark | None, snapshot: Snapshot, fallback: Entry | None = None
    ) -> None:
        """Drop."""
        with self.lock:
            self._drop(key)


class OutageKeepsAnything(Tier):
    """What was loaded while Redis is away is kept, whatever was written meanwhile."""

    def returned_unversioned(
        self, key: str, mark: Mark | None, snapshot: Snapshot, fallback: Entry | None = None
    ) -> None:
        """Keep."""
        super().returned_unversioned(key, mark, self.snapshot(key), fallback)


class NoMarks(Tier):
    """A value that is returned without a version leaves no mark."""

    def returned_unversioned(
        self, key: str, mark: Mark | None, snapshot: Snapshot, fallback: Entry | None = None
    ) -> None:
        """Without it."""
        super().returned_unversioned(key, None, snapshot, fallback)


class MarksEndWithAnyFill(OneByOne):
    """A mark ends when a fill of its own process is answered, whenever its lease was given."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """End it."""
        self.marks.end(key)
        return super()._put_one(key, entry, snapshot, own=own)


class SnapshotsWithoutMarks(Tier):
    """A reader looks at the mark of now alone."""

    def take(self, keys: Sequence[str]) -> Snapshots:
        """Without the marks."""
        return super().take(keys)._replace(marks=[NO_MARK] * len(keys))


class AnyEpochRaisesStamps(Tier):
    """Versions of another epoch, which may be of another history, raise stamps too."""

    def _note_version(self, key: str, version: Version, epoch: int) -> None:
        del epoch
        super()._note_version(key, version, self.epoch)


class TurnsByStripe(Tier):
    """Keys of one stripe share a turn."""

    def snapshot(self, key: str) -> Snapshot:
        """With the turns of all keys of the stripe."""
        taken = super().snapshot(key)
        return taken._replace(turn=sum(turn for key, turn in self.turns.items() if stripe_of(key) == taken.stripe))

    def take(self, keys: Sequence[str]) -> Snapshots:
        """Likewise."""
        taken = super().take(keys)
        return taken._replace(turns=[self.snapshot(key).turn for key in keys])


class StalePassesNothing(Tier):
    """A stale value that is returned leaves L1 as it is."""

    def returned_unkept(self, key: str, version: Version, snapshot: Snapshot) -> None:
        """Nothing."""


class FlushedServesAlways(Tier):
    """What a flush took out serves after an error, also where Redis has answered that there is nothing."""

    def last_resort(self, key: str, *, away: bool) -> Entry | None:
        """As if Redis were away."""
        del away
        return super().last_resort(key, away=True)


class ForgetUnknownWrites(Tier):
    """A write of unknown outcome is taken for one that did nothing."""

    def journal_keys(self, keys: Sequence[str], *, not_before: int = 0, hold_ms: int = 0) -> None:
        """Nothing."""

    def journal_floors(self, tags: Sequence[str]) -> None:
        """Nothing."""


class JournalWithoutEpoch(Tier):
    """Journalling drops what L1 holds, but puts that are under way go on."""

    def journal_keys(self, keys: Sequence[str], *, not_before: int = 0, hold_ms: int = 0) -> None:
        """Set the epoch back."""
        before = self.epoch
        super().journal_keys(keys, not_before=not_before, hold_ms=hold_ms)
        self.epoch = before


class AcknowledgementsEndEntries(OneByOne):
    """An acknowledged write takes its key for settled."""

    def _put_one(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Forget the journal's entry."""
        if own:
            self.journal.keys.pop(key, None)
        return super()._put_one(key, entry, snapshot, own=own)

    def wrote(self, key: str, version: Version, epoch: int) -> None:
        """Forget the journal's entry."""
        self.journal.keys.pop(key, None)
        super().wrote(key, version, epoch)


class ReadFloorsCountAsApplied(Tier):
    """A tag that stands at this number already, since its floor was read, is taken for applied."""

    def apply_tags(self, tags: Iterable[str], number: int, *, stale: bool = False) -> None:
        """Apply the others."""
        floors = self.floors.tags
        super().apply_tags(
            [tag for tag in tags if tag not in floors or floors[tag].number < number], number, stale=stale
        )


class KeepTagFloorsOfAnyTime(Tier):
    """Tag floors that were read are kept, whatever came meanwhile."""

    def keep_tag_floors(self, floors: dict[str, TagFloor], epoch: int) -> None:
        """Keep."""
        del epoch
        super().keep_tag_floors(floors, self.epoch)
