"""What a setting or an option may be: each check gives the value as it is kept, or says what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from reprlib import Repr
from typing import Any, TypeAlias, cast

from nearcache.errors import ConfigError
from nearcache.protocol.codec import Codec
from nearcache.protocol.filters import KeyRing, zstd

Duration: TypeAlias = float | timedelta
"""Seconds as a number, or a timedelta."""

Ttl: TypeAlias = Duration | Callable[[Any], Duration]
"""A duration, or a function from the value to its duration."""

Check: TypeAlias = Callable[[str, Any], Any]
"""From the name and the given value to the value as it is kept.

Raises:
    ConfigError: the value is out of its range; the message names both and the way out.
"""

BUCKETS_MAX = 1024
"""L1 has as many stripes, each of which has to lie in one bucket."""
FOREVER = 10 * 365 * 86400.0
"""The longest duration taken, in seconds; longer ones are typing errors or infinities."""

BETA_MAX = 100
"""The largest factor of XFetch taken."""


LONGEST = 500
"""Characters of a value that a message repeats."""
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = LONGEST


def shown(value: object) -> str:
    """A value as a message repeats it: shortened where it is long, whatever its repr does."""
    try:
        text = _repr.repr(value)
    except Exception:  # noqa: BLE001  # an int of more digits than Python prints, or a repr of the user's that raises
        return f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def similar(name: str, known: Collection[str]) -> list[str]:
    """The name that may have been meant, if there is one."""
    import difflib  # noqa: PLC0415  # for a mistake only

    return difflib.get_close_matches(name, known, n=1)


def reject_unknown(given: Mapping[str, object], known: Mapping[str, object], what: str) -> None:
    """Raise ConfigError for a name that does not exist, and say which one may have been meant."""
    for name in given:
        if name not in known:
            near = similar(name, known)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown {what} {shown(name)}; {hint}")


def seconds(name: str, value: object) -> float:
    """A duration as float seconds, more than 0 and at most FOREVER."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(max(min(value, 2 * FOREVER), -1))  # an int may be too large for a float
    else:
        raise ConfigError(f"{name}={shown(value)}: must be seconds as a number, or a timedelta")
    if not 0 < number <= FOREVER:
        raise ConfigError(f"{name}={shown(value)}: must be more than 0 seconds and at most 10 years")
    return number


def at_least(shortest: float, why: str) -> Check:
    """A duration that is not shorter than this."""

    def check(name: str, value: object) -> float:
        number = seconds(name, value)
        if number < shortest:
            raise ConfigError(f"{name}={shown(value)}: must be at least {shortest} seconds: {why}")
        return number

    return check


staleness = at_least(0.1, "the bus is asked for a proof four times in it")
measurable = at_least(0.001, "Redis counts in milliseconds")


def optional(check: Check) -> Check:
    """The same check, but None is taken too."""
    return lambda name, value: None if value is None else check(name, value)


def ttl(name: str, value: object) -> float | Callable[[Any], Duration]:
    """A duration, or a function that gives one for each value."""
    return cast("Callable[[Any], Duration]", value) if callable(value) else seconds(name, value)


def window(name: str, value: object) -> float:
    """A duration, or 0 for none."""
    zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
    return 0.0 if zero else seconds(name, value)


def fraction(name: str, value: object) -> float:
    """From 0 to less than 1."""
    number = _number(value)
    if number is None or not 0 <= number < 1 or math.isnan(number):
        raise ConfigError(f"{name}={shown(value)}: must be a fraction, from 0 to less than 1")
    return number


def whole_or_part(name: str, value: object) -> float:
    """From 0 to 1."""
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise ConfigError(f"{name}={shown(value)}: must be a number from 0 to 1")
    return number


def part(name: str, value: object) -> float:
    """A fraction of the ttl."""
    number = _number(value)
    if number is None or not 0 < number < 1:
        raise ConfigError(f"{name}={shown(value)}: must be a fraction of the ttl, more than 0 and less than 1, or None")
    return number


def beta(name: str, value: object) -> float:
    """The factor of XFetch."""
    number = _number(value)
    if number is None or not 0 < number <= BETA_MAX:
        raise ConfigError(
            f"{name}={shown(value)}: must be more than 0 and at most {BETA_MAX}, or None; 1.0 is the paper's"
        )
    return number


def whole(low: int, high: int = 1 << 40) -> Check:
    """A whole number in a range."""

    def check(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{name}={shown(value)}: must be a whole number from {low} to {high}")
        return value

    return check


def boolean(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={shown(value)}: must be True or False")
    return value


def buckets(name: str, value: object) -> int:
    """A divisor of the number of stripes, so that each stripe lies in one bucket."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or BUCKETS_MAX % value:
        raise ConfigError(f"{name}={shown(value)}: must be a power of two from 1 to {BUCKETS_MAX}, or None")
    return value


def one_of(*words: str) -> Check:
    """One of some words."""

    def check(name: str, value: object) -> str:
        if value not in words:
            raise ConfigError(f"{name}={shown(value)}: must be one of {', '.join(map(repr, words))}")
        return str(value)

    return check


def namespace(name: str, value: object) -> str:
    """What may stand in the names of Redis."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ConfigError(f"{name}={shown(value)}: must be 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return value


def codec(name: str, value: object) -> Codec:
    """An object with encode and decode."""
    if not callable(getattr(value, "encode", None)) or not callable(getattr(value, "decode", None)):
        raise ConfigError(f"{name}={shown(value)}: must have encode(value) -> bytes and decode(bytes) -> value")
    return cast("Codec", value)


def compression(name: str, value: object) -> str:
    """A way to compress whose library is there."""
    if value != "zstd":
        raise ConfigError(f"{name}={shown(value)}: must be 'zstd', or None")
    if zstd() is None:
        raise ConfigError(f"{name}='zstd' needs Python 3.14 or the package zstandard: pip install 'nearcache[zstd]'")
    return "zstd"


def key_ring(_: str, value: Any) -> KeyRing:
    """Keys of encryption; what is wrong with them is told without them."""
    return value if isinstance(value, KeyRing) else KeyRing(value)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(max(min(value, 1e9), -1))  # out of every range here; an int may be too large for a float
