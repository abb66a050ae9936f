"""Read from L2: plain records by ``plain``; here the general way, by every rule, for what is not plain."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from nearcache.engine.core import Core, chunks
from nearcache.engine.plain import FUTURE_MAX, Batch, Read, read_all
from nearcache.engine.ports import MISSING, Missing, RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.engine.stale import Stale, fresh_entry
from nearcache.errors import CodecError
from nearcache.events import CorruptValue, UnknownType
from nearcache.local.marks import NO_MARK
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol import records, registry
from nearcache.protocol.answers import BATCH, TagFloor
from nearcache.protocol.records import Record
from nearcache.protocol.versions import number_of

NO_FLOORS: Mapping[str, TagFloor | None] = {}


def get(core: Core, key: str) -> Coroutine[Any, Any, Any | Missing]:
    """The value of a key that the fast path did not serve; MISSING if neither tier has it, or Redis does not answer.

    It is no coroutine itself, since all that wakes a task passes through each of them.
    """
    if core.parts:
        core = core.of(key)
    if key in core.tier.entries or core.tier.fallback.used:
        entry = fresh_entry(core, key)
        if entry is not None:
            return _held(core, entry)
    if core.single.enter():
        return _alone(core, key)
    if core.single.finds:
        return core.single.find(key, core.policy)  # type: ignore[return-value]  # awaited in any case
    return _joined(core, key)


async def _held(core: Core, entry: Entry) -> Any:
    core.counters.l1_hits += 1
    return core.entries.value_of(entry)


async def _alone(core: Core, key: str) -> Any | Missing:
    try:
        batch = Batch(core, (key,), (core.policy,))
        await batch.read()
    finally:
        core.single.leave()
    value = batch.values[0]
    if type(value) is Read:
        await settle(core, (value,))
        value = value.value
    if value is MISSING:
        core.counters.misses += 1
    return value


async def _joined(core: Core, key: str) -> Any | Missing:
    read = core.single.new(key, core.policy)
    read.value_alone = True
    await core.single.read_one(read)
    if read.raw is not None and not read.judged:
        await settle(core, (read,))
    if read.value is MISSING:
        core.counters.misses += 1
    return read.value


async def fetch(core: Core, key: str, policy: Policy) -> Read:
    """Read a key from L2, perhaps by one request with the reads of other threads or tasks."""
    read = core.single.new(key, policy)
    await core.single.read_one(read)
    if read.raw is not None and not read.judged:
        await settle(core, (read,))
    return read


async def get_many(core: Core, keys: Sequence[str]) -> dict[str, Any]:
    """The fresh values of some keys that the fast path did not serve."""
    if core.parts:
        from nearcache.engine.wide import get_many_of_buckets  # noqa: PLC0415  # few have several

        return await get_many_of_buckets(core, keys)
    values = near(core, keys)
    if values:
        keys = [key for key in keys if key not in values]
    before = len(values)
    for part in chunks(keys, BATCH):
        found = await read_many(core, part)
        values = values | found if values else found
    core.counters.misses += before + len(keys) - len(values)
    return values


def near(core: Core, keys: Sequence[str]) -> dict[str, Any]:
    """The values of some keys of one bucket that are here all the same."""
    entries = core.tier.entries
    if not core.tier.fallback.used and entries.keys().isdisjoint(keys):
        return {}
    here = keys if core.tier.fallback.used else [key for key in keys if key in entries]
    values = {key: core.entries.value_of(entry) for key in here if (entry := fresh_entry(core, key)) is not None}
    core.counters.l1_hits += len(values)
    return values


async def read_many(core: Core, keys: Sequence[str]) -> dict[str, Any]:
    """The values of keys of one bucket, by one request."""
    batch = Batch(core, keys, [core.policy] * len(keys))
    await batch.read()
    return dict(zip(keys, batch.values, strict=True)) if None not in batch.entries else await judged(core, batch)


async def judged(core: Core, batch: Batch) -> dict[str, Any]:
    """The values of a batch of which not every record was plain."""
    values = dict(zip(batch.keys, batch.values, strict=True))
    reads = [value for value in batch.values if type(value) is Read]
    await settle(core, reads)
    values.update((read.key, read.value) for read in reads)
    return {key: value for key, value in values.items() if value is not MISSING}


async def fetch_many(core: Core, keys: Sequence[str], policy: Policy) -> list[Read]:
    """Read some keys from L2, BATCH of them by one request."""
    done: list[Read] = []
    if core.parts:
        works = [fetch_many(one, some, policy) for one, some in core.split(keys)]
        found = {read.key: read for some in await core.runtime.together(works) for read in some}
        return [found[key] for key in keys]
    for part in chunks(keys, BATCH):
        reads = [Read(key, policy) for key in part]
        await read_all(core, reads)
        await settle(core, [read for read in reads if read.raw is not None and not read.judged])
        done += reads
    return done


async def settle(core: Core, reads: Sequence[Read]) -> None:
    """Judge records that are not plain, of one request, after what their rules need was read.

    The namespace's floor comes from the local tables while they are proven, else it was read behind the records: a
    clear between the two then makes a value look old, never new. When the proof is lost meanwhile, or a record stands
    above every number that was heard of, the records are read again, with counter and floor. Floors of tags that are
    not known here are one request more.
    """
    if not reads:
        return
    for read in reads:
        read.value, read.entry = MISSING, None  # of an attempt to take it as a plain one
    try:
        await _settle(core, reads)
    except RemoteFailed as failure:
        for read in reads:
            read.raw, read.failure = None, failure


async def _settle(core: Core, reads: Sequence[Read]) -> None:
    epoch = reads[0].snapshot.epoch
    if reads[0].bounds is None:
        parsed = [_unpack(core, read) for read in reads]
        if core.floors_proven and not any(_above(core, record) for record in parsed if record is not None):
            tag_floors = await _tag_floors(core, parsed, epoch, proven=True)
            if core.floors_proven:
                _judge_all(core, reads, parsed, tag_floors)
                return
        keys = [read.key for read in reads]
        reading = await core.requests.ask(Operation.GET, core.remote.read, keys, with_bounds=True)
        for read, raw in zip(reads, reading.records, strict=True):
            read.raw, read.bounds = raw, reading.bounds
    parsed = [_unpack(core, read) for read in reads]
    _judge_all(core, reads, parsed, await _tag_floors(core, parsed, epoch, proven=False))
    if core.requests.greeting_due:  # the server has to begin anew above a record, before it gives its number out again
        core.requests.greeting_due = False
        with suppress(RemoteFailed):
            await core.requests.ask(Operation.GET, core.remote.greet)


def _unpack(core: Core, read: Read) -> Record | None:
    if read.raw is None:
        return None
    try:
        record = records.unpack(read.raw)
    except ValueError as error:
        report_corrupt(core, read.key, error)
        return None
    number, now = number_of(record.version), core.requests.server_now()
    if now and number > now + FUTURE_MAX:
        report_corrupt(core, read.key, ValueError(f"the write number {number} was never given out"))
        return None
    return record


def _above(core: Core, record: Record) -> bool:
    """Whether a record stands above every number that the bus has brought.

    Either its message is on its way, or its number is of another history (U): the counter, read behind it, tells.
    """
    return number_of(record.version) > core.invalidation.last


async def _tag_floors(
    core: Core, parsed: Sequence[Record | None], epoch: int, *, proven: bool
) -> Mapping[str, TagFloor | None]:
    """The floors of the records' tags that are not known here; they are kept only under the epoch of the read."""
    tags: Collection[str] = {tag for record in parsed if record is not None for tag in record.tags}
    asked = core.tier.floors.unknown(tags) if proven else list(tags)
    if not asked:
        return NO_FLOORS
    floors = dict(zip(asked, await core.requests.ask(Operation.GET, core.remote.tag_floors, asked), strict=True))
    core.tier.keep_tag_floors({tag: floor for tag, floor in floors.items() if floor}, epoch)
    return floors


