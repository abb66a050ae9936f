"""The quickest way to make a hit's own value of a decoded one: what can be changed is copied, the rest is shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeAlias

from nearcache.protocol.registry import Types
from nearcache.protocol.types import IMMUTABLE

Stored: TypeAlias = tuple[Callable[[Any], Any], Any]
"""A function and its argument: the call makes an equal value that shares nothing that can be changed."""
_FLAT: dict[type, Callable[[Any], Any]] = {list: list.copy, set: set.copy, bytearray: bytearray.copy}


def copies_of(value: Any, types: Types) -> Stored | None:
    """How copies of a value are made; None: by decoding it again, since it is of no shape that is quicker to copy.

    The shapes are a list, dict or set of immutable values, a registered value whose fields are such, and a list of
    dicts or of registered values like that. The value must be nobody else's.
    """
    kind = type(value)
    if kind is dict:
        return (dict.copy, value) if _are_immutable(chain(value, value.values()), types) else None
    if kind in types.by_type:
        fields = types.fields_of(types.by_type[kind], value)
        return (types.by_type[kind].unpack, fields) if _are_immutable(fields, types) else None
    if kind not in _FLAT:
        return None
    if kind is bytearray or _are_immutable(value, types):
        return _FLAT[kind], value
    return _rows(value, types) if kind is list else None


def _rows(rows: list[Any], types: Types) -> Stored | None:
    """A list whose items are all of one type, and none holds what can be changed."""
    kinds = set(map(type, rows))
    kind = kinds.pop()
    if kinds:
        return None
    if kind is dict:
        parts = chain(chain.from_iterable(rows), chain.from_iterable(map(dict.values, rows)))
        return (_copied, rows) if _are_immutable(parts, types) else None
    registered = types.by_type.get(kind)
    if registered is None:
        return None
    fields = [types.fields_of(registered, row) for row in rows]
    if not _are_immutable(chain.from_iterable(fields), types):
        return None
    return _made, (registered.unpack, fields)


def _copied(rows: list[dict[Any, Any]]) -> list[dict[Any, Any]]:
    return list(map(dict.copy, rows))


def _made(stored: tuple[Callable[[list[Any]], Any], list[list[Any]]]) -> list[Any]:
    unpack, fields = stored
    return list(map(unpack, fields))


def _are_immutable(items: Iterable[Any], types: Types) -> bool:
    found = [item for item in items if type(item) not in IMMUTABLE]
    return not found or all(map(types.is_immutable, found))
