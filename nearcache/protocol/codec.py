"""Values as bytes and back. Contract: what decode returns is equal to what was encoded and of exactly its type.

That holds at any depth, and for the keys of dicts. What cannot keep the promise is refused by CodecError when it is
encoded, and bytes that encode did not write are refused by CodecError when they are decoded. Nothing is executed that
the bytes name: no pickle, no import.

The format: one byte, then msgpack.

    0x91  all that follows is plain msgpack
    0xc1  some of its arrays end with a mark, a msgpack extension of no bytes, whose code is one of types.py: such
          an array is the fields of a value of that type, so (1, 2) is [1, 2, mark 1]
    0xc5  as 0xc1, and the marks from 32 on mean registered types, which a table in front of it names: its length (2),
          then of each type a fingerprint of its fields (8), the length of its name (1) and the name

Codes are never used for something else later. Marked arrays, and not extensions with a payload, because msgpack then
packs and unpacks a tuple of tuples in one go, with one limit on depth, and not by a call of itself for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any, Protocol, TypeVar

from msgpack import unpackb  # type: ignore[import-untyped]

from nearcache.errors import CodecError, ValueTooLarge
from nearcache.protocol.annotated import register_types
from nearcache.protocol.bounds import CONTAINERS_FREE, Fields, check_memory, quick_size, survey
from nearcache.protocol.kinds import Unfit
from nearcache.protocol.packing import MARKED, PLAIN, TYPED, pack_value, shield
from nearcache.protocol.refusal import problem_in
from nearcache.protocol.registry import Mark, Types, UnknownType
from nearcache.protocol.types import MARKS, PACK_ERRORS, SCALARS, Damaged
from nearcache.protocol.unpacking import CHECKED_BYTES, no_mark, unpack, unpack_by_any_key

T = TypeVar("T")


class Codec(Protocol):
    """What turns values into bytes and back; ``Settings(codec=...)`` takes any object that has these two.

    Both are called from many threads at once. Both raise CodecError for what they cannot do.

    >>> from nearcache import NearCache
    >>> class Text:
    ...     def encode(self, value: object) -> bytes:
    ...         if type(value) is not str:
    ...             raise CodecError(f"{type(value).__name__}: only a str is cached here")
    ...         return value.encode()
    ...     def decode(self, data: bytes) -> str:
    ...         return data.decode()
    >>> cache = NearCache.from_url("memory://", codec=Text())
    >>> cache.set("user:7", "Ada"), cache.get("user:7")
    (True, 'Ada')
    """

    def encode(self, value: object) -> bytes:
        """Make bytes of a value.

        Args:
            value: what the application stores.

        Returns:
            Bytes, from which ``decode`` makes an equal value of the same type.

        Raises:
            CodecError: it can't.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """Make the value of bytes.

        Args:
            data: what ``encode`` returned, or anything that somebody wrote to Redis.

        Returns:
            The value that was encoded.

        Raises:
            CodecError: the bytes are none of ``encode``; that is a miss.
        """
        ...


@dataclass(frozen=True, slots=True)
class MsgpackCodec:
    """The default codec: strict msgpack, with the types of types.py added.

    Args:
        max_bytes: a value that would have more is refused before it is packed. A cache sets its own max_value_bytes.

    It carries None, bool, int of any size, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
    complex, Decimal, Fraction, date, time, datetime, timedelta, timezone, ZoneInfo, UUID, OrderedDict, the paths of
    pathlib and the six types of ipaddress; and the types that `register` has taken. A subclass of these is another type
    and refused, such as a defaultdict or a numpy scalar.

    >>> from datetime import date
    >>> codec = MsgpackCodec()
    >>> codec.decode(codec.encode({"when": date(2024, 2, 29), (1, 2): {b"x", 2.0}}))["when"]
    datetime.date(2024, 2, 29)
    """

    max_bytes: int = field(default=512 * 1024 * 1024, repr=False, compare=False)
    types: Types = field(default_factory=Types, repr=False, compare=False)
    """What `register` has taken."""

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
                data = pack_value(value, self.max_bytes)
            else:
                size = quick_size(value)
                if size > self.max_bytes:
                    raise ValueTooLarge(f"a value of over {self.max_bytes} bytes")
                data = pack_value(value, self.max_bytes) if size >= 0 else self._encode(value)
            if len(data) > self.max_bytes:
                raise ValueTooLarge(f"a value of {len(data)} bytes, at most {self.max_bytes}")
            if len(data) > CONTAINERS_FREE:
                body, known = self._parted(data)
                check_memory(body, known or MARKS)
        except ValueTooLarge:
            raise
        except Damaged as error:
            raise CodecError(problem_in(value, self.types) or f"the value has {error}: store it in parts") from error
        except PACK_ERRORS as error:
            changed = f"cannot encode the value: {error}; if another thread changes it, cache a copy"
            raise CodecError(problem_in(value, self.types) or changed) from error
        return data

    def _encode(self, value: object) -> bytes:
        """Encode what is more than a list or dict of scalars."""
        types, fields = self.types, Fields(self.types)
        found = survey(value, self.max_bytes, types, fields)
        if not found <= types.known and types.settle():
            found = survey(value, self.max_bytes, types, fields)
        if not found <= types.known:
            raise TypeError("a type that is not carried")
        if bytearray not in found:
            return pack_value(value, self.max_bytes, fields)
        fields.change(shield)
        return pack_value(shield(value), self.max_bytes, fields, marked=True)

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
        unknown: UnknownType | None = None
        reason = ""
        try:
            form = data[0]
            if form == PLAIN and len(data) <= CHECKED_BYTES:
                try:
                    return unpackb(data[1:], max_ext_len=0, ext_hook=no_mark)
                except ValueError:
                    return unpack_by_any_key(data[1:], self.types)
            if form == MARKED:  # a call less
                return unpack(bytes(data[1:]), MARKS, self.types)
            if form in (PLAIN, TYPED):
                return unpack(*self._parted(bytes(data)), self.types)
            reason = f"begins with 0x{form:02x}"
        except UnknownType as error:
            unknown = error
        except Exception as error:  # noqa: BLE001  # msgpack and the constructors have many ways to reject damaged bytes
            reason = str(error) if type(error) in (Damaged, Unfit) else type(error).__name__
        if unknown is not None:
            raise UnknownType(unknown.name, str(unknown))
        raise CodecError(f"not a value of this codec, or damaged ({len(data)} bytes): {reason}; delete the key")

    def _parted(self, data: bytes) -> tuple[bytes, Mapping[int, Mark] | None]:
        """The msgpack in some bytes, and what its marks mean; None: it has none."""
        if data[0] != TYPED:
            return data[1:], MARKS if data[0] == MARKED else None
        end = 3 + int.from_bytes(data[1:3], "big")
        return data[end:], self.types.table_of(data[3:end])

    def register(
        self,
        cls: type[T],
        *,
        name: str | None = None,
        encode: Callable[[T], object] | None = None,
        decode: Callable[[Any], T] | None = None,
    ) -> type[T]:
        """Let values of a type of the application's own be cached, alone and within others.

        The types of its fields are registered with it. In records it has a name and a fingerprint of its fields, their
        names and types in order: where the name is unknown or the fields are others, the value is a miss.

        Args:
            cls: a dataclass, an Enum, a named tuple, or a model of pydantic, attrs or msgspec; with ``encode`` and
                ``decode`` any class. Subclasses are types of their own.
            name: what records call it, alike in all processes; by default its module and qualified name.
            encode: makes of a value one that is carried.
            decode: makes the value again.

        Returns:
            The class, so that it may stand above a class as a decorator.

        Raises:
            ConfigError: values of this class can't be stored, or another class has the name.

        >>> from dataclasses import dataclass
        >>> codec = MsgpackCodec()
        >>> @codec.register
        ... @dataclass
        ... class User:
        ...     id: int
        ...     name: str
        >>> codec.decode(codec.encode([User(7, "Ada")]))
        [User(id=7, name='Ada')]
        >>> import re
        >>> codec.register(re.Pattern, encode=lambda found: found.pattern, decode=re.compile)
        <class 're.Pattern'>
        >>> codec.decode(codec.encode({"id": re.compile("[0-9]+")}))
        {'id': re.compile('[0-9]+')}
        """
        register_types(self.types, cls, name=name, encode=encode, decode=decode)
        return cls
