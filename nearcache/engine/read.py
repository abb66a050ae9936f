"""Read from L2: judge each record, and put its value into L1 if nothing was written meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from nearcache.engine.core import Core, chunks
from nearcache.engine.ports import MISSING, Missing, RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.engine.stale import Stale, fresh_entry
from nearcache.errors import CodecError
from nearcache.events import CorruptValue
from nearcache.local.marks import NO_MARK
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol import records
from nearcache.protocol.answers import BATCH, Bounds
from nearcache.protocol.records import Record
from nearcache.protocol.versions import number_of


class Found(NamedTuple):
    """The result of a read from L2: a fresh value or MISSING, the head of the record if there is one, a stale value."""

    value: Any = MISSING
    head: bytes = b""
    entry: Entry | None = None
    """The fresh value as an entry of L1."""
    stale: Stale | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a fresh value."""
        return self.value is not MISSING


class Unjudged(NamedTuple):
    """A record that can't be judged yet: floors are unknown, or it stands above every number that was heard of."""

    raw: bytes
    record: Record
    bounds: Bounds | None


FUTURE_MAX = 1 << 40
"""µs, 12 days: a write number so far above the server's time is damage. Numbers begin at the time, and a server that
were to execute more than one write in a microsecond would get ahead of it."""
NOTHING = Found()
NO_FLOORS: Mapping[str, int | None] = {}


async def get(core: Core, key: str) -> Any | Missing:
    """The value of a key that the fast path did not serve; MISSING if neither tier has it, or Redis does not answer."""
    entry = fresh_entry(core, key)
    if entry is not None:
        core.counters.l1_hits += 1
        return core.entries.value_of(entry)
    snapshot = core.tier.snapshot(key)
    value: Any = MISSING
    if snapshot.trusted:  # a key whose last write is unproven is a miss
        with suppress(RemoteFailed):
            value = (await fetch_one(core, key, snapshot, core.policy)).value
    core.counters.misses += value is MISSING
    return value


async def get_many(core: Core, keys: Sequence[str]) -> dict[str, Any]:
    """The fresh values of some keys that the fast path did not serve."""
    values = {key: core.entries.value_of(entry) for key in keys if (entry := fresh_entry(core, key)) is not None}
    core.counters.l1_hits += len(values)
    if values:
        keys = [key for key in keys if key not in values]
    missing = len(keys)
    for part in chunks(keys, BATCH):
        # A key whose last write is unproven is a miss.
        snapshots = {key: snapshot for key in part if (snapshot := core.tier.snapshot(key)).trusted}
        try:
            found = await fetch(core, snapshots, core.policy) if snapshots else {}
        except RemoteFailed:
            found = {}
        alive = {key: hit.value for key, hit in found.items() if hit.alive}
        missing -= len(alive)
        values |= alive
    core.counters.misses += missing
    return values


async def fetch(core: Core, snapshots: Mapping[str, Snapshot], policy: Policy) -> dict[str, Found]:
    """Read some keys from L2, whose snapshots were taken before.

    Floors come from the local tables while they are proven, else with the values, read after them: a clear between the
    two then makes a value look old, never new. When the proof is lost during the read, or a record stands above every
    number that was heard of, it is repeated with counter and floors.

    Raises:
        RemoteFailed: Redis did not answer.
    """
    keys = list(snapshots)
    epoch, above = core.tier.epoch, False
    while True:
        proven = core.floors_proven and not above
        reading = await core.requests.ask(Operation.GET, core.remote.read, keys, with_bounds=not proven)
        taken = [_unpack(core, key, raw) for key, raw in zip(keys, reading.records, strict=True)]
        above = any(_above(core, record) for record in taken if record is not None)
        if proven and above:
            continue
        tags = {tag for record in taken if record is not None for tag in record.tags}
        tag_floors = await _tag_floors(core, tags, proven, epoch) if tags else NO_FLOORS
        if not proven or core.floors_proven:
            break
    found = {
        key: _found(core, key, raw, record, reading.bounds, tag_floors, snapshots[key], policy)
        for key, raw, record in zip(keys, reading.records, taken, strict=True)
    }
    await _greet_if_due(core)
    return found


async def fetch_one(core: Core, key: str, snapshot: Snapshot, policy: Policy) -> Found:
    """As ``fetch`` for one key, which most reads are of: with fewer calls and no tables."""
    epoch, above = core.tier.epoch, False
    while True:
        proven = core.floors_proven and not above
        core.requests.permit()
        take = partial(_take, core, key, snapshot, policy, proven)
        try:
            taken = await core.remote.read_one(key, with_bounds=not proven, take=take)
        except RemoteFailed as failure:
            core.requests.failed(failure, Operation.GET)
            raise
        core.requests.answered(Operation.GET, None)
        if core.requests.greeting_due:
            await _greet_if_due(core)
        if isinstance(taken, Found):
            return taken
        raw, record, bounds = taken
        above = _above(core, record)
        if proven and above:
            continue
        tag_floors = await _tag_floors(core, record.tags, proven, epoch) if record.tags else NO_FLOORS
        if not proven or core.floors_proven:
            found = _found(core, key, raw, record, bounds, tag_floors, snapshot, policy)
            await _greet_if_due(core)
            return found


