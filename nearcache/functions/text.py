"""A value becomes a text, exact to the types."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from functools import reduce
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from nearcache.errors import UncacheableArgument
from nearcache.protocol.forms import module_of

_LONG_BITS = 2048
DEEPEST = 10_000
"""Containers inside each other that have a text: it takes the square of the time, and this takes about 0.1 s."""

_READS_AS_ANOTHER = re.compile(
    r"|None|True|False|nan|-?(inf|[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|0x[0-9a-f]+)"  # the constants and numbers
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # date and UUID
    r"|[\w.<>-]*(\(.*\)|\[.*\]|\{.*\}|'.*'|\".*\")",  # all others, and what is quoted
    re.DOTALL,
)
"""The texts that :func:`plain` gives to a value that is no str, and some more; and the empty one."""


class NoText(Exception):
    """The value has no canonical text; says what it is."""


def canonical(value: object) -> str:
    """Spell a value; two values have the same text only if they are equal and of the same types, all the way down.

    It reads like ``repr``, but the order of sets and dicts does not show, and no release of Python or of Unicode
    changes it. Exactly the types of the table below and members of an Enum have a text.

    >>> canonical([1, 1.0, True, "1", {"b": None, "a": b"x"}])
    "[1, 1.0, True, '1', {'a': b'x', 'b': None}]"
    """
    try:
        return _spell(value)
    except RecursionError:
        if type(value) not in _NEST:
            raise
    return _spell_deep(value)


def _spell(value: object) -> str:
    kind = type(value)
    spell = _SPELLINGS.get(kind)
    if spell is not None:
        return spell(value)
    if issubclass(kind, Enum):
        return _spell_member(kind, value)
    raise NoText(f"a {kind.__module__}.{kind.__qualname__}")


def quoted(value: str) -> str:
    """A str as its canonical text."""
    # Not repr: what it takes for printable depends on the release of Unicode, and with it of Python.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def plain(value: object) -> str:
    """Spell a value as one would write it by hand: a str, a date and a UUID without what tells their types.

    Still no two values have one text: a str that reads like the text of another type is quoted.

    >>> plain("ada"), plain(7), plain("7"), plain(date(2024, 1, 2))
    ('ada', '7', "'7'", '2024-01-02')
    """
    kind = type(value)
    if kind is str:
        text = str(value)
        return quoted(text) if _READS_AS_ANOTHER.fullmatch(text) else text
    return str(value) if kind is UUID or kind is date else canonical(value)


def _spell_int(value: int) -> str:
    return str(value) if value.bit_length() <= _LONG_BITS else hex(value)  # str() refuses very long ones


def _spell_all(values: Iterable[object]) -> str:
    return ", ".join(map(_spell, values))


def _spell_set(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(_spell, values)))


def _spell_tuple(value: tuple[object, ...]) -> str:
    return f"({_spell_all(value)},)" if len(value) == 1 else f"({_spell_all(value)})"


def _spell_dict(value: Mapping[object, object]) -> str:
    return "{" + ", ".join(sorted(f"{_spell(key)}: {_spell(item)}" for key, item in value.items())) + "}"


class _Spelled:
    """What stands for a part of a deep value whose text is known."""

    def __init__(self, text: str) -> None:
        self.text = text


def _spell_deep(value: Any) -> str:
    """As ``_spell``, from the inside out: what users send may be nested deeper than Python calls functions."""
    spelled: dict[int, _Spelled] = {}
    begun: set[int] = set()  # what holds the one at the end of the stack

    def known(part: object) -> object:
        return spelled.get(id(part), part)

    stack = [value]
    while stack:
        one = stack[-1]
        kind = type(one)
        parts = [*one, *one.values()] if kind is dict else one
        left = [part for part in parts if type(part) in _NEST and id(part) not in spelled]
        if left and id(one) in begun:
            raise NoText("a value that contains itself")
        if left and len(begun) >= DEEPEST:
            raise NoText("a value that is nested too deep")
        if left:
            begun.add(id(one))
            stack += left
            continue
        stack.pop()
        begun.discard(id(one))
        shallow = (
            {known(key): known(item) for key, item in one.items()}
            if kind is dict
            else cast("Any", kind)(map(known, one))
        )
        spelled[id(one)] = _Spelled(_spell(shallow))
    return spelled[id(value)].text


def _spell_clock(value: datetime | time) -> str:
    # Two instants of one wall clock, or of two zones that agree today, are different arguments.
    fold = ", fold=1" if value.fold else ""
    zone = "" if value.tzinfo is None else f", {_spell_zone(value.tzinfo)}"
    return f"{type(value).__name__}('{value.replace(tzinfo=None).isoformat()}'{zone}{fold})"


def _spell_zone(zone: tzinfo) -> str:
    if type(zone) is timezone:
        return f"timezone({canonical(zone.utcoffset(None))}, {quoted(zone.tzname(None))})"
    if type(zone) is ZoneInfo and zone.key is not None:
        return f"ZoneInfo({quoted(zone.key)})"
    raise NoText(f"a time with a {type(zone).__module__}.{type(zone).__qualname__} as tzinfo")


def _spell_member(kind: type[Enum], value: Any) -> str:
    # A class of this name elsewhere, made in a function or since replaced, would have the same texts.
    module: Any = sys.modules.get(kind.__module__)
    if reduce(lambda found, name: getattr(found, name, None), kind.__qualname__.split("."), module) is not kind:
        raise NoText(f"a member of the Enum {kind.__qualname__}, which its module does not have under this name")
    # A combination of flags need not have a name, and its name changed between releases of Python.
    inner = str(value._value_) if issubclass(kind, Flag) else quoted(value._name_)
    return f"{module_of(kind)}.{kind.__qualname__}[{inner}]"


_SPELLINGS: Mapping[type, Callable[[Any], str]] = {
    type(None): str,
    bool: str,
    int: _spell_int,
    float: repr,
    str: quoted,
    bytes: repr,
    bytearray: repr,
    complex: lambda value: f"complex({value.real}, {value.imag})",
    Decimal: lambda value: f"Decimal('{value}')",
    Fraction: lambda value: f"Fraction({_spell_int(value.numerator)}, {_spell_int(value.denominator)})",
    UUID: lambda value: f"UUID('{value}')",
    date: lambda value: f"date('{value}')",
    datetime: _spell_clock,
    time: _spell_clock,
    timedelta: lambda value: f"timedelta({value.days}, {value.seconds}, {value.microseconds})",
    range: lambda value: f"range({_spell_int(value.start)}, {_spell_int(value.stop)}, {_spell_int(value.step)})",
    tuple: _spell_tuple,
    list: lambda value: f"[{_spell_all(value)}]",
    dict: _spell_dict,
    set: lambda value: "{" + _spell_set(value) + "}" if value else "set()",
    _Spelled: lambda value: value.text,
    frozenset: lambda value: "frozenset({" + _spell_set(value) + "})" if value else "frozenset()",
    **dict.fromkeys(
        (
            ipaddress.IPv4Address,
            ipaddress.IPv4Interface,
            ipaddress.IPv4Network,
            ipaddress.IPv6Address,
            ipaddress.IPv6Interface,
            ipaddress.IPv6Network,
        ),
        lambda value: f"{type(value).__name__}('{value}')",
    ),
}


_NEST = frozenset({tuple, list, dict, set, frozenset})
"""The types that hold others."""


def explained(label: str, what: str, way_out: str, spell: Callable[[], str]) -> str:
    """The text that ``spell`` gives, or UncacheableArgument that says what has none, and what to do."""
    try:
        return spell()
    except NoText as problem:
        reason = str(problem)
    except RecursionError:
        reason = "a value that is nested too deep, or contains itself"
    raise UncacheableArgument(f"{label}: {what} is or holds {reason}, which cannot become part of a key; {way_out}")
