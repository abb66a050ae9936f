"""Counters: cheap to raise inside, an immutable snapshot outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

CODES_MAX = 50
"""Codes of errors that are told apart; a server may invent any number of them."""


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


class Counters:
    """The counters behind Stats, raised in place.

    ``counters.x += 1`` is not locked. CPython hands the GIL over at calls and backward jumps only, and there is neither
    between the load and the store, so no count is lost; without a GIL a count may be, and nothing else. The same holds
    for ``counters.table[label] += 1`` where the table is a defaultdict: it calls ``int`` in C.
    """

    __slots__ = (
        "audit_stale",
        "audit_stale_age",
        "audited",
        "corrupt_values",
        "evictions",
        "fills_refused",
        "flushes",
        "flushes_by_reason",
        "invalidations_received",
        "invalidations_sent",
        "journalled",
        "l1_hits",
        "l2_errors",
        "l2_errors_by_code",
        "l2_hits",
        "load_errors",
        "load_seconds",
        "loads",
        "misses",
        "stale_served",
        "uncached",
        "unknown_types",
    )

    def __init__(self) -> None:
        self.l1_hits = self.l2_hits = self.misses = 0
        self.loads = self.load_errors = self.uncached = self.evictions = 0
        self.stale_served = self.audited = self.audit_stale = 0
        self.audit_stale_age = 0.0
        self.load_seconds = 0.0
        self.fills_refused = self.invalidations_sent = self.invalidations_received = 0
        self.flushes = self.journalled = self.l2_errors = self.corrupt_values = 0
        self.unknown_types = 0

        self.flushes_by_reason: defaultdict[str, int] = defaultdict(int)
        self.l2_errors_by_code: defaultdict[str, int] = defaultdict(int)

    def failed(self, code: str) -> None:
        """Count an operation that Redis did not answer as it should."""
        table = self.l2_errors_by_code
        self.l2_errors += 1
        table[code if code in table or len(table) < CODES_MAX else "other"] += 1

    def flushed(self, reason: str) -> None:
        """Count a flush of L1."""
        self.flushes += 1
        self.flushes_by_reason[reason] += 1

    def snapshot(self, *, l1_entries: int, l1_bytes: int) -> Stats:
        """The counters now, with what L1 holds."""
        counted = {field.name: getattr(self, field.name) for field in fields(Stats) if field.name in self.__slots__}
        for name in ("flushes_by_reason", "l2_errors_by_code"):
            counted[name] = dict(counted[name])
        return Stats(l1_entries=l1_entries, l1_bytes=l1_bytes, **counted)
