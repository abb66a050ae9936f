"""Values as msgpack, with marked arrays for what msgpack does not have; codec.py says the format."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from msgpack import ExtType, Packer  # type: ignore[import-untyped]

from nearcache.errors import ValueTooLarge
from nearcache.protocol.bounds import Fields
from nearcache.protocol.kinds import Kind
from nearcache.protocol.registry import FIRST_MARK, TYPES_MAX
from nearcache.protocol.types import PACKS, Damaged

# The array header of [value]: msgpack writes it for us, and so stops one level before its unpacker would, which sees
# the value alone. (Its two limits on depth are one apart: it packs 1025 lists and unpacks 1024.)
PLAIN = 0x91
MARKED = 0xC1  # msgpack's one unused byte
TYPED = 0xC5  # msgpack's head of a binary of up to 65,535 bytes, which the table is

_TEXTS = frozenset({bytes, str})
_KEPT_BYTES = 256 * 1024  # a Packer's buffer begins with so much, grows to its largest value and never shrinks


class _Marker:
    """A Packer's hook: makes marked arrays, remembers that it did, and ends a value that gets too large."""

    __slots__ = ("called", "fields", "kinds", "left")

    def __init__(self) -> None:
        self.called = False
        self.left = 0
        self.fields: Fields | None = None
        self.kinds: dict[Kind, ExtType] = {}
        """The registered types that were met, each with its mark."""

    def __call__(self, value: object) -> list[Any]:
        self.called = True
        known = PACKS.get(type(value))
        if known is None:
            kind, fields = self.fields.kind_and_fields(value)  # type: ignore[union-attr]  # scalars have no such type
            mark = self.kinds.get(kind)
            if mark is None:
                if len(self.kinds) == TYPES_MAX:
                    raise Damaged(f"over {TYPES_MAX} registered types")
                mark = self.kinds[kind] = ExtType(FIRST_MARK + len(self.kinds), b"")
            fields = [*fields]
        else:
            pack, mark = known
            fields = [*pack(value)]
        # Numbers and addresses that are shared are made bytes of at each of their places.
        self.left -= len(fields[0]) if len(fields) == 1 and type(fields[0]) in _TEXTS else len(fields)
        if self.left < 0:
            raise ValueTooLarge("a value over the limit")
        fields.append(mark)
        return fields


# A Packer is made in 200 ns and used in 50, but serves one call at a time: each call takes one out, and puts it back.
# Not one per thread: a finalizer may encode too, in a thread that is in the middle of encoding.
_idle: list[tuple[Callable[[object], bytes], _Marker]] = []


def pack_value(value: object, most: int, fields: Fields | None = None, *, marked: bool = False) -> bytes:
    """A value as bytes; ``marked``: it has marks already."""
    try:
        pack, marker = _idle.pop()
    except IndexError:
        marker = _Marker()
        pack = Packer(default=marker, strict_types=True).pack
    marker.left = most
    marker.fields = fields
    data: bytes = pack([value])
    if marked or marker.called:
        marker.called = False
        marker.fields = None
        body = memoryview(data)[1:]
        if marker.kinds:
            table = b"".join([kind.head for kind in marker.kinds])
            marker.kinds = {}
            data = b"".join((bytes((TYPED,)), len(table).to_bytes(2, "big"), table, body))
        else:
            data = b"".join((bytes((MARKED,)), body))
    if len(data) <= _KEPT_BYTES:
        _idle.append((pack, marker))
    return data


# msgpack, though strict, packs bytearray and memoryview as bytes, and its own ExtType and Timestamp as extensions; no
# hook is called. So a survey finds them first.


def shield(value: Any) -> Any:
    """The value with each bytearray as the marked array that msgpack would not make of it."""
    kind = type(value)
    if kind is bytearray:
        pack, mark = PACKS[bytearray]
        return [*pack(value), mark]
    if kind is dict or kind is OrderedDict:
        return kind((key, shield(item)) for key, item in value.items())
    if kind is list or kind is tuple:
        return kind(map(shield, value))
    return value
