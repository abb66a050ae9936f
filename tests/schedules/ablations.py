"""Each guard of the protocol taken away, by name: a schedule that shows no violation without its guard shows nothing.

``Rules()`` is the library as it is. Every other one replaces a single guard by nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from nearcache.engine import subscriber, write
from nearcache.engine.ports import RemoteFailed, TooLate
from nearcache.engine.requests import Operation, Requests
from nearcache.local.fallback import Fallback
from nearcache.local.floors import Floors
from nearcache.local.invalidation import Effects, Invalidation
from nearcache.local.journal import Batch, Journal
from nearcache.local.singleflight import Aim, Flight, FlightKey, Flights
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.protocol.answers import Granted, Greeting, Item, Written
from nearcache.protocol.messages import Message
from nearcache.protocol.versions import Version, number_of, version_of
from nearcache.testing.model import Server
from tests.schedules.stepper import Instance, ModelBus, ModelRemote, World


@dataclass(frozen=True)
class Rules:
    """The parts that a world is made of."""

    tier: type[Tier] = Tier
    invalidation: type[Invalidation] = Invalidation
    server: type[Server] = Server
    remote: type[ModelRemote] = ModelRemote
    bus: type[ModelBus] = ModelBus
    patched: tuple[tuple[object, str, object], ...] = ()
    """What else is replaced while the world exists: object, attribute, by what."""

    @property
    def name(self) -> str:
        """What is replaced by what."""
        ours = [
            part for part in (self.tier, self.invalidation, self.server, self.remote) if part.__module__ == __name__
        ]
        return "+".join([part.__name__ for part in ours] + [getattr(by, "__name__", "?") for _, _, by in self.patched])

    @contextmanager
    def world(self) -> Iterator[World]:
        """A world under these rules."""
        with ExitStack() as patches:
            for patch in self.patched:
                patches.enter_context(mock.patch.object(*patch))
            yield World(self.server)

    def instance(self, world: World, name: str, **options: Any) -> Instance:
        """An instance under these rules."""
        return Instance(
            world, name, tier=self.tier, invalidation=self.invalidation, remote=self.remote, bus=self.bus, **options
        )


# ---------------------------------------------------------------------------------------------------------------- tier


class NoStamp(Tier):
    """The put does not look whether the key was written since the snapshot."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with the stamp of now."""
        return super().put(key, entry, snapshot._replace(stamp=self.stamps[snapshot.stripe]), own=own)


class NoEpoch(Tier):
    """The put does not look whether a clear, a tag, a loss or a flush came since the snapshot."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put with the epoch of now."""
        return super().put(key, entry, snapshot._replace(epoch=self.epoch), own=own)


class PutAnything(Tier):
    """The put looks at nothing."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put."""
        with self.lock:
            self._store[key] = entry
        return True


class PutLeavesStamp(Tier):
    """A put does not raise the stamp, so that a slower put does not know of it."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put, and set the stamp back."""
        before = self.stamps[snapshot.stripe]
        done = super().put(key, entry, snapshot, own=own)
        self.stamps[snapshot.stripe] = before
        return done


class RefusedPutDropsNothing(Tier):
    """A refused put leaves an older entry, also after an own write."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put, and bring back what was dropped."""
        held = self.entries.get(key)
        done = super().put(key, entry, snapshot, own=own)
        if not done and held is not None:
            self._store[key] = held
        return done


class OwnPutAsAnyOther(Tier):
    """A refused own write drops only what is older."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put as if somebody else had written it."""
        del own
        return super().put(key, entry, snapshot)


class NumbersAlone(Tier):
    """A version is its number: two loads under one number are not told apart."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Put without the time."""
        return super().put(key, replace(entry, version=version_of(number_of(entry.version), 0)), snapshot, own=own)


class NeverPassedBy(Tier):
    """A loaded value that is returned but not kept leaves L1 as it is."""

    def returned_unversioned(
        self, key: str, now: float, snapshot: Snapshot | None = None, fallback: Entry | None = None
    ) -> None:
        """Nothing."""


class PassedByDropsOnly(Tier):
    """Such a value drops what L1 holds, but not what is under way."""

    def returned_unversioned(
        self, key: str, now: float, snapshot: Snapshot | None = None, fallback: Entry | None = None
    ) -> None:
        """Drop."""
        with self.lock:
            self._drop(key)


