"""Values as bytes and back. Contract: what decode returns is equal to what was encoded and of exactly its type.

That holds at any depth, and for the keys of dicts. What cannot keep the promise is refused by CodecError when it is
encoded, and bytes that encode did not write are refused by CodecError when they are decoded. Nothing is executed that
the bytes name: no pickle, no import.

The format: one byte, then msgpack.

    0x91  all that follows is plain msgpack
    0xc1  some of its arrays end with a mark, a msgpack extension of no bytes, whose code is one of extensions.py: such
          an array is the fields of a value of that type, so (1, 2) is [1, 2, mark 1]

Codes are never used for something else later. Marked arrays, and not extensions with a payload, because msgpack then
packs and unpacks a tuple of tuples in one go, with one limit on depth, and not by a call of itself for each.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from msgpack import Packer, unpackb  # type: ignore[import-untyped]

from nearcache.errors import CodecError
from nearcache.protocol.refusal import problem_in
from nearcache.protocol.types import KNOWN, MARKS, PACK_ERRORS, PACKS, SCALARS, Extension


class Codec(Protocol):
    """What turns values into bytes and back; ``Settings(codec=...)`` takes any object that has these two.

    Both are called from many threads at once. Both raise CodecError for what they cannot do.
    """

    def encode(self, value: object) -> bytes:
        """The value as bytes, from which `decode` makes an equal value of the same type."""
        ...

    def decode(self, data: bytes) -> Any:
        """The value that was encoded."""
        ...


@dataclass(frozen=True, slots=True)
class MsgpackCodec:
    """The default codec: strict msgpack, with the types of extensions.py added.

    It carries None, bool, int of any size, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
    complex, Decimal, Fraction, date, time, datetime, timedelta, timezone, ZoneInfo, UUID and the six of ipaddress.
    A subclass of these is another type and refused: a named tuple, an Enum member, an OrderedDict, a numpy scalar.

    >>> from datetime import date
    >>> codec = MsgpackCodec()
    >>> codec.decode(codec.encode({"when": date(2024, 2, 29), (1, 2): {b"x", 2.0}}))["when"]
    datetime.date(2024, 2, 29)
    """

    def encode(self, value: object) -> bytes:
        r"""Encode a value.

        Args:
            value: anything made of the types above.

        Returns:
            The bytes, in the format that the module describes.

        Raises:
            CodecError: for a value that would not come back equal and of its type; it says where in the value.

        >>> MsgpackCodec().encode([1, "a"])
        b'\x91\x92\x01\xa1a'
        >>> MsgpackCodec().encode({"a": [0, memoryview(b"x")]})
        Traceback (most recent call last):
        nearcache.errors.CodecError: value['a'][1] is a memoryview, which cannot be cached: cache bytes(...) of it
        """
        try:
            data, marked = _pack(value)
            if (
                type(value) not in SCALARS
                and (marked or len(data) > _SHORT_BYTES or data.translate(None, _HARMLESS))
                and _is_flattened(value, data, marked)
            ):
                data, marked = _pack_shielded(value), True
        except CodecError:
            raise
        except PACK_ERRORS as error:
            changed = f"cannot encode the value: {error}; if another thread changes it, cache a copy"
            raise CodecError(problem_in(value) or changed) from error
        return b"".join((b"\xc1", memoryview(data)[1:])) if marked else data

    def decode(self, data: bytes) -> Any:
        r"""Decode what `encode` returned.

        Args:
            data: those bytes.

        Returns:
            A value equal to the encoded one, of the same type, and new.

        Raises:
            CodecError: for bytes that are damaged, or that something else wrote.

        >>> MsgpackCodec().decode(b"\x91\x92\x01\xa1a")
        [1, 'a']
        >>> MsgpackCodec().decode(b"hello")
        Traceback (most recent call last):
        nearcache.errors.CodecError: not a value of this codec, or damaged (5 bytes): begins with 0x68; delete the key
        """
        try:
            form = data[0]
            if form == _PLAIN:
                # An extension with a payload, a Timestamp for one, is over max_ext_len before msgpack looks at it.
                return unpackb(data[1:], strict_map_key=False, max_ext_len=0, ext_hook=_no_mark)
            if form == _EXTENDED:
                return _Unmarker().unpack(data[1:])
            reason = f"begins with 0x{form:02x}"
        except Exception as error:  # noqa: BLE001 # msgpack and the constructors have many ways to reject damaged bytes
            reason = f"{type(error).__name__}: {error}"
        raise CodecError(f"not a value of this codec, or damaged ({len(data)} bytes): {reason}; delete the key")


# ---------------------------------------------------------------- encoding

# The array header of [value]: msgpack writes it for us, and so stops one level before its unpacker would, which sees
# the value alone. (Its two limits on depth are one apart: it packs 1025 lists and unpacks 1024.)
_PLAIN = 0x91
_EXTENDED = 0xC1  # msgpack's one unused byte

_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_KEPT_BYTES = 256 * 1024  # a Packer's buffer begins with so much, grows to its largest value and never shrinks
_SHORT_BYTES = 512


class _Marker:
    """A Packer's hook: makes marked arrays, and remembers that it did."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = False

    def __call__(self, value: object) -> list[Any]:
        pack, mark = PACKS[type(value)]
        self.called = True
        return [*pack(value), mark]


