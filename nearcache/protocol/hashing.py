"""Sets and dicts made of keys that anybody may have chosen, with a bound on the work that colliding keys cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from operator import eq
from time import thread_time
from typing import Any

from nearcache.protocol.registry import Types
from nearcache.protocol.types import SCALARS, Damaged


class Hashing:
    """Makes the sets and dicts of one value, and gives up when their keys collide too much.

    The hashes of numbers, and of tuples and sets of them, are known to anybody who writes the bytes: each insert may
    have to be compared with all keys before it, or pass all their places in the table. Those of str and bytes are
    secret.
    """

    __slots__ = ("_types", "comparisons", "seconds")

    def __init__(self, size: int, types: Types) -> None:
        self._types = types
        self.comparisons = 4096 + 8 * size
        """How many parts of keys may be compared."""
        self.seconds = 0.2 + 2.5e-7 * size
        """Of the processor, that filling tables may take: ten times what keys take that nobody has chosen."""

    def set_of(self, items: list[Any]) -> set[Any]:
        """A set of these items."""
        if len(items) <= _FEW and SCALARS.issuperset(map(type, items)):
            return set(items)
        self._admit(items)
        made: set[Any] = set()
        self._fill(made.update, items)
        return made

    def dict_of(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        """A dict of these keys and values."""
        keys = [key for key, _ in pairs]
        if len(keys) <= _FEW and SCALARS.issuperset(map(type, keys)):
            return dict(pairs)
        if not set(map(type, keys)) <= {str, bytes}:
            self._admit(keys)
        made: dict[Any, Any] = {}
        self._fill(made.update, pairs)
        return made

    def _fill(self, update: Callable[[Sequence[Any]], None], items: Sequence[Any]) -> None:
        if len(items) <= _STEP:
            update(items)
            return
        for start in range(0, len(items), _STEP):
            began = thread_time()
            update(items[start : start + _STEP])
            self.seconds -= thread_time() - began
            if self.seconds < 0:
                raise Damaged("keys that collide in their table")

    def _admit(self, keys: list[Any]) -> None:
        """Find keys of equal hash before they are compared."""
        hashes = list(map(hash, keys))
        distinct: set[int] = set()
        self._fill(distinct.update, hashes)
        if len(distinct) == len(hashes):
            return
        order = sorted(range(len(keys)), key=hashes.__getitem__)
        for _, group in groupby(order, hashes.__getitem__):
            same = [keys[at] for at in group]
            if len(same) > 1:
                self._spend(len(same) * (len(same) - 1) // 2 * max(map(self._weight, same)))

    def _weight(self, key: Any) -> int:
        """How much work it is to compare this key with another one, in comparisons of small numbers."""
        kind = type(key)
        self._spend(1)
        if kind is tuple or kind is list:
            return 1 + sum(map(self._weight, key))
        if kind is frozenset:  # each member is looked up, and compared with those of its hash
            hashes = sorted(map(hash, key))
            same: int = 1 + sum(map(eq, hashes, hashes[1:]))
            return 1 + same * sum(map(self._weight, key))
        if kind is int:
            return _quadratic(key.bit_length())
        if kind is Fraction:
            return _quadratic(key.numerator.bit_length() + key.denominator.bit_length())
        if kind is Decimal or kind is str or kind is bytes:
            return 1 + len(str(key) if kind is Decimal else key) // 16
        registered = self._types.by_type.get(kind)
        return 1 if registered is None else 1 + sum(map(self._weight, self._types.fields_of(registered, key)))

    def _spend(self, comparisons: int) -> None:
        self.comparisons -= comparisons
        if self.comparisons < 0:
            raise Damaged("keys of equal hashes")


_FEW = 32
"""Scalars that may all collide."""
_STEP = 256
"""Items that are put into a table between two looks at the clock."""


def _quadratic(bits: int) -> int:
    words: int = bits // 64
    return 1 + words * words
