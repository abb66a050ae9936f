"""Many reads by one request: one hold of the lock for their snapshots, one pass over the records, one hold to put them.

Nearly every record is plain: alive by the floors that are known here, without tags, of a key without a mark. What is
not plain stays for the rules of ``read.settle``. A plain record needs no floor but the namespace's, and
``Tier.put_plain`` takes it only if nothing was heard since its snapshot that could have raised this floor, or left a
mark. So all that stands between the snapshots and the put is done without the lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import unpackb  # type: ignore[import-untyped]

from nearcache.engine.entries import MUTABLE
from nearcache.engine.ports import MISSING, RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.errors import CodecError
from nearcache.local.marks import NO_MARK
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import NO_PROOF, Entry
from nearcache.policy import Policy
from nearcache.protocol.answers import Bounds
from nearcache.protocol.records import HEAD_BYTES, MAGIC, WHOLE, WHOLE_BYTES
from nearcache.protocol.types import IMMUTABLE
from nearcache.protocol.unpacking import CHECKED_BYTES, no_mark
from nearcache.protocol.versions import CREATED_BITS

if TYPE_CHECKING:
    from nearcache.engine.core import Core
    from nearcache.engine.stale import Stale

AT_ONCE = 64 * 1024
"""Bytes of records that are judged before other tasks have their turn. Threads have it anyway."""
FUTURE_MAX = 1 << 40
"""µs, 12 days: a write number so far above the server's time is damage. Numbers begin at the time, and a server that
were to execute more than one write in a microsecond would get ahead of it."""


class Read:
    """A read of one key from L2, and its result."""

    # The class has what holds until the read is done: to set all of it for each read takes as long as a snapshot.
    snapshot: Snapshot
    """Taken before anything was sent."""
    raw: bytes | None = None
    """The record, if there is one."""
    bounds: Bounds | None = None
    """Counter and floor, if they were read behind the record."""
    judged = False
    """Whether the rules were applied to the record."""
    value: Any = MISSING
    """The fresh value, if there is one."""
    entry: Entry | None = None
    """The same as an entry of L1."""
    stale: Stale | None = None
    """The value of a record past its end."""
    failure: RemoteFailed | None = None
    """Why Redis did not answer. Reads of one request share it, so it is never raised."""
    value_alone = False
    """Whether no more is asked for than the value: that of a plain record comes without the rest."""

    def __init__(self, key: str, policy: Policy) -> None:
        self.key = key
        self.policy = policy

    @property
    def alive(self) -> bool:
        """Whether there is a fresh value."""
        return self.value is not MISSING

    @property
    def head(self) -> bytes:
        """The head of the record, or nothing."""
        return b"" if self.raw is None else self.raw[:HEAD_BYTES]


ReadAll: TypeAlias = Callable[..., Awaitable[None]]
"""``read_all`` for one cache: called with reads, and with the seconds that they have waited."""


class LoneReads:
    """Every read is a request of its own."""

    new: Callable[[str, Policy], Read] = Read
    """Makes a read of a key."""
    finds = False
    """Whether values are found by ``find``."""

    def __init__(self, core: Core) -> None:
        self._read_all: ReadAll = partial(read_all, core)

    def enter(self) -> bool:
        """Whether the caller may send a request of its own; then it has to ``leave``."""
        return True

    def leave(self) -> None:
        """The caller's own request has ended."""

    def read_one(self, read: Read) -> Awaitable[Any]:
        """Do a read, perhaps by one request with those of other threads or tasks."""
        return self._read_all((read,))

    def find(self, key: str, policy: Policy) -> Awaitable[Any]:
        """The value of a key, or MISSING, judged and counted for the caller."""
        raise NotImplementedError


async def read_all(core: Core, reads: Sequence[Read], waited: float = 0.0) -> None:
    """Do some reads by one request; their results stand in them.

    Args:
        core: the cache.
        reads: at most BATCH.
        waited: seconds that they have waited already; the request has so much less.
    """
    keys, policies = [], []
    for read in reads:
        keys.append(read.key)
        policies.append(read.policy)
    batch = Batch(core, keys, policies)
    await batch.read(waited)
    values, whole = batch.values, batch.failure is not None
    for at, read in enumerate(reads):
        if read.value_alone and not whole and type(values[at]) is not Read:
            read.value = values[at]
        else:
            batch.fill(at, read)


