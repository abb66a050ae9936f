"""msgpack as values: marked arrays become values of their types, at a bounded cost; codec.py says the format."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, time, tzinfo
from types import NoneType
from typing import Any

from msgpack import unpackb  # type: ignore[import-untyped]

from nearcache.protocol.bounds import check_memory, check_promises
from nearcache.protocol.hashing import Hashing
from nearcache.protocol.kinds import Kind
from nearcache.protocol.registry import Mark, Types
from nearcache.protocol.types import MARKS, Damaged, Extension

CHECKED_BYTES = 512
"""From so many bytes on, what they promise is checked first."""


def unpack(body: bytes, known: Mapping[int, Mark] | None, types: Types) -> Any:
    """The value that some msgpack says; ``known``: what marks mean, None: there are none."""
    if len(body) > CHECKED_BYTES:
        check_promises(body)
        check_memory(body, known or MARKS)
    # An extension with a payload, a Timestamp for one, is over max_ext_len before msgpack looks at it. The first way
    # fails if a dict has keys that are neither str nor bytes, which may collide.
    if known is None:
        try:
            return unpackb(body, max_ext_len=0, ext_hook=no_mark)
        except ValueError:
            return unpack_by_any_key(body, types)
    hashing = Hashing(len(body), types)
    try:
        return _Unmarker(hashing, known).unpack(body)
    except ValueError:
        return _Unmarker(hashing, known).unpack(body, strict_map_key=False, object_pairs_hook=hashing.dict_of)


def unpack_by_any_key(body: bytes, types: Types) -> Any:
    """A plain value in which some dict has keys that are neither str nor bytes; or damaged."""
    hashing = Hashing(len(body), types)
    return unpackb(body, strict_map_key=False, max_ext_len=0, ext_hook=no_mark, object_pairs_hook=hashing.dict_of)


def no_mark(code: int, _: bytes) -> Any:
    """Refuse an extension in a value without marks."""
    raise Damaged(f"extension {code} where there should be none")


class _Unmarker:
    """Makes values of marked arrays; every mark must be the last item of an array, or something would be lost."""

    __slots__ = ("hashing", "known", "open")

    def __init__(self, hashing: Hashing, known: Mapping[int, Mark]) -> None:
        self.open = 0
        self.hashing = hashing
        self.known = known

    def unpack(self, data: bytes, **options: Any) -> Any:
        """The value that the bytes after the first say."""
        value = unpackb(data, max_ext_len=0, ext_hook=self._mark, list_hook=self._close, **options)
        if self.open:
            raise Damaged("a mark outside the end of an array")
        return value

    def _mark(self, code: int, _: bytes) -> Mark:
        kind = self.known.get(code)
        if kind is None:
            raise Damaged(f"mark {code}, which only a newer release may know")
        self.open += 1
        return kind

    def _close(self, items: list[Any]) -> Any:
        kind = items[-1] if items else None
        if type(kind) is Extension:
            self.open -= 1
            del items[-1]
            return self._made(kind, items)
        if type(kind) is Kind:
            self.open -= 1
            del items[-1]
            return kind.unpack(items)
        return items

    def _made(self, kind: Extension, items: list[Any]) -> Any:
        """A value of the standard library's types."""
        if kind.type is tuple:
            return tuple(items)
        if kind.fields is None:
            if kind.type is OrderedDict:
                return OrderedDict(self.hashing.dict_of(list(zip(items[::2], items[1::2], strict=True))))
            return kind.type(self.hashing.set_of(items))
        found = tuple(map(type, items))
        if found not in kind.fields and not self._is_clock(kind, items, found):
            raise Damaged(f"fields that no {kind.type.__name__} has")
        return kind.unpack(*items)

    def _is_clock(self, kind: Extension, items: list[Any], found: tuple[type, ...]) -> bool:
        """Whether these are the fields of a date or a time of day, but for a time zone of a registered type."""
        bare = (*found[:-1], NoneType)
        return kind.type in _CLOCKS and bare in (kind.fields or ()) and isinstance(items[-1], tzinfo)


_CLOCKS = frozenset({time, datetime})
