"""The counters behind Stats: cheap to raise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nearcache.stats import Stats

CODES_MAX = 50
"""Codes of errors that are told apart; a server may invent any number of them."""


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
        from nearcache.stats import Stats  # noqa: PLC0415  # few need it

        counted = {field.name: getattr(self, field.name) for field in fields(Stats) if field.name in self.__slots__}
        for name in ("flushes_by_reason", "l2_errors_by_code"):
            counted[name] = dict(counted[name])
        return Stats(l1_entries=l1_entries, l1_bytes=l1_bytes, **counted)
