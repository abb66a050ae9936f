"""What is right: every state that each report has had, against which every answer is held."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from nearcache.cli.demo.database import Report

Tier: TypeAlias = Literal["l1", "l2", "database"]
TIERS: tuple[Tier, ...] = ("l1", "l2", "database")


class Answer(NamedTuple):
    """One answer of a worker; times are ``time.monotonic_ns()``."""

    category: int
    revision: int
    digest: int
    start_ns: int
    took_ns: int
    tier: Tier
    healthy: bool
    """Whether L1 was proven coherent when the read began."""


def digest(report: Report) -> int:
    """A number for a report's whole content, the types of its values included.

    >>> digest({"category": 1}) == digest({"category": True})
    False
    """
    return zlib.crc32(repr(report).encode())


class Ledger:
    """Every state that each report has had; revisions count from 1.

    >>> ledger = Ledger()
    >>> one, two = {"category": 7, "revision": 1}, {"category": 7, "revision": 2}
    >>> ledger.committed(one, at_ns=0)
    >>> ledger.committed(two, at_ns=1_000)
    >>> ledger.staleness(7, 1, digest(one), start_ns=1_500), ledger.staleness(7, 2, digest(two), start_ns=1_500)
    (500, 0)
    >>> ledger.staleness(7, 2, digest(one), start_ns=1_500) is None
    True
    """

    def __init__(self) -> None:
        self._states: dict[int, list[tuple[int, int]]] = {}

    def committed(self, report: Report, at_ns: int) -> None:
        """Note a report as it is from then on."""
        self._states.setdefault(report["category"], []).append((digest(report), at_ns))

    def staleness(self, category: int, revision: int, answer: int, start_ns: int) -> int | None:
        """Nanoseconds for which an answer was out of date when it was asked for.

        Args:
            category: the key.
            revision: what the answer claims to be.
            answer: the digest of its content.
            start_ns: when the read began; a later commit could not be known to it.

        Returns:
            0 for an answer that was up to date; None for content that the database never held under that revision.
        """
        states = self._states.get(category, [])
        if not 1 <= revision <= len(states) or states[revision - 1][0] != answer:
            return None
        return 0 if revision == len(states) else max(0, start_ns - states[revision][1])


def differences(database: Callable[[int], Report], answers: Mapping[int, Iterable[Report]]) -> list[str]:
    """The workers' answers that differ, in a value or in the type of one, from the database as it is now."""
    found = []
    truth: dict[int, Report] = {}
    for worker, reports in answers.items():
        for report in reports:
            category = report["category"]
            if category not in truth:
                truth[category] = database(category)
            if repr(report) != repr(truth[category]):
                found.append(f"worker {worker + 1}, {report} instead of {truth[category]}")
    return found


def quantile_us(ns: list[int], part: float) -> float:
    """The nearest-rank quantile in microseconds; 0 when there is nothing.

    >>> quantile_us([3000, 1000, 2000], 0.5), quantile_us([], 0.5)
    (2.0, 0.0)
    """
    return round(sorted(ns)[max(0, -int(-part * len(ns) // 1) - 1)] / 1e3, 1) if ns else 0.0


@dataclass
class Tally:
    """What one worker did in one phase."""

    took: dict[Tier, list[int]] = field(default_factory=lambda: {tier: [] for tier in TIERS})
    errors: list[str] = field(default_factory=list)
    wrong: int = 0
    stale: int = 0
    worst_ns: int = 0
    proven_l1_ns: int | None = None
    """When the first read began that L1 answered while it was proven."""

    @property
    def answers(self) -> int:
        """Reads that were answered, by any tier."""
        return sum(map(len, self.took.values()))

    def add(self, seen: Answer, ledger: Ledger) -> None:
        """Count one answer."""
        self.took[seen.tier].append(seen.took_ns)
        staleness = ledger.staleness(seen.category, seen.revision, seen.digest, seen.start_ns)
        self.wrong += staleness is None
        self.stale += bool(staleness)
        self.worst_ns = max(self.worst_ns, staleness or 0)
        if seen.tier == "l1" and seen.healthy and self.proven_l1_ns is None:
            self.proven_l1_ns = seen.start_ns
