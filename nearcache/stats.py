"""What a cache has counted, as an immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a cache has done since it was made; a snapshot.

    Attributes:
        l1_hits: Reads that L1 answered.
        l2_hits: Reads that Redis answered.
        misses: Reads that neither tier could answer.
        loads: Loaders called.
        load_errors: Loaders that raised.
        load_seconds: Seconds that the loaders took, in all.
        stale_served: Reads answered with a value past its ttl, while it was loaded anew or because that failed.
        uncached: Loaded values that could not be stored: too large, or nothing that the codec carries.
        evictions: Entries that left L1 for want of room.
        l1_entries: Entries in L1 now.
        l1_bytes: Encoded bytes of the keys and values in L1 now.
        fills_refused: Values that were not put into L1, or not filled into Redis, because a write may have come
            between.
        invalidations_sent: Acknowledged writes.
        invalidations_received: Messages taken from the bus.
        propagations: Own writes whose message was timed.
        propagation_seconds: Seconds from these writes to the arrival of their messages here, in all.
        audited: Entries of L1 that were compared with Redis (``audit_fraction``).
        audit_stale: Entries among them that were stale for longer than ``max_staleness``, and were dropped.
        audit_stale_age: Seconds for which these were stale, in all.
        flushes: Times L1 was dropped because messages may have been missed.
        flushes_by_reason: The same by reason: see ``Cause`` in ``nearcache.local.effects``.
        journalled: Keys of writes that Redis did not acknowledge.
        l2_errors: Operations that Redis did not answer as it should.
        l2_errors_by_code: The same by the code of Redis' error, such as OOM; ``timeout`` and ``connection`` where there
            was no answer.
        corrupt_values: Records in Redis that could not be read.
        unknown_types: Records of a type that is not registered here, or has other fields here.
    """

    l1_hits: int = 0
    l2_hits: int = 0
    misses: int = 0
    loads: int = 0
    load_errors: int = 0
    load_seconds: float = 0.0
    stale_served: int = 0
    uncached: int = 0
    evictions: int = 0
    l1_entries: int = 0
    l1_bytes: int = 0
    fills_refused: int = 0
    invalidations_sent: int = 0
    invalidations_received: int = 0
    propagations: int = 0
    propagation_seconds: float = 0.0
    audited: int = 0
    audit_stale: int = 0
    audit_stale_age: float = 0.0
    flushes: int = 0
    flushes_by_reason: Mapping[str, int] = field(default_factory=dict, hash=False)
    journalled: int = 0
    l2_errors: int = 0
    l2_errors_by_code: Mapping[str, int] = field(default_factory=dict, hash=False)
    corrupt_values: int = 0
    unknown_types: int = 0
