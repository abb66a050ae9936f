"""Latencies in bounded memory: counts in buckets that are at most 1/32 of their value wide."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_BITS = 5


@dataclass(slots=True)
class Latencies:
    """A histogram of durations from nanoseconds to minutes, exact below 64 ns and to 3 % above.

    Source: HdrHistogram by Gil Tene: a power of two, cut into equal parts.

    >>> seen = Latencies()
    >>> for ns in range(1, 101):
    ...     seen.add(ns * 1000)
    >>> seen.count, seen.worst, 50_000 <= seen.quantile(0.5) <= 51_600
    (100, 100000, True)
    """

    count: int = 0
    worst: int = 0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, ns: int) -> None:
        """Count one duration, in nanoseconds."""
        self.count += 1
        self.worst = max(self.worst, ns)
        self._buckets[_bucket(ns)] += 1

    def merge(self, other: Latencies) -> None:
        """Count everything that ``other`` has counted."""
        self.count += other.count
        self.worst = max(self.worst, other.worst)
        self._buckets.update(other._buckets)

    def quantile(self, fraction: float) -> int:
        """The nearest-rank quantile in nanoseconds, never too low; 0 when nothing was counted.

        Args:
            fraction: 0.5 for the median, 0.99 for the slowest hundredth's beginning.
        """
        rank = max(1, -int(-fraction * self.count // 1))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(_upper_edge(bucket), self.worst)
        return 0


def _bucket(ns: int) -> int:
    shift = max(0, ns.bit_length() - _BITS - 1)
    return (shift << _BITS) + (ns >> shift)


def _upper_edge(bucket: int) -> int:
    shift = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (shift << _BITS) + 1) << shift) - 1
