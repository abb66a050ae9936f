"""Values as bytes and back. Contract: what decode returns is equal to what was encoded and of exactly its type.

That holds at any depth, and for the keys of dicts. What cannot keep the promise is refused by CodecError when it is
encoded, and bytes that encode did not write are refused by CodecError when they are decoded. Nothing is executed that
the bytes name: no pickle, no import.

The format: one byte, then msgpack.

    0x91  all that follows is plain msgpack
    0xc1  some of its arrays end with a mark, a msgpack extension of no bytes, whose code is one of types.py: such
          an array is the fields of a value of that type, so (1, 2) is [1, 2, mark 1]

Codes are never used for something else later. Marked arrays, and not extensions with a payload, because msgpack then
packs and unpacks a tuple of tuples in one go, with one limit on depth, and not by a call of itself for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any, Protocol

from msgpack import Packer, unpackb  # type: ignore[import-untyped]

from nearcache.errors import CodecError, ValueTooLarge
from nearcache.protocol.bounds import CONTAINERS_FREE, Hashing, check_memory, check_promises, flat_size, survey
from nearcache.protocol.refusal import problem_in
from nearcache.protocol.types import KNOWN, MARKS, PACK_ERRORS, PACKS, SCALARS, Damaged, Extension


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
    """The default codec: strict msgpack, with the types of types.py added.

    Args:
        max_bytes: a value that would have more is refused before it is packed. A cache sets its own max_value_bytes.

    It carries None, bool, int of any size, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
    complex, Decimal, Fraction, date, time, datetime, timedelta, timezone, ZoneInfo, UUID and the six of ipaddress.
    A subclass of these is another type and refused: a named tuple, an Enum member, an OrderedDict, a numpy scalar.

    >>> from datetime import date
    >>> codec = MsgpackCodec()
    >>> codec.decode(codec.encode({"when": date(2024, 2, 29), (1, 2): {b"x", 2.0}}))["when"]
    datetime.date(2024, 2, 29)
    """

    max_bytes: int = field(default=512 * 1024 * 1024, repr=False, compare=False)

    def encode(self, value: object) -> bytes:
        r"""Encode a value.

        Args:
            value: anything made of the types above.

        Returns:
            The bytes, in the format that the module describes.

        Raises:
            CodecError: for a value that would not come back equal and of its type; it says where in the value.
            ValueTooLarge: for one of over ``max_bytes`` bytes.

        >>> MsgpackCodec().encode([1, "a"])
        b'\x91\x92\x01\xa1a'
        >>> MsgpackCodec().encode({"a": [0, memoryview(b"x")]})
        Traceback (most recent call last):
        nearcache.errors.CodecError: value['a'][1] is a memoryview, which cannot be cached: cache bytes(...) of it
        """
        try:
            if type(value) in SCALARS:
                if length_hint(value) > self.max_bytes:
                    raise ValueTooLarge(f"a value of over {self.max_bytes} bytes")
                data, marked = _pack(value, self.max_bytes)
            else:
                size = flat_size(value)
                if size > self.max_bytes:
                    raise ValueTooLarge(f"a value of over {self.max_bytes} bytes")
                types = survey(value, self.max_bytes) if size < 0 else SCALARS
                if not types <= KNOWN:
                    raise TypeError("a type that is not carried")
                shielded = bytearray in types
                data, marked = _pack(_shield(value) if shielded else value, self.max_bytes)
                marked |= shielded
            if len(data) > self.max_bytes:
                raise ValueTooLarge(f"a value of {len(data)} bytes, at most {self.max_bytes}")
            if len(data) > CONTAINERS_FREE:
                check_memory(data)
        except ValueTooLarge:
            raise
        except Damaged as error:
            raise CodecError(problem_in(value) or f"the value has {error}: store it in parts") from error
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
            if form == _PLAIN and len(data) <= _CHECKED_BYTES:
                try:
                    return unpackb(data[1:], max_ext_len=0, ext_hook=_no_mark)
                except ValueError:
                    return _decode_by_any_key(data[1:])
            if form in (_PLAIN, _EXTENDED):
                return _decode(bytes(data[1:]), marked=form == _EXTENDED)
            reason = f"begins with 0x{form:02x}"
        except Exception as error:  # noqa: BLE001 # msgpack and the constructors have many ways to reject damaged bytes
            reason = str(error) if type(error) is Damaged else type(error).__name__
        raise CodecError(f"not a value of this codec, or damaged ({len(data)} bytes): {reason}; delete the key")


# ---------------------------------------------------------------- encoding

# The array header of [value]: msgpack writes it for us, and so stops one level before its unpacker would, which sees
# the value alone. (Its two limits on depth are one apart: it packs 1025 lists and unpacks 1024.)
_PLAIN = 0x91
_EXTENDED = 0xC1  # msgpack's one unused byte

_TEXTS = frozenset({bytes, str})
_KEPT_BYTES = 256 * 1024  # a Packer's buffer begins with so much, grows to its largest value and never shrinks


class _Marker:
    """A Packer's hook: makes marked arrays, remembers that it did, and ends a value that gets too large."""

    __slots__ = ("called", "left")

    def __init__(self) -> None:
        self.called = False
        self.left = 0

    def __call__(self, value: object) -> list[Any]:
        pack, mark = PACKS[type(value)]
        self.called = True
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


