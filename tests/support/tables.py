"""Figures and tables as benchmarks and scenarios print them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median, the least and the greatest value that it was taken from, and the quartiles."""

    median: float
    least: float
    greatest: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, least=1.0, greatest=3.0, lower=1.5, upper=2.5)
        """
        lower, median, upper = statistics.quantiles(values, method="inclusive") if len(values) > 1 else 3 * [*values]
        return cls(median, min(values), max(values), lower, upper)

    def range(self, form: str = ".2f") -> str:
        """The least and the greatest value, for a table.

        >>> Spread.of([3.0, 1.0, 2.0]).range(".1f")
        '1.0–3.0'
        """
        return f"{self.least:{form}}–{self.greatest:{form}}"


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which this part of them is, by the nearest rank: one of them; NaN if there are none.

    >>> percentile([3.0, 1.0, 2.0], 0.5), percentile([], 0.5)
    (2.0, nan)
    """
    return sorted(values)[math.ceil(part * len(values)) - 1] if values else math.nan


@dataclass(frozen=True)
class Table:
    """A title, a head, rows of the same length, and notes below."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table as plain text: the first column to the left, figures to the right.

        >>> print(Table("Speed", ["what", "ns"], [["get", "120"], ["peek", "90"]]))
        Speed
          what   ns
          get   120
          peek   90
        """
        lines = [self.head, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.head))]
        text = [self.title]
        for first, *others in lines:
            cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
            text.append("  " + "  ".join(cells).rstrip())
        return "\n".join([*text, *(f"  {note}" for note in self.notes)])


def figure(number: float) -> str:
    """Three digits that count, and no exponent.

    >>> [figure(number) for number in (12345.6, 217.4, 21.74, 2.174, 0.02174, 0)]
    ['12,346', '217', '21.7', '2.17', '0.0217', '0']
    """
    if not number or not math.isfinite(number):
        return f"{number:g}"
    return f"{number:,.{max(0, 2 - math.floor(math.log10(abs(number))))}f}"


def duration(ns: float) -> str:
    """A time in the unit that suits it.

    >>> [duration(ns) for ns in (49.4, 4_830.0, 1_250_000.0, 3.2e9)]
    ['49.4 ns', '4.83 µs', '1.25 ms', '3.20 s']
    """
    for unit, size in (("ns", 1), ("µs", 1e3), ("ms", 1e6)):
        if abs(ns) < 999.5 * size:
            return f"{figure(ns / size)} {unit}"
    return f"{figure(ns / 1e9)} s"
