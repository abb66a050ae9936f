"""How long calls took: p50, p99 and the longest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.tables import percentile

HEAD = ("calls", "p50 ms", "p99 ms", "max ms")
"""The head over ``Took.cells``."""


@dataclass(frozen=True)
class Took:
    """How many calls there were, and p50, p99 and the longest of them in ms."""

    calls: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, ns: Sequence[float]) -> Took:
        """Of times in ns; the p99 is a call that was made, by the nearest rank.

        >>> Took.of([2_000_000, 1_000_000, 3_000_000])
        Took(calls=3, p50=2.0, p99=3.0, longest=3.0)
        >>> Took.of([])
        Took(calls=0, p50=nan, p99=nan, longest=nan)
        """
        return cls(len(ns), *(percentile(ns, part) / 1e6 for part in (0.5, 0.99, 1.0)))

    def cells(self) -> list[str]:
        """For a row of a table."""
        return [f"{self.calls:,}", *(milliseconds(one) for one in (self.p50, self.p99, self.longest))]


def tails(ns: Sequence[float], size: int) -> list[float]:
    """The p99, in ms, of each stretch of so many calls; what is over is left out, unless it is all there is.

    What else the machine does makes single calls late: of some stretches the median is judged.

    >>> tails([2e6, 9e6, 2e6, 2e6, 7e6], 2)
    [9.0, 2.0]
    """
    return [Took.of(ns[size * one : size * (one + 1)]).p99 for one in range(max(1, len(ns) // size))]


def milliseconds(number: float) -> str:
    """As precise as the figure deserves.

    >>> [milliseconds(number) for number in (0.00213, 5.14, 251.3, float("nan"))]
    ['0.002', '5.14', '251', '']
    """
    if math.isnan(number):
        return ""
    return f"{number:.3f}" if number < 1 else f"{number:.2f}" if number < 100 else f"{number:,.0f}"
