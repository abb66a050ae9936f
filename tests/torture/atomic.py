"""What add and incr have answered, held against each other: a lock is given once, no number twice or lost.

A clear ends both, whenever it may have been executed: from its beginning until it was acknowledged, and without an
acknowledgement at any time after that, since it is replayed. Where the server loses values, nothing is judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.torture.book import BRIEF

LIFE = int(BRIEF * 1e9)
"""ns that a lock is held at least, from the beginning of its add."""


class Operation(NamedTuple):
    """An operation that was answered; times in ns."""

    name: str
    start: int
    end: int
    number: int | None = None
    """What an incr answered; None: an add that was told True."""


class Clear(NamedTuple):
    """When a clear may have been executed."""

    start: int
    end: int


def violations(operations: Sequence[Operation], clears: Sequence[Clear]) -> list[str]:
    """Locks that were given twice, and counts that were lost or given twice."""
    by_name: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        by_name[one.name].append(one)
    found: list[str] = []
    for name, own in by_name.items():
        found += _counts(name, own, clears) if own[0].number is not None else _locks(name, own, clears)
    return found


def _locks(name: str, given: Sequence[Operation], clears: Sequence[Clear]) -> list[str]:
    ordered = sorted(given, key=lambda one: one.end)
    return [
        f"{name} was given again {(second.end - first.start) / 1e6:.0f} ms after it was asked for"
        for first, second in pairwise(ordered)
        if second.end < first.start + LIFE and not _ended(min(first.start, second.start), second.end, clears)
    ]


def _counts(name: str, counted: Sequence[Operation], clears: Sequence[Clear]) -> list[str]:
    """An incr that begins after another has ended gives a higher number; two of them never give the same."""
    found: list[str] = []
    for first in counted:
        for second in counted:
            if first is second or first.end > second.end or first.number is None or second.number is None:
                continue
            lost = first.end < second.start and second.number <= first.number
            twice = second.number == first.number
            if (lost or twice) and not _ended(min(first.start, second.start), second.end, clears):
                found.append(f"{name} was {second.number} after it was {first.number}")
    return found


def _ended(start: int, end: int, clears: Sequence[Clear]) -> bool:
    """Whether a clear may have been executed between."""
    return any(clear.start <= end and clear.end >= start for clear in clears)
