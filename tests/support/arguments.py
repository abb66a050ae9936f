"""Functions, and arguments of every type, whose calls have keys."""

from __future__ import annotations

import enum
import math
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

HERE = __name__


class Colour(enum.Enum):
    """A plain enumeration, with an alias."""

    RED = 1
    GREEN = 2
    CRIMSON = 1  # noqa: PIE796  # an alias is what is tested


class Weight(enum.IntEnum):
    """Members are equal to ints."""

    ONE = 1


class Word(enum.StrEnum):
    """Members are equal to strs."""

    RED = "RED"


class Access(enum.Flag):
    """Members combine."""

    READ = 1
    WRITE = 2


class User:
    """Something with an id, and without a text of its own."""

    def __init__(self, id: Any) -> None:  # noqa: A002  # the name that people use
        self.id = id


class Zone(tzinfo):
    """A time zone of somebody's own."""

    def utcoffset(self, _when: datetime | None) -> timedelta:
        """Nothing."""
        return timedelta(0)

    def dst(self, _when: datetime | None) -> None:
        """Nothing is known."""

    def tzname(self, _when: datetime | None) -> None:
        """Nothing is known."""


Point = namedtuple("Point", "x y")  # noqa: PYI024  # a subclass of tuple is what is tested


NAIVE = datetime(2024, 1, 2)  # noqa: DTZ001  # naive is what is tested


# Each is another argument than every other, however alike or equal they are.
DISTINCT = [
    *(None, True, False, 1, 0, -1, 1.0, 0.0, -0.0, math.inf, math.nan, 10**5000),
    *("-1", "nan", "inf", "-inf", "1e+22", 1e22, "0x1", "2024-1-2", "Decimal('1')"),
    *("1", "True", "None", "", "'", "\\", "\\'", "a', 'b", "1.0", "é", "\ud800", "\n"),
    *(b"1", b"", b"'", bytearray(b"1"), bytearray()),
    *(1j, complex(0, -0.0), complex(-0.0, 1), Fraction(1, 3), Fraction(1), "1/3", "1j"),
    *map(ip_address, ("127.0.0.1", "::1", "fe80::1%eth0")),
    *(IPv4Interface("10.0.0.1/32"), IPv4Network("10.0.0.1/32"), IPv6Interface("::1"), IPv6Network("::1"), "127.0.0.1"),
    *(Decimal(1), Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("NaN")),
    *((), (1,), (True,), (1.0,), ((1,),), (1, 2), ("a', 'b",), ("a", "b"), ("a, b",)),
    *([], [1], [True], [[1]], [1, 2]),
    *(set(), frozenset(), {1}, {True}, {"1"}, frozenset({1}), frozenset({True}), {(1, 2)}),
    *({}, {1: 2}, {True: 2}, {1: True}, {"1": 2}, {"a": {"b": 1}}, {"a": {"b": True}}),
    *(range(3), range(1, 3), range(0, 3, 2)),
    *(Colour.RED, Colour.GREEN, Weight.ONE, Word.RED, "RED", Access.READ, Access.WRITE, Access.READ | Access.WRITE),
    *(UUID(int=1), str(UUID(int=1)), date(2024, 1, 2), "2024-01-02", timedelta(1), timedelta(0, 1)),
    *(NAIVE, NAIVE.replace(fold=1), NAIVE.replace(microsecond=1), NAIVE.replace(tzinfo=UTC)),
    *(
        NAIVE.replace(tzinfo=zone)
        for zone in (ZoneInfo("UTC"), timezone(timedelta(0), "Z"), timezone(timedelta(hours=1)))
    ),
    *(time(1, 2), time(1, 2, tzinfo=UTC), time(1, 2, fold=1), "01:02:00"),
]


WRAPS: list[Callable[[Any], Any]] = [lambda value: (value,), lambda value: [value], lambda value: {0: value}]


def anything(value: Any) -> None:
    """Take one argument."""


def user(id: Any, *, full: Any = False) -> None:  # noqa: A002  # as in the documentation
    """Take two arguments."""


def many(first: Any = 0, *rest: Any, **named: Any) -> None:
    """Take any arguments."""


def page(tenant: Any, path: Any) -> None:
    """Take the two parts of a key."""
