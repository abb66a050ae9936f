"""The types that values may have besides msgpack's own: how each becomes fields, and is made of them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType  # type: ignore[import-untyped]


class Extension(NamedTuple):
    """How a type becomes fields, which are values themselves, and is made of them again.

    `unpack` is called with `arity` fields, with any number if that is None. They may be anything that damaged bytes can
    say: it raises what it likes then, and runs nothing. The arity matters: date(b"....") restores a state unchecked.
    """

    code: int
    type: type[Any]
    arity: int | None
    pack: Callable[[Any], Iterable[Any]]
    unpack: Callable[..., Any]


# Malformed text raises by this context, whatever the application's own context traps; digits are never rounded.
_EXACT = Context(traps=[InvalidOperation])
_MICROSECOND = timedelta(microseconds=1)
_CLOCK = ("hour", "minute", "second", "microsecond", "fold", "tzinfo")


def _pack_int(number: int) -> Iterable[Any]:
    """An int of more than 64 bits; msgpack packs the others."""
    return (number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True),)


def _pack_timezone(zone: timezone) -> Iterable[Any]:
    """The name only if it was given one: with a name, timezone.utc would come back as another object."""
    offset, name = zone.utcoffset(None), zone.tzname(None)
    return offset // _MICROSECOND, None if name == timezone(offset).tzname(None) else name


def _unpack_timezone(microseconds: int, name: str | None) -> timezone:
    offset = timedelta(microseconds=microseconds)
    return timezone(offset) if name is None else timezone(offset, name)


def pack_zone(zone: ZoneInfo) -> Iterable[Any]:
    """Only a zone that its key alone brings back: times in two objects of one key may compare unequal (PEP 495)."""
    if zone.key is None or ZoneInfo(zone.key) is not zone:
        raise ValueError(f"ZoneInfo({zone.key!r}) is another object")
    return (zone.key,)


def _text(value: object) -> Iterable[Any]:
    return (str(value),)


EXTENSIONS = (
    Extension(1, tuple, None, iter, lambda *items: items),
    Extension(2, set, None, iter, lambda *items: set(items)),
    Extension(3, frozenset, None, iter, lambda *items: frozenset(items)),
    Extension(4, int, 1, _pack_int, lambda data: int.from_bytes(data, "big", signed=True)),
    Extension(5, bytearray, 1, lambda value: (bytes(value),), lambda data: bytearray() + data),
    Extension(6, complex, 2, attrgetter("real", "imag"), complex),
    Extension(7, Decimal, 1, _text, lambda text: Decimal(text, _EXACT)),
    Extension(8, Fraction, 2, attrgetter("numerator", "denominator"), Fraction),
    Extension(9, range, 3, attrgetter("start", "stop", "step"), range),
    Extension(10, date, 3, attrgetter("year", "month", "day"), date),
    Extension(11, time, 6, attrgetter(*_CLOCK), lambda h, m, s, us, fold, zone: time(h, m, s, us, zone, fold=fold)),
    Extension(
        12,
        datetime,
        9,
        attrgetter("year", "month", "day", *_CLOCK),
        lambda y, mon, d, h, m, s, us, fold, zone: datetime(y, mon, d, h, m, s, us, zone, fold=fold),
    ),
    Extension(13, timedelta, 3, attrgetter("days", "seconds", "microseconds"), timedelta),
    Extension(14, timezone, 2, _pack_timezone, _unpack_timezone),
    Extension(15, ZoneInfo, 1, pack_zone, ZoneInfo),
    Extension(16, UUID, 1, lambda value: (value.bytes,), lambda data: UUID(bytes=data)),
    Extension(17, IPv4Address, 1, _text, IPv4Address),
    Extension(18, IPv4Network, 1, _text, IPv4Network),
    Extension(19, IPv4Interface, 1, _text, IPv4Interface),
    Extension(20, IPv6Address, 1, _text, IPv6Address),
    Extension(21, IPv6Network, 1, _text, IPv6Network),
    Extension(22, IPv6Interface, 1, _text, IPv6Interface),
)

MARKS = {kind.code: kind for kind in EXTENSIONS}
PACKS = {kind.type: (kind.pack, ExtType(kind.code, b"")) for kind in EXTENSIONS}

PACK_ERRORS = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
SCALARS = frozenset({type(None), bool, int, float, str, bytes})
KNOWN = SCALARS | {list, dict} | PACKS.keys()
