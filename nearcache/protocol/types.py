"""The types that values may have besides msgpack's own: how each becomes fields, and is made of them again."""

from __future__ import annotations

import os
import re
import zoneinfo
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import chain
from operator import attrgetter
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import NoneType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType  # type: ignore[import-untyped]

Fields = frozenset[tuple[type[Any], ...]]


class Damaged(ValueError):
    """Bytes that no codec wrote, or a value beyond a bound. Its text quotes nothing of them: it may be logged."""


class Extension(NamedTuple):
    """How a type becomes fields, which are values themselves, and is made of them again.

    `unpack` is called only if the exact types of the fields are among `fields`; None: any fields, given as one list.
    The constructors take much more than `pack` gives them: Fraction("1e1000000000") computes that power of ten, and
    date(b"....") restores a state unchecked. What they do with these types takes linear time, or is bounded by
    INT_BYTES, and it runs nothing.
    """

    code: int
    type: type[Any]
    fields: Fields | None
    pack: Callable[[Any], Iterable[Any]]
    unpack: Callable[..., Any]


INT_BYTES = 8 * 1024 + 1
"""The longest int: 65,536 bits, near 19,700 digits. range divides its fields, and a Decimal is compared with an int, in
quadratic time."""
_PLAIN_INT_BYTES = 8
DECIMAL_CHARS = 64 * 1024
NAME_CHARS = 255
"""Characters of an address, a time zone's key or a time zone's name."""

# Malformed text raises by this context, whatever the application's own context traps; digits are never rounded.
_EXACT = Context(traps=[InvalidOperation])
_MICROSECOND = timedelta(microseconds=1)
_CLOCK = ("hour", "minute", "second", "microsecond", "fold", "tzinfo")


def _fields(*kinds: type[Any]) -> Fields:
    return frozenset({kinds})


def _clock_fields(count: int) -> Fields:
    """The fields of a date or a time of day, and any tzinfo."""
    return frozenset((*(int,) * count, zone) for zone in (NoneType, timezone, ZoneInfo))


def _short(text: str, most: int = NAME_CHARS) -> str:
    if len(text) > most:
        raise Damaged(f"a text of {len(text)} characters, at most {most}")
    return text


def _pack_int(number: int) -> Iterable[Any]:
    """An int of more than 64 bits; msgpack packs the others."""
    size = number.bit_length() // 8 + 1
    if size > INT_BYTES:
        raise Damaged(f"an int of {size} bytes, at most {INT_BYTES}")
    return (number.to_bytes(size, "big", signed=True),)


def _unpack_int(data: bytes) -> int:
    if not _PLAIN_INT_BYTES < len(data) <= INT_BYTES:
        raise Damaged(f"an int of {len(data)} bytes")
    return int.from_bytes(data, "big", signed=True)


def _unpack_decimal(text: str) -> Decimal:
    return Decimal(_short(text, DECIMAL_CHARS), _EXACT)


def _unpack_fraction(numerator: int, denominator: int) -> Fraction:
    """Fraction(numerator, denominator) without its search for a common divisor, which takes quadratic time."""
    if denominator < 1:
        raise Damaged("a denominator below 1")
    fraction: Any = object.__new__(Fraction)
    fraction._numerator, fraction._denominator = numerator, denominator  # noqa: SLF001  # the slots of every release
    return fraction  # type: ignore[no-any-return]  # it is one


def _pack_timezone(zone: timezone) -> Iterable[Any]:
    """The name only if it was given one: with a name, timezone.utc would come back as another object."""
    offset, name = zone.utcoffset(None), zone.tzname(None)
    return offset // _MICROSECOND, None if name == timezone(offset).tzname(None) else _short(name)


def _unpack_timezone(microseconds: int, name: str | None) -> timezone:
    offset = timedelta(microseconds=microseconds)
    return timezone(offset) if name is None else timezone(offset, _short(name))


@cache
def _listed() -> frozenset[str]:
    """The keys of the tzdata package, where there is one: for systems without zones of their own."""
    from importlib import resources  # noqa: PLC0415  # nearly no system needs it

    try:
        return frozenset((resources.files("tzdata") / "zones").read_text().split())
    except (ImportError, OSError):
        return frozenset()


_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_zone_keys: set[str] = set()
"""Keys that were looked up and are there; so there are no more than zones."""


