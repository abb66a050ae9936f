"""The memo of keys by raw arguments."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from nearcache.functions.parameters import BY_POSITION, binder

_MEMO_CALLS = 16_384
_MEMO_ARGUMENTS = 16  # a keyword counts twice
_MEMO_LENGTH = 256  # of a str or bytes; with the two above it bounds what a memo keeps alive
_MEMO_BITS = 2048  # of an int


class _NotMemoised(Exception):
    """This call's key is built in full each time."""


class ShortKeys:
    """The keys of calls seen lately with one argument by position, exactly a str or an int.

    ``kept[argument]`` costs a third of what functools.lru_cache takes to tell types, so the caller has to make sure of
    the type: 1, 1.0 and True find the same place. A plain dict, because the interpreter has a shorter way for those.
    """

    __slots__ = ("_fixed", "_order", "kept")

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self.kept: dict[str | int, str] = {}
        self._order: deque[str | int] = deque()

    def keep(self, args: Sequence[Any], kwargs: Mapping[str, Any], key: str) -> None:
        """Keep the key of a call if it is such a one; the oldest makes room."""
        if not self._fixed or len(args) != 1 or kwargs or type(args[0]) not in {str, int} or not _is_small(args[0]):
            return
        argument = args[0]
        if argument not in self.kept:
            self._order.append(argument)
            self.kept[argument] = key
            if len(self._order) > _MEMO_CALLS:
                self.kept.pop(self._order.popleft(), None)


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
        if not fixed or len(given) > _MEMO_ARGUMENTS or not all(map(_is_small, given)):
            raise _NotMemoised
        return compose(bind(*args, **kwargs))

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


def _is_small(value: object) -> bool:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _MEMO_LENGTH  # type: ignore[arg-type]
    return value is None or kind is bool or (kind is int and value.bit_length() <= _MEMO_BITS)  # type: ignore[attr-defined]


def _is_fixed(default: object) -> bool:
    """Whether a default's text stays what it is: else every call's key is built in full."""
    kind = type(default)
    if kind is tuple:
        return all(map(_is_fixed, default))  # type: ignore[call-overload]
    return kind in _FIXED or issubclass(kind, Enum) or default is inspect.Parameter.empty


_FIXED = frozenset({type(None), bool, int, float, str, bytes, Decimal, UUID, date, timedelta})