def _pack(value: object, most: int) -> tuple[bytes, bool]:
    """[value] as msgpack, and whether there are marks in it."""
    try:
        pack, marker = _idle.pop()
    except IndexError:
        marker = _Marker()
        pack = Packer(default=marker, strict_types=True).pack
    marker.left = most
    data = pack([value])
    marked, marker.called = marker.called, False
    if len(data) <= _KEPT_BYTES:
        _idle.append((pack, marker))
    return data, marked


# msgpack, though strict, packs bytearray and memoryview as bytes, and its own ExtType and Timestamp as extensions; no
# hook is called. So a survey finds them first.


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


_CHECKED_BYTES = 512
"""From so many bytes on, what they promise is checked first."""


def _decode(body: bytes, *, marked: bool) -> Any:
    """The value that the bytes after the first say."""
    if len(body) > _CHECKED_BYTES:
        check_promises(body)
        check_memory(body)
    # An extension with a payload, a Timestamp for one, is over max_ext_len before msgpack looks at it. The first way
    # fails if a dict has keys that are neither str nor bytes, which may collide.
    if not marked:
        try:
            return unpackb(body, max_ext_len=0, ext_hook=_no_mark)
        except ValueError:
            return _decode_by_any_key(body)
    hashing = Hashing(len(body))
    try:
        return _Unmarker(hashing).unpack(body)
    except ValueError:
        return _Unmarker(hashing).unpack(body, strict_map_key=False, object_pairs_hook=hashing.dict_of)


def _decode_by_any_key(body: bytes) -> Any:
    """A plain value in which some dict has keys that are neither str nor bytes; or damaged."""
    hashing = Hashing(len(body))
    return unpackb(body, strict_map_key=False, max_ext_len=0, ext_hook=_no_mark, object_pairs_hook=hashing.dict_of)


def _no_mark(code: int, _: bytes) -> Any:
    raise Damaged(f"extension {code} where there should be none")


class _Unmarker:
    """Makes values of marked arrays; every mark must be the last item of an array, or something would be lost."""

    __slots__ = ("hashing", "open")

    def __init__(self, hashing: Hashing) -> None:
        self.open = 0
        self.hashing = hashing

    def unpack(self, data: bytes, **options: Any) -> Any:
        """The value that the bytes after the first say."""
        value = unpackb(data, max_ext_len=0, ext_hook=self._mark, list_hook=self._close, **options)
        if self.open:
            raise Damaged("a mark outside the end of an array")
        return value

    def _mark(self, code: int, _: bytes) -> Extension:
        kind = MARKS.get(code)
        if kind is None:
            raise Damaged(f"mark {code}, which only a newer release may know")
        self.open += 1
        return kind

    def _close(self, items: list[Any]) -> Any:
        if not items or type(items[-1]) is not Extension:
            return items
        self.open -= 1
        kind = items.pop()
        if kind.fields is None:
            return tuple(items) if kind.type is tuple else kind.type(self.hashing.set_of(items))
        if tuple(map(type, items)) not in kind.fields:
            raise Damaged(f"fields that no {kind.type.__name__} has")
        return kind.unpack(*items)