class OutageKeepsAnything(Tier):
    """What was loaded while Redis is away is kept, whatever was written meanwhile."""

    def returned_unversioned(
        self, key: str, now: float, snapshot: Snapshot | None = None, fallback: Entry | None = None
    ) -> None:
        """Keep."""
        super().returned_unversioned(key, now, self.snapshot(key), fallback)


class LoadedPassesNothing(Tier):
    """A value that was loaded while Redis is away leaves all else as it is when it is served again."""

    def serve_loaded(self, key: str, now: float) -> Entry | None:
        """It alone."""
        entry = self.fallback.get(key)
        return entry if entry is not None and now < entry.deadline else None


class StalePassesNothing(Tier):
    """A stale value that is returned leaves L1 as it is."""

    def returned_stale(self, key: str, version: Version, snapshot: Snapshot) -> None:
        """Nothing."""


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


class AcknowledgementsEndEntries(Tier):
    """An acknowledged write takes its key for settled."""

    def put(self, key: str, entry: Entry, snapshot: Snapshot, *, own: bool = False) -> bool:
        """Forget the journal's entry."""
        if own:
            self.journal.keys.pop(key, None)
        return super().put(key, entry, snapshot, own=own)

    def wrote(self, key: str, version: int) -> None:
        """Forget the journal's entry."""
        self.journal.keys.pop(key, None)
        super().wrote(key, version)


class ReadFloorsCountAsApplied(Tier):
    """A tag that stands at this number already, since its floor was read, is taken for applied."""

    def apply_tags(self, tags: Iterable[str], number: int) -> None:
        """Apply the others."""
        super().apply_tags([tag for tag in tags if self.floors.tags.get(tag, 0) < number], number)


class KeepTagFloorsOfAnyTime(Tier):
    """Tag floors that were read are kept, whatever came meanwhile."""

    def keep_tag_floors(self, floors: dict[str, int], epoch: int) -> None:
        """Keep."""
        del epoch
        super().keep_tag_floors(floors, self.epoch)


# -------------------------------------------------------------------------------------------------------- invalidation


class NoGapWhileLost(Invalidation):
    """A gap is looked for only while the bus is proven; between loss and greeting, the number is just taken over."""

    def _message(self, message: Message, heard: Effects) -> None:
        if not self._tier.synced and message.number:
            self.last = message.number - 1
        super()._message(message, heard)


class NoGap(Invalidation):
    """Numbers are not looked at."""

    def _message(self, message: Message, heard: Effects) -> None:
        if message.number:
            self.last = message.number - 1
        super()._message(message, heard)


class BackProvesAll(Invalidation):
    """At the return of the bus L1 is kept, wherever the counter stands."""

    def back(self, greeting: Greeting, asked_at: float, *, prove: bool) -> tuple[Effects, int]:
        """Take the number over first."""
        self.last = greeting.number
        return super().back(greeting, asked_at, prove=prove)


class AnyServerIsTheSame(Invalidation):
    """The identity is not looked at."""

    def back(self, greeting: Greeting, asked_at: float, *, prove: bool) -> tuple[Effects, int]:
        """Take the identity over first."""
        self.identity = greeting.identity
        return super().back(greeting, asked_at, prove=prove)


class NeverOverdue(Invalidation):
    """A number that the messages do not reach is waited for without end, and taken for proof."""

    def overdue(self, now: float) -> Effects:
        """Nothing."""
        del now
        if self.ahead is not None:
            self.last, self.ahead = self.ahead[0], None
        return Effects()


class NeverDisowns(Invalidation):
    """Who answers commands is not compared with who is listened to."""

    def check_identity(self, identity: str | None) -> Effects:
        """Nothing."""
        del identity
        return Effects()


# -------------------------------------------------------------------------------------------------------------- floors


def _known_after_a_gap(self: Floors) -> None:
    self.tags.clear()


def _lower(self: Floors, floor: int, _asked_at: float) -> None:
    self.namespace = floor
    self.known = True


def _local_floor_is_enough(
    self: Floors, number: int, floor: int | None, tags: Sequence[str], tag_floors: Mapping[str, int | None]
) -> bool:
    """An absent tag floor is overridden by one that was known."""
    if number < self.namespace or (floor is not None and number < floor):
        return False
    return all(number >= max(self.tags.get(tag, 0), tag_floors.get(tag) or 0) for tag in tags)


