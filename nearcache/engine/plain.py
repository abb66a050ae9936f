"""Many reads by one request: one hold of the lock for their snapshots, one pass over the records, one hold to put them.

Nearly every record is plain: alive by the floors that are known here, without tags, of a key without a mark. What is
not plain stays for the rules of ``read.settle``. A plain record needs no floor but the namespace's, and
``Tier.put_plain`` takes it only if nothing was heard since its snapshot that could have raised this floor, or left a
mark. So all that stands between the snapshots and the put is done without the lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import unpackb  # type: ignore[import-untyped]

from nearcache.engine.ports import MISSING, RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.errors import CodecError
from nearcache.local.marks import NO_MARK
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol.answers import Bounds
from nearcache.protocol.records import HEAD_BYTES, MAGIC, WHOLE, WHOLE_BYTES
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


_TRUSTED = attrgetter("trusted")
ReadAll: TypeAlias = Callable[..., Awaitable[None]]
"""``read_all`` for one cache: called with reads, and with the seconds that they have waited."""


class LoneReads:
    """Every read is a request of its own."""

    def __init__(self, read_all: ReadAll) -> None:
        self._read_all = read_all

    def enter(self) -> bool:
        """Whether the caller may send a request of its own; then it has to ``leave``."""
        return True

    def leave(self) -> None:
        """The caller's own request has ended."""

    def read_one(self, read: Read) -> Awaitable[None]:
        """Do a read, perhaps by one request with those of other threads or tasks."""
        return self._read_all((read,))


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
    try:
        await batch.read(core, waited)
    except RemoteFailed as failure:
        for read, snapshot in zip(reads, batch.snapshots, strict=True):
            read.snapshot, read.failure = snapshot, failure if snapshot.trusted else None
        return
    bounds = batch.bounds
    columns = zip(reads, batch.snapshots, batch.records, batch.values, batch.entries, strict=True)
    for read, snapshot, raw, value, entry in columns:
        read.snapshot, read.raw, read.bounds, read.value, read.entry = snapshot, raw, bounds, value, entry
        read.judged = entry is not None


class Batch:
    """Reads of some keys by one request. Each list has an item for each key."""

    __slots__ = ("bounds", "entries", "keys", "policies", "records", "snapshots", "values")

    def __init__(self, core: Core, keys: Sequence[str], policies: Sequence[Policy]) -> None:
        self.keys = keys
        self.policies = policies
        self.snapshots = core.tier.snapshots(keys)
        """Taken before anything is sent."""
        self.records: Sequence[bytes | None] = [None] * len(keys)
        self.bounds: Bounds | None = None
        self.values: list[Any] = [MISSING] * len(keys)
        self.entries: list[Entry | None] = [None] * len(keys)
        """Values and entries of the plain records; those of the others are yet to be judged."""

    async def read(self, core: Core, waited: float = 0.0) -> None:
        """Ask for the records, and take in those that are plain.

        Raises:
            RemoteFailed: Redis did not answer.
        """
        keys, tier, requests = self.keys, core.tier, core.requests
        # As Core.floors_proven. Each call between two requests is one part in a hundred of a lone read's time.
        proven = tier.synced and tier.floors.known and core.runtime.monotonic() < tier.proof.until
        # Where the last write of a key is not proven, L2 may have an older value, and is not asked for it.
        doubted = not all(map(_TRUSTED, self.snapshots))
        if doubted:
            keys = [key for key, snapshot in zip(keys, self.snapshots, strict=True) if snapshot.trusted]
            if not keys:
                return
        # As Requests.ask, which is one more coroutine.
        if requests.bypassed or not core.breaker.sends:
            requests.permit()
        try:
            records, self.bounds = await core.remote.read(keys, with_bounds=not proven, waited=waited)
        except RemoteFailed as failure:
            requests.failed(failure, Operation.GET, len(keys))
            raise
        if core.breaker.failures or core.breaker.refused or not core.breaker.sends:
            requests.answered(Operation.GET, records)
        if doubted:
            found = iter(records)
            records = [next(found) if snapshot.trusted else None for snapshot in self.snapshots]
        self.records = records
        if self.bounds is not None or records == [None]:
            return
        taken = self.take_in(core, 0)
        while taken < len(records):
            await core.runtime.give_way()
            taken = self.take_in(core, taken)

    def unjudged(self) -> list[Read]:
        """Reads of the records that are not plain."""
        reads = []
        for at, (raw, entry) in enumerate(zip(self.records, self.entries, strict=True)):
            if raw is not None and entry is None:
                read = Read(self.keys[at], self.policies[at])
                read.snapshot, read.raw, read.bounds = self.snapshots[at], raw, self.bounds
                reads.append(read)
        return reads

    def take_in(self, core: Core, begin: int) -> int:
        """Judge the plain records from ``begin`` on, and put their values; the floors were proven before the request.

        Returns:
            Where the next ones begin: after about AT_ONCE bytes of records.
        """
        entries, now = core.entries, core.runtime.monotonic()
        decode, entry_of, unpack = entries.decode_checked, entries.entry, WHOLE.unpack_from
        plain_form, sealed_from = entries.plain_form, entries.sealed_from
        longest = WHOLE_BYTES + core.settings.max_value_bytes
        server_now = int((now + core.invalidation.server_offset) * 1e6)
        lowest, highest = core.tier.floors.namespace, min(core.invalidation.last, server_now + FUTURE_MAX)
        keys, policies, snapshots, values, kept = self.keys, self.policies, self.snapshots, self.values, self.entries
        plain: list[tuple[int, str, Entry, Snapshot]] = []
        at, size = begin - 1, 0
        for raw in self.records[begin:]:
            at += 1
            if raw is None or not WHOLE_BYTES <= len(raw) <= longest:
                continue
            magic, number, created, fresh_until, load_ms, tags = unpack(raw)
            alive = magic == MAGIC and not tags and lowest <= number <= highest and server_now < fresh_until
            snapshot, payload = snapshots[at], raw[WHOLE_BYTES:]
            form = payload[:1]
            if not alive or snapshot.mark is not NO_MARK or form >= sealed_from:
                continue
            try:
                if form == plain_form and len(payload) <= CHECKED_BYTES:  # as MsgpackCodec.decode
                    try:
                        value = unpackb(payload[1:], max_ext_len=0, ext_hook=no_mark)
                    except ValueError:
                        value = decode(payload)
                else:
                    value = decode(payload)
            except CodecError:
                continue
            key, version = keys[at], number << CREATED_BITS | created
            values[at] = value
            kept[at] = entry = entry_of(key, value, payload, version, fresh_until, policies[at], (), load_ms)
            plain.append((at, key, entry, snapshot))
            size += len(raw)
            if size > AT_ONCE:
                break
        if plain:
            put, again = core.tier.put_plain(plain, now)
            for place in again:
                values[place], kept[place] = MISSING, None
            core.counters.l2_hits += len(plain) - len(again)
            core.counters.fills_refused += len(plain) - len(again) - put
        return at + 1