def _judge_all(
    core: Core, reads: Sequence[Read], parsed: Sequence[Record | None], tag_floors: Mapping[str, TagFloor | None]
) -> None:
    for read, record in zip(reads, parsed, strict=True):
        read.judged = True
        if record is not None:
            _judge(core, read, record, tag_floors)


def _judge(core: Core, read: Read, record: Record, tag_floors: Mapping[str, TagFloor | None]) -> None:
    """The value of a record unless it was invalidated; a fresh one is put into L1 by the put rule."""
    number, bounds = number_of(record.version), read.bounds
    if bounds is not None and number > bounds.number:
        core.invalidation.see(number)
        core.requests.greeting_due = True
        return
    floor = core.tier.floors.over(record.tags, bounds and bounds.floor, tag_floors)
    if number < floor.dead:
        return
    if number < floor.number:  # invalidate_tags(stale=True) came after it: as mark_stale would have written
        record = record._replace(fresh_until=0)
    if _may_be_older(core, read, record):
        return
    past = core.requests.server_now() - record.fresh_until  # marked stale, it was fresh until 0
    if past >= 0 and not read.policy.stale_ms:
        return
    try:
        record, value = opened(core, read.key, record)
    except CodecError as error:
        report_corrupt(core, read.key, error)
        return
    entry = core.entries.entry(
        read.key, value, record.payload, record.version, record.fresh_until, read.policy, record.tags, record.load_ms
    )
    if record.counter:  # its bytes are not the codec's
        entry.value, entry.decode = value, None
    if past >= 0:
        read.stale = Stale(value, entry, past / 1e6, marked=not record.fresh_until)
        return
    read.value, read.entry = value, entry
    if record.counter:  # kept in L1, it would be dropped at each incr of each process
        core.tier.returned_unkept(read.key, record.version, read.snapshot)
        core.counters.l2_hits += 1
        return
    core.counters.l2_hits += 1
    core.counters.fills_refused += not core.tier.put(read.key, entry, read.snapshot)


def opened(core: Core, key: str, record: Record) -> tuple[Record, Any]:
    """A record with the codec's bytes as its payload, and its value.

    Raises:
        CodecError: it can't be opened or decoded.
    """
    if record.counter:
        return record, records.count_of(record.payload)
    if record.payload[:1] >= core.entries.sealed_from:
        record = core.entries.open(key, record)
    return record, core.entries.decode(record.payload)


def _may_be_older(core: Core, read: Read, record: Record) -> bool:
    """Whether the record may be older than a value that was returned without a version (T).

    The mark of then counts as well as that of now: a newer value may have ended the key's mark since this read began.
    """
    mark = max(read.snapshot.mark, core.tier.marks.of(read.key))
    return mark is not NO_MARK and mark.refuses(record.began, core.requests.offset(core.runtime.monotonic()))


def report_corrupt(core: Core, key: str, error: Exception) -> None:
    """Count a value that can't be read, and report it once for its key, or for its type if that is not known here."""
    if isinstance(error, registry.UnknownType):
        core.counters.unknown_types += 1
        core.emit_once(UnknownType(key, error.name, str(error)))
        return
    core.counters.corrupt_values += 1
    core.emit_once(CorruptValue(key, str(error)))