class Batch:
    """Reads of some keys by one request. Each list has an item for each key."""

    __slots__ = ("_core", "_now", "bounds", "entries", "failure", "keys", "policies", "records", "snapshots", "values")

    def __init__(self, core: Core, keys: Sequence[str], policies: Sequence[Policy]) -> None:
        self._core = core
        self.keys = keys
        self.policies = policies
        self.snapshots = core.tier.take(keys)
        """Taken before anything is sent."""
        self.records: Sequence[bytes | None] = [None] * len(keys)
        self.bounds: Bounds | None = None
        self.values: list[Any] = [MISSING] * len(keys)
        """What the plain records hold; for the others a Read, whose record is yet to be judged."""
        self.entries: list[Entry | None] = [None] * len(keys)
        """Those of the plain records."""
        self.failure: RemoteFailed | None = None
        """Why Redis did not answer."""

    async def read(self, waited: float = 0.0) -> None:
        """Ask for the records, and take in those that are plain."""
        core, keys, trusted = self._core, self.keys, self.snapshots.trusted
        tier, requests = core.tier, core.requests
        # As Core.floors_proven. Each call between two requests is one part in a hundred of a lone read's time.
        proven = tier.synced and tier.floors.known and core.runtime.monotonic() < tier.proof.until
        # Where the last write of a key is not proven, L2 may have an older value, and is not asked for it.
        doubted = False in trusted
        if doubted:
            keys = list(compress(keys, trusted))
        if not keys:
            return
        try:  # as Requests.ask, which is one more coroutine
            if requests.bypassed or not core.breaker.sends:
                requests.permit()
            records, self.bounds = await core.remote.read(keys, with_bounds=not proven, waited=waited)
        except RemoteFailed as failure:
            requests.failed(failure, Operation.GET, len(keys))
            self.fail(failure)
            return
        if core.breaker.failures or core.breaker.refused or not core.breaker.sends:
            requests.answered(Operation.GET, records)
        if doubted:
            found = iter(records)
            records = [next(found) if one else None for one in trusted]
        self.records = records
        if self.bounds is None and records != [None]:
            judged = self._judge(0)
            if judged < len(records):
                await self._judge_rest(judged)
            self._put()
        elif records != [None]:
            self._leave_unjudged()

    def fail(self, failure: RemoteFailed) -> None:
        """Give the reads up: no value was put, and none may be returned."""
        count = len(self.keys)
        self.failure, self.values = failure, [MISSING] * count
        self.records, self.entries = [None] * count, [None] * count

    def fill(self, at: int, read: Read) -> Read:
        """Note the result for a key in a read of it."""
        read.snapshot, read.raw, read.bounds = self.snapshots.of(at), self.records[at], self.bounds
        read.entry = self.entries[at]
        if read.entry is not None:
            read.value, read.judged = self.values[at], True
        elif read.snapshot.trusted:
            read.failure = self.failure
        return read

    def _leave_unjudged(self) -> None:
        for at, (raw, entry) in enumerate(zip(self.records, self.entries, strict=True)):
            if entry is None:
                self.values[at] = MISSING if raw is None else self.fill(at, Read(self.keys[at], self.policies[at]))

    async def take_in(self, records: Sequence[bytes | None]) -> None:
        """Take in records that were read along with those of other batches, without bounds."""
        self.records = records
        await self._judge_rest(0)
        self._put()

    async def _judge_rest(self, judged: int) -> None:
        while judged < len(self.records):
            if judged:
                await self._core.runtime.give_way()
            judged = self._judge(judged)

    def _judge(self, begin: int) -> int:
        """Judge the records from ``begin`` on by what holds of plain ones; the floors were proven before the request.

        Returns:
            Where the next ones begin: after about AT_ONCE bytes of records.
        """
        core = self._core
        entries, now = core.entries, core.runtime.monotonic()
        self._now = now
        decode, entry_of, unpack = entries.decode_checked, entries.entry, WHOLE.unpack_from
        plain_form, sealed_from, opener = entries.plain_form, entries.sealed_from, entries.opener
        new, make = object.__new__, core.tier.make_entry
        policy: Policy | None = None
        usual = False
        longest, checked = WHOLE_BYTES + core.settings.max_value_bytes, WHOLE_BYTES + CHECKED_BYTES
        offset = core.invalidation.server_offset
        server_now = int((now + offset) * 1e6)
        lowest, highest = core.tier.floors.namespace, min(core.invalidation.last, server_now + FUTURE_MAX)
        keys, policies, marks, values, kept = self.keys, self.policies, self.snapshots.marks, self.values, self.entries
        at, size = begin - 1, 0
        for raw in self.records[begin:]:
            at += 1
            if raw is None or not WHOLE_BYTES <= (length := len(raw)) <= longest:
                continue
            magic, number, created, fresh_until, load_ms, tags = unpack(raw)
            payload = raw[WHOLE_BYTES:]
            form = payload[:1]
            alive = magic == MAGIC and not tags and lowest <= number <= highest and server_now < fresh_until
            if not alive or marks[at] is not NO_MARK or form >= sealed_from:
                continue
            try:
                if form == plain_form and length <= checked:  # as MsgpackCodec.decode
                    try:
                        value = unpackb(payload[1:], max_ext_len=0, ext_hook=no_mark)
                    except ValueError:
                        value = decode(payload)
                else:
                    value = decode(payload)
            except CodecError:
                continue
            values[at] = value
            version, kind = number << CREATED_BITS | created, type(value)
            if policies[at] is not policy:
                policy = policies[at]
                usual = policy.usual
            if usual and (kind in MUTABLE or kind in IMMUTABLE):  # as Entries.entry, which takes thrice as long
                kept[at] = entry = new(make)
                entry.value, entry.decode = (payload, opener) if kind in MUTABLE else (value, None)
                entry.deadline = entry.expires = fresh_until / 1e6 - offset
                entry.version, entry.tags = version, ()
                entry.size, entry.proof = len(keys[at]) + length - WHOLE_BYTES, NO_PROOF
            else:
                kept[at] = entry_of(keys[at], value, payload, version, fresh_until, policies[at], (), load_ms)
            size += length
            if size > AT_ONCE:
                break
        return at + 1

    def _put(self) -> None:
        """Put the plain values; what is not plain is left as a Read."""
        core, entries = self._core, self.entries
        put = core.tier.put_plain(self.keys, entries, self.snapshots, self._now)
        plain = len(entries) - entries.count(None)
        core.counters.l2_hits += plain
        core.counters.fills_refused += plain - put
        if plain < len(entries):
            self._leave_unjudged()