# A Packer is made in 200 ns and used in 50, but serves one call at a time: each call takes one out, and puts it back.
# Not one per thread: a finalizer may encode too, in a thread that is in the middle of encoding.
_idle: list[tuple[Callable[[object], bytes], _Marker]] = []


def _pack(value: object) -> tuple[bytes, bool]:
    """[value] as msgpack, and whether there are marks in it."""
    try:
        pack, marker = _idle.pop()
    except IndexError:
        marker = _Marker()
        pack = Packer(default=marker, strict_types=True).pack
    data = pack([value])
    marked, marker.called = marker.called, False
    if len(data) <= _KEPT_BYTES:
        _idle.append((pack, marker))
    return data, marked


# msgpack, though strict, packs bytearray and memoryview as bytes, and its own ExtType and Timestamp as extensions; no
# hook is called. Their headers are these bytes: where none of them occurs, there is nothing to look for.
_HEADERS = {0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8}
_HARMLESS = bytes(set(range(256)) - _HEADERS)
_CARRIED = KNOWN - {bytearray}


def _is_flattened(value: object, data: bytes, marked: bool) -> bool:
    """Whether msgpack packed something as another type.

    Looks at the items level by level, some 20 ns each and all in C: `gc.get_referents` gives those of lists, tuples and
    sets, the values of dicts, and their keys unless all are str. Where that is dearer, the bytes are searched first,
    some 0.5 ns each; marks are headers too. The levels come to an end, or packing the value had not.
    """
    searched = marked
    level: list[Any] = [[value]]
    while level:
        if not searched and sum(map(len, level)) * 40 > len(data):
            if not data.translate(None, _HARMLESS):
                return False
            searched = True
        below = gc.get_referents(*level)
        types = set(map(type, below))
        if not types <= _CARRIED:
            return True
        level = [] if types <= SCALARS else [item for item in below if type(item) in _CONTAINERS]
    return False


def _pack_shielded(value: object) -> bytes:
    """[value] as msgpack with marks, for a value that holds a bytearray, or something that must be refused."""
    problem = problem_in(value)
    if problem:
        raise CodecError(problem)
    return _pack(_shield(value))[0]


def _shield(value: Any) -> Any:
    """The value with each bytearray as the marked array that msgpack would not make of it."""
    kind = type(value)
    if kind is bytearray:
        pack, mark = PACKS[bytearray]
        return [*pack(value), mark]
    if kind is dict:
        return {key: _shield(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_shield, value))
    return value


# ---------------------------------------------------------------- decoding


def _no_mark(code: int, _: bytes) -> Any:
    raise ValueError(f"extension {code} where there should be none")


class _Unmarker:
    """Makes values of marked arrays; every mark must be the last item of an array, or something would be lost."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0

    def unpack(self, data: bytes) -> Any:
        """The value that the bytes after the first say."""
        value = unpackb(data, strict_map_key=False, max_ext_len=0, ext_hook=self._mark, list_hook=self._close)
        if self.open:
            raise ValueError("a mark outside the end of an array")
        return value

    def _mark(self, code: int, _: bytes) -> Extension:
        kind = MARKS.get(code)
        if kind is None:
            raise ValueError(f"mark {code}, which only a newer release may know")
        self.open += 1
        return kind

    def _close(self, items: list[Any]) -> Any:
        if not items or type(items[-1]) is not Extension:
            return items
        self.open -= 1
        kind = items.pop()
        if kind.arity is not None and kind.arity != len(items):
            raise ValueError(f"{len(items)} fields for a {kind.type.__name__}")
        return kind.unpack(*items)