# -------------------------------------------------------------------------------------------------------------- server


class FillsWithoutLease(Server):
    """A fill does not look whose the lease is."""

    def lease_holds(self, key: str, snapshot: bytes) -> bool:
        """Yes."""
        return True


class FillsBelowFloors(Server):
    """A fill does not look at floors."""

    def floors_hold(self, grant: Granted, tags: Sequence[str]) -> bool:
        """Yes, if there is a counter at all."""
        self.counters()
        return True


class FillsWithoutCounter(Server):
    """A lost floor is no reason to refuse a fill."""

    def floors_hold(self, grant: Granted, tags: Sequence[str]) -> bool:
        """Begin the counter anew at the number of the lease."""
        if self.number is None:
            self.number, self.floor = grant.number, grant.floor
        return super().floors_hold(grant, tags)


class RefusesInSilence(Server):
    """A refused fill tells nobody."""

    def fill(self, item: Item, snapshot: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """Forget who waits before the lease is released."""
        holder = self.holder(item.key)
        if holder is not None and not self.may_fill(item.key, snapshot, grant, tags):
            holder.waited_for = False
        return super().fill(item, snapshot, grant, tags)


class FillsInSilence(Server):
    """No fill tells anybody."""

    def fill(self, item: Item, snapshot: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """Forget who waits."""
        if (holder := self.holder(item.key)) is not None:
            holder.waited_for = False
        return super().fill(item, snapshot, grant, tags)


class LateSetsStored(Server):
    """A set has no deadline."""

    def late(self, deadline: int) -> bool:
        """Never."""
        del deadline
        return False


class LateSetsAcknowledged(Server):
    """A set that came too late is answered as any other."""

    def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        """Answer with the number of the delete."""
        try:
            return super().set(items, tags, deadline)
        except TooLate:
            assert self.number is not None
            return Written(self.number, self.clock())


class HoldsNothing(Server):
    """A delete's hold is not kept."""

    def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        """Delete."""
        del hold_ms
        return super().delete(keys, not_before=not_before)


# -------------------------------------------------------------------------------------------------------------- others


class ReplaysValues(ModelRemote):
    """A set that failed is replayed with its value."""

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        ask = super().__getattr__(script)

        async def note(*args: Any, **options: Any) -> Any:
            if script == "delete" and vars(self).get("failed"):
                return await super(ReplaysValues, self).__getattr__("set")(*vars(self).pop("failed"))
            try:
                return await ask(*args, **options)
            except RemoteFailed:
                if script == "set":
                    vars(self)["failed"] = (*args[:2], 1 << 62)
                raise

        return note


class RepeatsLeases(ModelRemote):
    """A lease request is sent again, with its snapshot, when its connection broke."""

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        ask = super().__getattr__(script)

        async def again(*args: Any, **options: Any) -> Any:
            try:
                return await ask(*args, **options)
            except RemoteFailed:
                if script != "lease":
                    raise
                return await ask(*args, **options)

        return again


def _join_any(self: Flights, key: FlightKey, mine: Flight, now: float) -> Flight:
    flight = self._flying(key)
    return _ENTER(self, key, mine, now) if flight is None else flight


def _impatient_alone(self: Flights, key: FlightKey, mine: Flight, now: float) -> Flight:
    return mine if key[1] is Aim.IMPATIENT else _ENTER(self, key, mine, now)


_ENTER = Flights.enter


def _hears_nothing(self: Fallback, key: str) -> None:
    """Whatever is written, the value stays."""


def _never_back(self: Fallback) -> None:
    """Redis is back, and the value stays."""


async def _clear_elsewhere(core: Any) -> bool:
    """A clear that waits for its own message."""
    return not isinstance(await write._write(core, Operation.CLEAR, core.remote.clear, lambda: None, 0), RemoteFailed)


def _replayed_by_name(self: Journal, batch: Batch) -> None:
    for name in batch.names:
        self.keys.pop(name, None)


_NOTE = Journal.note


def _note_without_deadline(self: Journal, keys: Sequence[str], _not_before: int, hold_ms: int) -> None:
    _NOTE(self, keys, 0, hold_ms)


def _counted_only(self: Requests, _number: int) -> None:
    self.counters.invalidations_sent += 1


async def _never_drain(_core: Any, *, probing: bool = False) -> bool:
    return probing and False


NO_STAMP = Rules(tier=NoStamp)
NO_EPOCH = Rules(tier=NoEpoch)
PUT_ANYTHING = Rules(tier=PutAnything)
PUT_LEAVES_STAMP = Rules(tier=PutLeavesStamp)
REFUSED_PUT_DROPS_NOTHING = Rules(tier=RefusedPutDropsNothing)
OWN_PUT_AS_ANY_OTHER = Rules(tier=OwnPutAsAnyOther)
NUMBERS_ALONE = Rules(tier=NumbersAlone)
NEVER_PASSED_BY = Rules(tier=NeverPassedBy)
PASSED_BY_DROPS_ONLY = Rules(tier=PassedByDropsOnly)
OUTAGE_KEEPS_ANYTHING = Rules(tier=OutageKeepsAnything)
LOADED_PASSES_NOTHING = Rules(tier=LoadedPassesNothing)
STALE_PASSES_NOTHING = Rules(tier=StalePassesNothing)
OUTAGE_HEARS_NOTHING = Rules(patched=((Fallback, "drop", _hears_nothing),))
OUTAGE_NEVER_ENDS = Rules(patched=((Fallback, "back", _never_back),))
FORGET_UNKNOWN_WRITES = Rules(tier=ForgetUnknownWrites)
JOURNAL_WITHOUT_EPOCH = Rules(tier=JournalWithoutEpoch)
ACKNOWLEDGEMENTS_END_ENTRIES = Rules(tier=AcknowledgementsEndEntries)
JOURNAL_WITHOUT_NUMBERS = Rules(patched=((Journal, "replayed", _replayed_by_name),))
JOURNAL_WITHOUT_DEADLINES = Rules(patched=((Journal, "note", _note_without_deadline),))
NEVER_DRAINED = Rules(patched=((subscriber, "replay_journal", _never_drain),))
LATE_SETS_STORED = Rules(server=LateSetsStored)
LATE_SETS_ACKNOWLEDGED = Rules(server=LateSetsAcknowledged)
HOLDS_NOTHING = Rules(server=HoldsNothing)
REPLAYS_VALUES = Rules(remote=ReplaysValues)
PROMISES_NOTHING = Rules(patched=((Requests, "wrote", _counted_only),))
NEVER_DISOWNS = Rules(invalidation=NeverDisowns)
READ_FLOORS_COUNT_AS_APPLIED = Rules(tier=ReadFloorsCountAsApplied)
KEEP_TAG_FLOORS_OF_ANY_TIME = Rules(tier=KeepTagFloorsOfAnyTime)
NO_GAP_WHILE_LOST = Rules(invalidation=NoGapWhileLost)
NO_GAP = Rules(invalidation=NoGap)
BACK_PROVES_ALL = Rules(invalidation=BackProvesAll)
ANY_SERVER_IS_THE_SAME = Rules(invalidation=AnyServerIsTheSame)
NEVER_OVERDUE = Rules(invalidation=NeverOverdue)
KNOWN_AFTER_A_GAP = Rules(patched=((Floors, "forget", _known_after_a_gap),))
FLOORS_FALL = Rules(patched=((Floors, "learn", _lower),))
LOCAL_FLOOR_IS_ENOUGH = Rules(patched=((Floors, "allow", _local_floor_is_enough),))
FILLS_WITHOUT_LEASE = Rules(server=FillsWithoutLease)
FILLS_BELOW_FLOORS = Rules(server=FillsBelowFloors)
FILLS_WITHOUT_COUNTER = Rules(server=FillsWithoutCounter)
REFUSES_IN_SILENCE = Rules(server=RefusesInSilence)
FILLS_IN_SILENCE = Rules(server=FillsInSilence)
REPEATS_LEASES = Rules(remote=RepeatsLeases)
JOIN_ANY = Rules(patched=((Flights, "enter", _join_any),))
IMPATIENT_ALONE = Rules(patched=((Flights, "enter", _impatient_alone),))
CLEAR_ELSEWHERE = Rules(patched=((write, "clear", _clear_elsewhere),))
