"""Many reads by one request: one hold of the lock for their snapshots, one pass over the records, one hold to put them.

Nearly every record is plain: alive by the floors that are known here, without tags, of a key without a mark. What is
not plain stays for the rules of ``read.settle``. A plain record needs no floor but the namespace's, and
``Tier.put_plain`` takes it only if nothing was heard since its snapshot that could have raised this floor, or left a
mark. So all that stands between the snapshots and the put is done without the lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from nearcache.engine.ports import MISSING, RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.errors import CodecError
from nearcache.local.marks import NO_MARK
from nearcache.local.snapshot import Snapshot
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol.answers import Bounds
from nearcache.protocol.records import HEAD_BYTES, MAGIC, WHOLE, WHOLE_BYTES
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


_KEY = attrgetter("key")
ReadAll: TypeAlias = Callable[..., Awaitable[None]]
"""``read_all`` for one cache: called with reads, and with the seconds that they have waited."""


class LoneReads:
    """Every read is a request of its own."""

    def __init__(self, read_all: ReadAll) -> None:
        self._read_all = read_all

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
    tier, proven = core.tier, core.floors_proven
    keys = list(map(_KEY, reads))
    doubted = False
    for read, snapshot in zip(reads, tier.snapshots(keys), strict=True):
        read.snapshot = snapshot
        doubted |= not snapshot.trusted
    if doubted:  # where the last write of a key is not proven, L2 may have an older value, and is not asked for it
        reads = [read for read in reads if read.snapshot.trusted]
        keys = list(map(_KEY, reads))
        if not reads:
            return
    method = partial(core.remote.read, waited=waited) if waited else core.remote.read
    try:
        records, bounds = await core.requests.ask(Operation.GET, method, keys, with_bounds=not proven)
    except RemoteFailed as failure:
        for read in reads:
            read.failure = failure
        return
    for read, raw in zip(reads, records, strict=True):
        read.raw, read.bounds = raw, bounds
    if bounds is not None or records == [None]:
        return
    taken = take_in(core, reads)
    while taken < len(reads):
        await core.runtime.give_way()
        taken += take_in(core, reads[taken:])


def take_in(core: Core, reads: Sequence[Read]) -> int:
    """Judge the plain records among some, and put their values.

    Args:
        core: the cache. Its floors were proven when the records were asked for.
        reads: of one request.

    Returns:
        How many reads were looked at: up to about AT_ONCE bytes of records.
    """
    entries, now = core.entries, core.runtime.monotonic()
    decode, entry_of, unpack = entries.decode_checked, entries.entry, WHOLE.unpack_from
    sealed_from, longest = entries.sealed_from, WHOLE_BYTES + core.settings.max_value_bytes
    server_now = int((now + core.invalidation.server_offset) * 1e6)
    lowest, highest = core.tier.floors.namespace, min(core.invalidation.last, server_now + FUTURE_MAX)
    plain: list[tuple[Read, str, Entry, Snapshot]] = []
    looked = size = 0
    for read in reads:
        raw = read.raw
        looked += 1
        if raw is None or not WHOLE_BYTES <= len(raw) <= longest:
            continue
        magic, number, created, fresh_until, load_ms, tags = unpack(raw)
        alive = magic == MAGIC and not tags and lowest <= number <= highest and server_now < fresh_until
        snapshot = read.snapshot
        if not alive or snapshot.mark is not NO_MARK:
            continue
        payload = raw[WHOLE_BYTES:]
        if payload[:1] >= sealed_from:
            continue
        try:
            read.value = value = decode(payload)
        except CodecError:
            continue
        key, version = read.key, number << CREATED_BITS | created
        read.entry = entry = entry_of(key, value, payload, version, fresh_until, read.policy, (), load_ms)
        plain.append((read, key, entry, snapshot))
        size += len(raw)
        if size > AT_ONCE:
            break
    if plain:
        kept, put = core.tier.put_plain(plain, now)
        for read in kept:
            read.judged = True
        core.counters.l2_hits += len(kept)
        core.counters.fills_refused += len(kept) - put
    return looked
