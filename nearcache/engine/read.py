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
from nearcache.events import CorruptValue
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol import records
from nearcache.protocol.answers import BATCH
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
    """A record that can't be judged yet: floors of its tags are unknown, or their proof was lost during the read."""

    raw: bytes
    record: Record
    floor: int | None


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
    two then makes a value look old, never new. When the proof is lost during the read, it is repeated with floors.

    Raises:
        RemoteFailed: Redis did not answer.
    """
    keys = list(snapshots)
    epoch = core.tier.epoch
    while True:
        proven = core.floors_proven
        reading = await core.requests.ask(Operation.GET, core.remote.read, keys, with_floor=not proven)
        taken = [_unpack(core, key, raw) for key, raw in zip(keys, reading.records, strict=True)]
        tags = {tag for record in taken if record is not None for tag in record.tags}
        tag_floors = await _tag_floors(core, tags, proven, epoch) if tags else NO_FLOORS
        if not proven or core.floors_proven:
            break
    return {
        key: _found(core, key, raw, record, reading.floor, tag_floors, snapshots[key], policy)
        for key, raw, record in zip(keys, reading.records, taken, strict=True)
    }


async def fetch_one(core: Core, key: str, snapshot: Snapshot, policy: Policy) -> Found:
    """As ``fetch`` for one key, which most reads are of: with fewer calls and no tables."""
    epoch = core.tier.epoch
    while True:
        proven = core.floors_proven
        core.requests.permit()
        take = partial(_take, core, key, snapshot, policy, proven)
        try:
            taken = await core.remote.read_one(key, with_floor=not proven, take=take)
        except RemoteFailed as failure:
            core.requests.failed(failure, Operation.GET)
            raise
        core.requests.answered(Operation.GET, None)
        if isinstance(taken, Found):
            return taken
        raw, record, floor = taken
        tag_floors = await _tag_floors(core, record.tags, proven, epoch)
        if not proven or core.floors_proven:
            return _found(core, key, raw, record, floor, tag_floors, snapshot, policy)


def _take(
    core: Core, key: str, snapshot: Snapshot, policy: Policy, proven: bool, raw: bytes | None, floor: int | None
) -> Found | Unjudged:
    """Judge a record, unless more floors have to be read for it."""
    if raw is None:
        return NOTHING
    record = _unpack(core, key, raw)
    if record is None:
        return Found(head=raw[: records.HEAD_BYTES])
    unknown = record.tags and (not proven or core.tier.floors.unknown(record.tags))
    if unknown or (proven and not core.floors_proven):
        return Unjudged(raw, record, floor)
    return _judge(core, key, raw[: records.HEAD_BYTES], record, floor, NO_FLOORS, snapshot, policy)


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
    floor: int | None,
    tag_floors: Mapping[str, int | None],
    snapshot: Snapshot,
    policy: Policy,
) -> Found:
    if raw is None:
        return NOTHING
    head = raw[: records.HEAD_BYTES]
    return Found(head=head) if record is None else _judge(core, key, head, record, floor, tag_floors, snapshot, policy)


def _unpack(core: Core, key: str, raw: bytes | None) -> Record | None:
    if raw is None:
        return None
    try:
        return records.unpack(raw)
    except ValueError as error:
        _corrupt(core, key, str(error))
        return None


def _judge(
    core: Core,
    key: str,
    head: bytes,
    record: Record,
    floor: int | None,
    tag_floors: Mapping[str, int | None],
    snapshot: Snapshot,
    policy: Policy,
) -> Found:
    """The value of a record unless it was invalidated; a fresh one is put into L1 by the put rule."""
    if not core.tier.floors.allow(number_of(record.version), floor, record.tags, tag_floors):
        return Found(head=head)
    past = core.requests.server_now() - record.fresh_until  # marked stale, it was fresh until 0
    if past >= 0 and not policy.stale_ms:
        return Found(head=head)
    try:
        value = core.settings.codec.decode(record.payload)
    except Exception as error:  # noqa: BLE001  # a codec of the user's may raise anything
        _corrupt(core, key, str(error))
        return Found(head=head)
    entry = core.entries.of_record(key, value, record, policy)
    if past >= 0:
        return Found(head=head, stale=Stale(value, entry, past / 1e6, marked=not record.fresh_until))
    if not core.tier.put(key, entry, snapshot):
        core.counters.fills_refused += 1
    core.counters.l2_hits += 1
    return Found(value, head, entry)


def _corrupt(core: Core, key: str, reason: str) -> None:
    core.counters.corrupt_values += 1
    core.emit_once(CorruptValue(key, reason))
