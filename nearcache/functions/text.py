"""A value becomes a text, exact to the types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from nearcache.errors import UncacheableArgument

_LONG_BITS = 2048


class NoText(Exception):
    """The value has no canonical text; says what it is."""


def canonical(value: object) -> str:
    """Spell a value; two values have the same text only if they are equal and of the same types, all the way down.

    It reads like ``repr``, but the order of sets and dicts does not show, and no release of Python or of Unicode
    changes it. Exactly the types of the table below and members of an Enum have a text.

    >>> canonical([1, 1.0, True, "1", {"b": None, "a": b"x"}])
    "[1, 1.0, True, '1', {'a': b'x', 'b': None}]"
    """
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


def _spell_int(value: int) -> str:
    return str(value) if value.bit_length() <= _LONG_BITS else hex(value)  # str() refuses very long ones


def _spell_all(values: Iterable[object]) -> str:
    return ", ".join(map(canonical, values))


def _spell_set(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(canonical, values)))


def _spell_tuple(value: tuple[object, ...]) -> str:
    return f"({_spell_all(value)},)" if len(value) == 1 else f"({_spell_all(value)})"


def _spell_dict(value: Mapping[object, object]) -> str:
    return "{" + ", ".join(sorted(f"{canonical(key)}: {canonical(item)}" for key, item in value.items())) + "}"


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
    # A combination of flags need not have a name, and its name changed between releases of Python.
    inner = str(value._value_) if issubclass(kind, Flag) else quoted(value._name_)
    return f"{kind.__module__}.{kind.__qualname__}[{inner}]"


_SPELLINGS: Mapping[type, Callable[[Any], str]] = {
    type(None): str,
    bool: str,
    int: _spell_int,
    float: repr,
    str: quoted,
    bytes: repr,
    Decimal: lambda value: f"Decimal('{value}')",
    UUID: lambda value: f"UUID('{value}')",
    date: lambda value: f"date('{value}')",
    datetime: _spell_clock,
    time: _spell_clock,
    timedelta: lambda value: f"timedelta({value.days}, {value.seconds}, {value.microseconds})",
    range: lambda value: f"range({value.start}, {value.stop}, {value.step})",
    tuple: _spell_tuple,
    list: lambda value: f"[{_spell_all(value)}]",
    dict: _spell_dict,
    set: lambda value: "{" + _spell_set(value) + "}" if value else "set()",
    frozenset: lambda value: "frozenset({" + _spell_set(value) + "})" if value else "frozenset()",
}


def explained(label: str, what: str, way_out: str, spell: Callable[[], str]) -> str:
    """The text that ``spell`` gives, or UncacheableArgument that says what has none, and what to do."""
    try:
        return spell()
    except NoText as problem:
        reason = str(problem)
    except RecursionError:
        reason = "a value that is nested too deep, or contains itself"
    raise UncacheableArgument(f"{label}: {what} is or holds {reason}, which cannot become part of a key; {way_out}")
