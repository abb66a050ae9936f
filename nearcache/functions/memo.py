"""The memo of keys by raw arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from sys import getsizeof
from typing import Any
from uuid import UUID

from nearcache.functions.parameters import BY_POSITION, binder

_SHORT_BYTES = 4 << 20
"""Of the keys that ShortKeys of one function keep, with their arguments and places in the dict."""
_SHORT_OVERHEAD = 100  # of a place in the dict, which is at least one third full
_MEMO_CALLS = 4096
_MEMO_BYTES = 512
"""Of a call's arguments and their names; with the number of calls and the next it bounds what a memo keeps alive."""
_MEMO_KEY_BYTES = 1024
_INT_BITS = 60
"""Of all ints of a call. A hash has as many; so hardly two calls have one hash, and nobody can choose many that do."""


class _NotMemoised(Exception):
    """This call's key is built in full each time."""


class ShortKeys:
    """The keys of calls seen lately with one argument by position, exactly a str or an int.

    ``kept[argument]`` costs a third of what functools.lru_cache takes to tell types, so the caller has to make sure of
    the type: 1, 1.0 and True find the same place. A plain dict, because the interpreter has a shorter way for those.
    """

    __slots__ = ("_bytes", "_fixed", "kept")

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self.kept: dict[str | int, str] = {}
        self._bytes = 0

    def keep(self, args: Sequence[Any], kwargs: Mapping[str, Any], key: str) -> None:
        """Keep the key of a call if it is such a one. When they are too many, all make room.

        No lock: of two threads at once one may miss the other's bytes in the sum, which begins anew with each clearing.
        """
        if not self._fixed or len(args) != 1 or kwargs or type(args[0]) not in {str, int} or not _are_small(args, key):
            return
        self._bytes += getsizeof(args[0]) + getsizeof(key) + _SHORT_OVERHEAD
        if self._bytes > _SHORT_BYTES:
            self.kept.clear()
            self._bytes = 0
        self.kept[args[0]] = key


def memoised(
    label: str, signature: inspect.Signature, used: frozenset[str], compose: Callable[[Mapping[str, Any]], str]
) -> tuple[ShortKeys, Callable[..., str]]:
    """The keys of calls seen lately, by their raw arguments: of the shortest calls, and of all.

    Only small ones of exactly str, int, bytes, bool or None: ``typed`` tells 1 from True, but not (1,) from (True,) or
    0.0 from -0.0, and an object may be changed. lru_cache does not store a call that raised.
    """
    parameters = list(signature.parameters.values())
    skip = _leading_unused(parameters, used)
    fixed = all(_is_fixed(parameter.default) for parameter in parameters if parameter.name in used)
    bind = binder(label, signature.replace(parameters=parameters[skip:]))

    def compute(*args: object, **kwargs: object) -> str:
        given = (*args, *kwargs, *kwargs.values())
        if not fixed or not _are_small(given):
            raise _NotMemoised
        key = compose(bind(*args, **kwargs))
        if not _are_small(given, key):
            raise _NotMemoised
        return key

    memo = functools.lru_cache(maxsize=_MEMO_CALLS, typed=True)(compute)
    if not skip:
        return ShortKeys(fixed=fixed), memo

    def memo_without_unused(*args: object, **kwargs: object) -> str:
        if len(args) < skip:
            raise _NotMemoised
        return memo(*args[skip:], **kwargs)

    return ShortKeys(fixed=fixed), memo_without_unused


def _leading_unused(parameters: Sequence[inspect.Parameter], used: frozenset[str]) -> int:
    """How many positional arguments at the front are not in the key, as a method's self: the memo does without them.

    None when there is a ``**kwargs``: it would take such an argument that is given twice, by position and by name.
    """
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return 0
    for count, parameter in enumerate(parameters):
        if parameter.kind not in BY_POSITION or parameter.name in used:
            return count
    return len(parameters)


def _are_small(values: Sequence[Any], key: str = "") -> bool:
    """Whether all are of the types that tell themselves apart, and with the key so small that they may be kept."""
    bits = size = 0
    for value in values:
        kind = type(value)
        if kind is int:
            bits += value.bit_length()
        elif kind not in _EXACT:
            return False
        size += getsizeof(value)
    return bits <= _INT_BITS and size <= _MEMO_BYTES and getsizeof(key) <= _MEMO_KEY_BYTES


_EXACT = frozenset({str, bytes, bool, type(None)})


def _is_fixed(default: object) -> bool:
    """Whether a default's text stays what it is: else every call's key is built in full."""
    kind = type(default)
    if kind is tuple:
        return all(map(_is_fixed, default))  # type: ignore[call-overload]
    return kind in _FIXED or issubclass(kind, Enum) or default is inspect.Parameter.empty


_FIXED = frozenset({type(None), bool, int, float, str, bytes, Decimal, UUID, date, timedelta})