def _zone(key: str) -> ZoneInfo:
    """ZoneInfo(key) for a key that the system or the tzdata package lists.

    For any other, ZoneInfo imports packages below tzdata that the key names, and runs what it finds there.
    """
    if key not in _zone_keys:
        if not _ZONE_KEY.fullmatch(_short(key)):
            raise Damaged("no key of a time zone")
        found = any(os.path.isfile(os.path.join(root, key)) for root in zoneinfo.TZPATH)  # noqa: PTH113, PTH118  # 4x
        if not found and key not in _listed():
            raise Damaged("no time zone that this system knows")
    zone = ZoneInfo(key)
    _zone_keys.add(key)
    return zone


def pack_zone(zone: ZoneInfo) -> Iterable[Any]:
    """Only a zone that its key alone brings back: times in two objects of one key may compare unequal (PEP 495)."""
    if zone.key is None or _zone(zone.key) is not zone:
        raise ValueError(f"ZoneInfo({zone.key!r}) is another object")
    return (zone.key,)


def _text(value: object) -> Iterable[Any]:
    return (_short(str(value)),)


def _address(code: int, kind: type[Any]) -> Extension:
    return Extension(code, kind, _fields(str), _text, lambda text: kind(_short(text)))


PATH_CHARS = 4096
_PATHS: dict[int, type[Any]] = {24: PurePosixPath, 25: PureWindowsPath}
_PATHS |= {27: WindowsPath} if os.name == "nt" else {26: PosixPath}  # neither can be made on the other's systems


def _path(code: int, kind: type[Any]) -> Extension:
    return Extension(
        code,
        kind,
        _fields(str),
        lambda value: (_short(str(value), PATH_CHARS),),
        lambda text: kind(_short(text, PATH_CHARS)),
    )


EXTENSIONS = (
    Extension(1, tuple, None, iter, tuple),
    Extension(2, set, None, iter, set),
    Extension(3, frozenset, None, iter, frozenset),
    Extension(4, int, _fields(bytes), _pack_int, _unpack_int),
    Extension(5, bytearray, _fields(bytes), lambda value: (bytes(value),), bytearray),
    Extension(6, complex, _fields(float, float), attrgetter("real", "imag"), complex),
    Extension(7, Decimal, _fields(str), lambda value: (_short(str(value), DECIMAL_CHARS),), _unpack_decimal),
    Extension(8, Fraction, _fields(int, int), attrgetter("numerator", "denominator"), _unpack_fraction),
    Extension(9, range, _fields(int, int, int), attrgetter("start", "stop", "step"), range),
    Extension(10, date, _fields(int, int, int), attrgetter("year", "month", "day"), date),
    Extension(
        11,
        time,
        _clock_fields(5),
        attrgetter(*_CLOCK),
        lambda h, m, s, us, fold, zone: time(h, m, s, us, zone, fold=fold),
    ),
    Extension(
        12,
        datetime,
        _clock_fields(8),
        attrgetter("year", "month", "day", *_CLOCK),
        lambda y, mon, d, h, m, s, us, fold, zone: datetime(y, mon, d, h, m, s, us, zone, fold=fold),
    ),
    Extension(13, timedelta, _fields(int, int, int), attrgetter("days", "seconds", "microseconds"), timedelta),
    Extension(14, timezone, frozenset({(int, NoneType), (int, str)}), _pack_timezone, _unpack_timezone),
    Extension(15, ZoneInfo, _fields(str), pack_zone, _zone),
    Extension(16, UUID, _fields(bytes), lambda value: (value.bytes,), lambda data: UUID(bytes=data)),
    _address(17, IPv4Address),
    _address(18, IPv4Network),
    _address(19, IPv4Interface),
    _address(20, IPv6Address),
    _address(21, IPv6Network),
    _address(22, IPv6Interface),
    Extension(23, OrderedDict, None, lambda value: chain.from_iterable(value.items()), OrderedDict),
    *(_path(code, kind) for code, kind in _PATHS.items()),
)

MARKS = {kind.code: kind for kind in EXTENSIONS}
PACKS = {kind.type: (kind.pack, ExtType(kind.code, b"")) for kind in EXTENSIONS}

PACK_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
SCALARS = frozenset({type(None), bool, int, float, str, bytes})
CONTAINERS = frozenset({list, dict, tuple, set, frozenset, OrderedDict})
KNOWN = SCALARS | {list, dict} | PACKS.keys()
IMMUTABLE = KNOWN - CONTAINERS - {bytearray}
"""Those of which no value can be changed, whatever is in it."""
