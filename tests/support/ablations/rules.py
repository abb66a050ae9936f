"""Each guard of the protocol taken away, by name: a schedule that shows no violation without its guard shows nothing.

``Rules()`` is the library as it is. Every other one replaces a single guard by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from nearcache.engine import atomic, filling, read, subscription, write
from nearcache.engine import buckets as engine_buckets
from nearcache.engine.attempt import Attempt
from nearcache.engine.load_many import Search
from nearcache.engine.plain import Read
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation, Requests
from nearcache.local.fallback import Fallback
from nearcache.local.floors import Floors
from nearcache.local.invalidation import Invalidation
from nearcache.local.journal import Batch, Journal
from nearcache.local.marks import Mark
from nearcache.local.singleflight import Flight, FlightKey, Flights, Purpose
from nearcache.local.tier import Tier
from nearcache.local.whole import WholeTier
from nearcache.protocol.answers import Beat, Greeting, Reading
from nearcache.testing.model import Server
from tests.support.ablations.buckets import (
    OneLast,
    OneProof,
    one_floor,
    own_clear_of_one_bucket,
    partial_is_done,
    partial_is_forgotten,
)
from tests.support.ablations.bus import (
    AnyServerIsTheSame,
    BackProvesAll,
    NeverDisowns,
    NeverOverdue,
    NoGap,
    NoGapWhileLost,
    _known_after_a_gap,
    _local_floor_is_enough,
    _lower,
    _raise_as_one,
    _stale_is_fresh,
    _unknown_is_stale,
)
from tests.support.ablations.local import (
    AcknowledgementsEndEntries,
    AnyEpochRaisesStamps,
    FlushedServesAlways,
    ForgetUnknownWrites,
    FreshForEver,
    JournalWithoutEpoch,
    KeepTagFloorsOfAnyTime,
    MarksEndWithAnyFill,
    NeverPassedBy,
    NoEpoch,
    NoMarks,
    NoSnapshot,
    NoStamp,
    NumbersAlone,
    OutageKeepsAnything,
    OwnPutAsAnyOther,
    PassedByDropsOnly,
    PutAnything,
    PutLeavesStamp,
    ReadFloorsCountAsApplied,
    RefusedPutDropsNothing,
    SnapshotsWithoutMarks,
    StalePassesNothing,
    TurnsByStripe,
    UnknownIsJournalled,
    UnknownStaysInL1,
    WroteLeavesStamp,
)
from tests.support.ablations.server import (
    AddedTagsCreated,
    AddedTagsUnchecked,
    CountsOn,
    CountsOnAnything,
    FillsBelowFloors,
    FillsBelowStaleFloors,
    FillsInSilence,
    FillsWithoutCounter,
    FillsWithoutLease,
    FillsWithTheClientsTime,
    HistoriesInRecords,
    HoldsNothing,
    LateSetsAcknowledged,
    LateSetsStored,
    LeasesAtAnyTime,
    RefusesInSilence,
    RepeatsLeases,
    RepeatsOperations,
    ReplaysValues,
    SeenByNobody,
    StaleFloorsAlone,
    TakesAnyHead,
    TouchesMakeVersions,
)
from tests.support.stepper import Instance, ModelRemote, World


@dataclass(frozen=True)
class Rules:
    """The parts that a world is made of."""

    tier: type[Tier] = Tier
    invalidation: type[Invalidation] = Invalidation
    server: type[Server] = Server
    remote: type[ModelRemote] = ModelRemote
    patched: tuple[tuple[object, str, object], ...] = ()
    """What else is replaced while the world exists: object, attribute, by what."""

    @property
    def name(self) -> str:
        """What is replaced by what."""
        ours = [
            part
            for part in (self.tier, self.invalidation, self.server, self.remote)
            if part.__module__.startswith(__package__ or __name__)
        ]
        return "+".join([part.__name__ for part in ours] + [getattr(by, "__name__", "?") for _, _, by in self.patched])

    @contextmanager
    def world(self) -> Iterator[World]:
        """A world under these rules."""
        with ExitStack() as patches:
            for patch in self.patched:
                patches.enter_context(mock.patch.object(*patch))
            world = World(self.server)
            try:
                yield world
            finally:
                world.close()

    def instance(self, world: World, name: str, **options: Any) -> Instance:
        """An instance under these rules."""
        return Instance(world, name, tier=self.tier, invalidation=self.invalidation, remote=self.remote, **options)


def _join_any(self: Flights, key: FlightKey, mine: Flight, now: float) -> Flight:
    flight = self._flying(key)
    return _ENTER(self, key, mine, now) if flight is None else flight


def _after_wait_alone(self: Flights, key: FlightKey, mine: Flight, now: float) -> Flight:
    return mine if key[1] is Purpose.AFTER_WAIT else _ENTER(self, key, mine, now)


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


def _never_above(_core: Any, _record: Any) -> bool:
    return False


_MAY_BE_OLDER = read._may_be_older


def _fresh_ones_alone(core: Any, one: Any, record: Any) -> bool:
    return record.fresh_until > core.requests.server_now() and _MAY_BE_OLDER(core, one, record)


_READ = Server.read


def _without_counter(self: Server, keys: Sequence[str], *, with_bounds: bool) -> Reading:
    reading = _READ(self, keys, with_bounds=with_bounds)
    bounds = reading.bounds
    return reading if bounds is None else reading._replace(bounds=bounds._replace(number=1 << 62))


_ABOVE_IS_BELIEVED = ((read, "_above", _never_above), (Server, "read", _without_counter))


async def _waits_first(self: Search, keys: Sequence[str]) -> None:
    """A reader waits for the flights that it follows before it loads what it leads."""
    led = self._enter(keys)
    while self.batch.followed:
        led += self._enter(await self._follow_one())
    ready = await self._search(led)
    if ready:
        await self.batch.load_ready(ready)


def _every_dead_head(core: object, found: Read) -> bytes:
    """The head of any record that is dead as its client knows."""
    del core
    return found.head


def _began(attempt: Attempt) -> Mark:
    """When the search for the value began."""
    return Mark(attempt.began, attempt.offset)


def _raised_unnoticed(self: Floors, now: float) -> None:
    """An own clear is not remembered."""


async def _beaten_in_any_phase(self: Any, beat: Beat) -> None:
    core = self.subscriber.core
    core.report(core.invalidation.beat(beat, self._answered(), core.runtime.monotonic()))


def _keeps_connections(self: ModelRemote) -> None:
    """Connections that were made before are used on."""


def _forgets_every_clock(self: Invalidation, greeting: Greeting) -> None:
    if greeting.identity != self.identity:
        self._tier.journal.forget_clock()


def _clock_of_connections(self: Requests) -> int:
    return self.remote.now()


def _deadline_by_connections(self: Requests) -> int:
    return self.remote.now() + self._longest


async def _never_drain(_core: Any, *, probing: bool = False) -> bool:
    return probing and False


def _covers_nothing(self: Journal, key: str) -> bool:
    return False


NO_STAMP = Rules(tier=NoStamp)
NO_EPOCH = Rules(tier=NoEpoch)
PUT_ANYTHING = Rules(tier=PutAnything)
PUT_LEAVES_STAMP = Rules(tier=PutLeavesStamp)
REFUSED_PUT_DROPS_NOTHING = Rules(tier=RefusedPutDropsNothing)
OWN_PUT_AS_ANY_OTHER = Rules(tier=OwnPutAsAnyOther, server=CountsOn)
NUMBERS_ALONE = Rules(tier=NumbersAlone)
NEVER_PASSED_BY = Rules(tier=NeverPassedBy)
PASSED_BY_DROPS_ONLY = Rules(tier=PassedByDropsOnly)
OUTAGE_KEEPS_ANYTHING = Rules(tier=OutageKeepsAnything)
NO_MARKS = Rules(tier=NoMarks)
MARKS_END_WITH_ANY_FILL = Rules(tier=MarksEndWithAnyFill)
SNAPSHOTS_WITHOUT_MARKS = Rules(tier=SnapshotsWithoutMarks)
MARKS_FROM_THE_START = Rules(patched=((filling, "end_of", _began),))
MARKS_FROM_THE_CLIENTS_TIME = Rules(server=FillsWithTheClientsTime)
MARKS_OF_FRESH_RECORDS_ALONE = Rules(patched=((read, "_may_be_older", _fresh_ones_alone),))
STALE_PASSES_NOTHING = Rules(tier=StalePassesNothing)
OUTAGE_HEARS_NOTHING = Rules(patched=((Fallback, "drop", _hears_nothing),))
OUTAGE_NEVER_ENDS = Rules(patched=((Fallback, "back", _never_back),))
FLUSHED_SERVES_ALWAYS = Rules(tier=FlushedServesAlways)
FORGET_UNKNOWN_WRITES = Rules(tier=ForgetUnknownWrites)
JOURNAL_WITHOUT_EPOCH = Rules(tier=JournalWithoutEpoch)
ACKNOWLEDGEMENTS_END_ENTRIES = Rules(tier=AcknowledgementsEndEntries)
JOURNAL_WITHOUT_NUMBERS = Rules(patched=((Journal, "replayed", _replayed_by_name),))
JOURNAL_WITHOUT_DEADLINES = Rules(patched=((Journal, "note", _note_without_deadline),))
NEVER_DRAINED = Rules(patched=((subscription, "replay_journal", _never_drain),))
CLOCK_OF_CONNECTIONS = Rules(
    patched=((Requests, "earliest_now", _clock_of_connections), (Requests, "deadline", _deadline_by_connections))
)
LATE_SETS_STORED = Rules(server=LateSetsStored)
LATE_SETS_ACKNOWLEDGED = Rules(server=LateSetsAcknowledged)
HOLDS_NOTHING = Rules(server=HoldsNothing)
REPLAYS_VALUES = Rules(remote=ReplaysValues)
PROMISES_NOTHING = Rules(patched=((Requests, "wrote", _counted_only),))
NEVER_DISOWNS = Rules(invalidation=NeverDisowns)
READ_FLOORS_COUNT_AS_APPLIED = Rules(tier=ReadFloorsCountAsApplied)
KEEP_TAG_FLOORS_OF_ANY_TIME = Rules(tier=KeepTagFloorsOfAnyTime)
NO_GAP_WHILE_LOST = Rules(invalidation=NoGapWhileLost)
NO_GAP = Rules(invalidation=NoGap, server=CountsOn)
BACK_PROVES_ALL = Rules(invalidation=BackProvesAll)
ANY_SERVER_IS_THE_SAME = Rules(invalidation=AnyServerIsTheSame, server=CountsOn)
NEVER_OVERDUE = Rules(invalidation=NeverOverdue)
KNOWN_AFTER_A_GAP = Rules(patched=((Floors, "forget", _known_after_a_gap),))
FLOORS_FALL = Rules(patched=((Floors, "learn", _lower),))
LOCAL_FLOOR_IS_ENOUGH = Rules(patched=((Floors, "over", _local_floor_is_enough),))
FILLS_WITHOUT_LEASE = Rules(server=FillsWithoutLease)
FILLS_BELOW_FLOORS = Rules(server=FillsBelowFloors)
LEASES_AT_ANY_TIME = Rules(server=LeasesAtAnyTime)
FILLS_WITHOUT_COUNTER = Rules(server=FillsWithoutCounter)
FILLS_BELOW_STALE_FLOORS = Rules(server=FillsBelowStaleFloors)
STALE_FLOORS_ALONE = Rules(server=StaleFloorsAlone)
STALE_IS_FRESH = Rules(patched=((Floors, "over", _stale_is_fresh),))
UNKNOWN_IS_STALE = Rules(patched=((Floors, "invalidate", _unknown_is_stale),))
FLOORS_RISE_AS_ONE = Rules(patched=((Floors, "raise_tags", _raise_as_one),))
ADDED_TAGS_UNCHECKED = Rules(server=AddedTagsUnchecked)
ADDED_TAGS_CREATED = Rules(server=AddedTagsCreated)
REFUSES_IN_SILENCE = Rules(server=RefusesInSilence)
FILLS_IN_SILENCE = Rules(server=FillsInSilence)
MANY_WAIT_FIRST = Rules(patched=((Search, "_lead", _waits_first),))
ABSENT_FOR_ALL = Rules(patched=((Attempt, "may_be_absent", True),))
REPEATS_LEASES = Rules(remote=RepeatsLeases)
JOIN_ANY = Rules(patched=((Flights, "enter", _join_any),))
AFTER_WAIT_ALONE = Rules(patched=((Flights, "enter", _after_wait_alone),))
CLEAR_ELSEWHERE = Rules(patched=((write, "clear", _clear_elsewhere),))
ANY_EPOCH_RAISES_STAMPS = Rules(tier=AnyEpochRaisesStamps, server=CountsOn, patched=_ABOVE_IS_BELIEVED)
TURNS_BY_STRIPE = Rules(tier=TurnsByStripe)
ANY_ANSWER_MAKES_FLOORS_KNOWN = Rules(patched=((Floors, "raised", _raised_unnoticed),))
ANY_BEAT_PROVES = Rules(patched=((subscription.Subscription, "_beaten", _beaten_in_any_phase),), server=CountsOn)
CONNECTIONS_OUTLIVE_THE_PROOF = Rules(patched=((ModelRemote, "discard_idle", _keeps_connections),))
EVERY_NEW_SERVER_ENDS_DEADLINES = Rules(patched=((Invalidation, "greeted", _forgets_every_clock),))
SEEN_BY_NOBODY = Rules(server=SeenByNobody)
ABOVE_IS_DEAD_ALONE = Rules(server=CountsOn)
ABOVE_IS_BELIEVED = Rules(patched=_ABOVE_IS_BELIEVED)
HISTORIES_IN_RECORDS = Rules(server=HistoriesInRecords)
NUMBERS_BELIEVED = Rules(server=CountsOn, patched=_ABOVE_IS_BELIEVED)
OPERATIONS_JOURNALLED = Rules(tier=UnknownIsJournalled)
OPERATIONS_STAY_IN_L1 = Rules(tier=UnknownStaysInL1)
OPERATIONS_REPEATED = Rules(remote=RepeatsOperations)
OPERATIONS_UNDER_THE_JOURNAL = Rules(patched=((Journal, "covers", _covers_nothing),))
ANY_HEAD = Rules(server=TakesAnyHead)
ENDS_BY_THE_CLIENTS_CLOCK = Rules(patched=((atomic, "judged_dead", _every_dead_head),))
TOUCHES_MAKE_VERSIONS = Rules(server=TouchesMakeVersions)
COUNTS_ON_ANYTHING = Rules(server=CountsOnAnything)
NO_SNAPSHOT = Rules(tier=NoSnapshot)
OWN_WRITE_LEAVES_STAMP = Rules(tier=WroteLeavesStamp)
FRESH_FOR_EVER = Rules(tier=FreshForEver)
ONE_LAST = Rules(patched=((engine_buckets, "Invalidation", OneLast),))
ONE_PROOF = Rules(patched=((engine_buckets, "Invalidation", OneProof),))
PARTIAL_IS_DONE = Rules(patched=((write, "clear", partial_is_done),))
PARTIAL_IS_FORGOTTEN = Rules(patched=((write, "clear", partial_is_forgotten),))
ONE_FLOOR = Rules(patched=((WholeTier, "__init__", one_floor),))
OWN_CLEAR_OF_ONE_BUCKET = Rules(patched=((write, "clear", own_clear_of_one_bucket),))
ANY_OWNER_IS_THE_SAME = Rules(patched=((engine_buckets, "Invalidation", AnyServerIsTheSame),), server=CountsOn)
ANY_RETURN_PROVES = Rules(patched=((engine_buckets, "Invalidation", BackProvesAll),))