def _above(core: Core, record: Record) -> bool:
    """Whether a record stands above every number that the bus has brought.

    Either its message is on its way, or its number is of another history (U): the counter, read behind it, tells.
    """
    return number_of(record.version) > core.invalidation.last


async def _greet_if_due(core: Core) -> None:
    """A record stood above the counter: let the server begin anew above it, before it gives that number out again."""
    if core.requests.greeting_due:
        core.requests.greeting_due = False
        with suppress(RemoteFailed):
            await core.requests.ask(Operation.GET, core.remote.greet)


def _take(
    core: Core, key: str, snapshot: Snapshot, policy: Policy, proven: bool, raw: bytes | None, bounds: Bounds | None
) -> Found | Unjudged:
    """Judge a record, unless more floors have to be read for it."""
    if raw is None:
        return NOTHING
    record = _unpack(core, key, raw)
    if record is None:
        return Found(head=raw[: records.HEAD_BYTES])
    unknown = record.tags and (not proven or core.tier.floors.unknown(record.tags))
    if unknown or (proven and (not core.floors_proven or _above(core, record))):
        return Unjudged(raw, record, bounds)
    return _judge(core, key, raw[: records.HEAD_BYTES], record, bounds, NO_FLOORS, snapshot, policy)


async def _tag_floors(core: Core, tags: Collection[str], proven: bool, epoch: int) -> Mapping[str, int | None]:
    """The floors of those tags that are not known here; they are kept only under the epoch of the read."""
    asked = core.tier.floors.unknown(tags) if proven else list(tags)
    if not asked:
        return NO_FLOORS
    floors = dict(zip(asked, await core.requests.ask(Operation.GET, core.remote.tag_floors, asked), strict=True))
    core.tier.keep_tag_floors({tag: floor for tag, floor in floors.items() if floor}, epoch)
    return floors


def _found(
    core: Core,
    key: str,
    raw: bytes | None,
    record: Record | None,
    bounds: Bounds | None,
    tag_floors: Mapping[str, int | None],
    snapshot: Snapshot,
    policy: Policy,
) -> Found:
    if raw is None:
        return NOTHING
    head = raw[: records.HEAD_BYTES]
    return Found(head=head) if record is None else _judge(core, key, head, record, bounds, tag_floors, snapshot, policy)


def _unpack(core: Core, key: str, raw: bytes | None) -> Record | None:
    if raw is None:
        return None
    try:
        record = records.unpack(raw)
    except ValueError as error:
        report_corrupt(core, key, error)
        return None
    number, now = number_of(record.version), core.requests.server_now()
    if now and number > now + FUTURE_MAX:
        report_corrupt(core, key, ValueError(f"the write number {number} was never given out"))
        return None
    return record


def _judge(
    core: Core,
    key: str,
    head: bytes,
    record: Record,
    bounds: Bounds | None,
    tag_floors: Mapping[str, int | None],
    snapshot: Snapshot,
    policy: Policy,
) -> Found:
    """The value of a record unless it was invalidated; a fresh one is put into L1 by the put rule."""
    number = number_of(record.version)
    if bounds is not None and number > bounds.number:
        core.invalidation.see(number)
        core.requests.greeting_due = True
        return Found(head=head)
    if not core.tier.floors.allow(number, bounds and bounds.floor, record.tags, tag_floors):
        return Found(head=head)
    now = core.requests.server_now()
    if _may_be_older(core, key, record, snapshot, now):
        return Found(head=head)
    past = now - record.fresh_until  # marked stale, it was fresh until 0
    if past >= 0 and not policy.stale_ms:
        return Found(head=head)
    try:
        value = core.entries.decode(record.payload)
    except CodecError as error:
        report_corrupt(core, key, error)
        return Found(head=head)
    entry = core.entries.of_record(key, value, record, policy)
    if past >= 0:
        return Found(head=head, stale=Stale(value, entry, past / 1e6, marked=not record.fresh_until))
    if not core.tier.put(key, entry, snapshot):
        core.counters.fills_refused += 1
    core.counters.l2_hits += 1
    return Found(value, head, entry)


def _may_be_older(core: Core, key: str, record: Record, snapshot: Snapshot, server_now: int) -> bool:
    """Whether the record may be older than a value that was returned without a version (T).

    The mark of then counts as well as that of now: a newer value may have ended the key's mark since this read began.
    """
    mark = max(snapshot.mark, core.tier.marks.of(key))
    return mark is not NO_MARK and mark.refuses(record.began, server_now / 1e6 - core.runtime.monotonic())


def report_corrupt(core: Core, key: str, error: Exception) -> None:
    """Count a value that can't be read, and report it once for its key."""
    core.counters.corrupt_values += 1
    core.emit_once(CorruptValue(key, str(error)))
