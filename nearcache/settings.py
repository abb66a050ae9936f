"""Settings: every knob, checked once, frozen. Durations are float seconds inside, whatever came in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, cast

from nearcache.errors import ConfigError
from nearcache.protocol.codec import Codec, MsgpackCodec

Duration: TypeAlias = float | timedelta
"""Seconds as a number, or a timedelta."""

Ttl: TypeAlias = Duration | Callable[[Any], Duration]
"""A duration, or a function from the value to its duration."""

FOREVER = 10 * 365 * 86400.0
"""The longest duration taken, in seconds; longer ones are typing errors or infinities."""

BETA_MAX = 100
"""The largest factor of XFetch taken."""


class SettingsOptions(TypedDict, total=False):
    """Every setting as an optional keyword; a test holds it equal to :class:`Settings`."""

    namespace: str
    ttl: Ttl
    l1_ttl: Duration | None
    l1_max_entries: int
    l1_max_bytes: int | None
    eviction: Literal["lru", "s3fifo"]
    jitter: float
    negative_ttl: Duration | None
    stale_while_revalidate: Duration
    stale_if_error: Duration
    stale_backoff: Duration
    early_refresh: float | None
    xfetch_beta: float | None
    loader_soft_timeout: Duration | None
    loader_hard_timeout: Duration | None
    lease: Duration
    wait_timeout: Duration | None
    max_concurrent_loads: int
    outage_ttl: Duration | None
    max_staleness: Duration
    redis_timeout: Duration
    redis_connect_timeout: Duration
    max_connections: int
    retries: int
    breaker_failures: int
    breaker_reset: Duration
    reconnect_max: Duration
    on_unavailable: Literal["degrade", "raise"]
    journal_max: int
    copy: Literal["none", "serialized"]
    codec: Codec
    max_key_bytes: int
    max_value_bytes: int
    on_reconnect: Literal["prove", "flush"]


@dataclass(frozen=True, slots=True, init=False, kw_only=True)
class Settings:
    """All settings of a cache, frozen; durations in seconds.

    Args:
        **given: any of the fields below; what is absent has its default.

    Raises:
        ConfigError: for an unknown name, a value out of its range, or two settings that contradict each other.

    >>> Settings(ttl=60).ttl
    60.0
    >>> Settings(ttl=-1)
    Traceback (most recent call last):
    nearcache.errors.ConfigError: ttl=-1: must be more than 0 seconds and at most 10 years
    """

    namespace: str = "nearcache"
    ttl: float | Callable[[Any], Duration] = 300.0
    l1_ttl: float | None = None
    l1_max_entries: int = 10_000
    l1_max_bytes: int | None = None
    eviction: Literal["lru", "s3fifo"] = "lru"
    jitter: float = 0.05
    negative_ttl: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    stale_backoff: float = 5.0
    early_refresh: float | None = None
    xfetch_beta: float | None = None
    loader_soft_timeout: float | None = None
    loader_hard_timeout: float | None = None
    lease: float = 10.0
    wait_timeout: float | None = None
    max_concurrent_loads: int = 32
    outage_ttl: float | None = None
    max_staleness: float = 2.0
    redis_timeout: float = 0.25
    redis_connect_timeout: float = 1.0
    max_connections: int = 32
    retries: int = 3
    breaker_failures: int = 3
    breaker_reset: float = 1.0
    reconnect_max: float = 0.5
    on_unavailable: Literal["degrade", "raise"] = "degrade"
    journal_max: int = 10_000
    copy: Literal["none", "serialized"] = "none"
    codec: Codec = MsgpackCodec()
    max_key_bytes: int = 1024
    max_value_bytes: int = 8 * 1024 * 1024
    on_reconnect: Literal["prove", "flush"] = "prove"

    def __init__(self, **given: Unpack[SettingsOptions]) -> None:
        chosen = cast("dict[str, Any]", given)
        reject_unknown(chosen, DEFAULTS, "setting")
        for name, default in DEFAULTS.items():
            value = CHECKS[name](name, chosen[name]) if name in chosen else default
            object.__setattr__(self, name, value)
        for clash in CLASHES:
            if all(name in chosen for name in clash.names) and clash.when(self):
                raise ConfigError(f"{clash.show(self)}: {clash.why}")

    @property
    def outage_life(self) -> float:
        """For how long a value is kept that was loaded while Redis is away, in seconds: never beyond max_staleness."""
        return self.max_staleness if self.outage_ttl is None else min(self.outage_ttl, self.max_staleness)


def reject_unknown(given: Mapping[str, object], known: Mapping[str, object], what: str) -> None:
    """Raise ConfigError for a name that does not exist, and say which one may have been meant."""
    for name in given:
        if name not in known:
            import difflib  # noqa: PLC0415  # for a mistake only

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
            raise ConfigError(f"unknown {what} {name!r}; {hint}")


def seconds(name: str, value: object) -> float:
    """A duration as float seconds, more than 0 and at most FOREVER."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(max(min(value, 2 * FOREVER), -1))  # an int may be too large for a float
    else:
        raise ConfigError(f"{name}={value!r}: must be seconds as a number, or a timedelta")
    if not 0 < number <= FOREVER:
        raise ConfigError(f"{name}={value!r}: must be more than 0 seconds and at most 10 years")
    return number


def check_ttl(name: str, value: object) -> float | Callable[[Any], Duration]:
    """A duration, or a function that gives one for each value."""
    return cast("Callable[[Any], Duration]", value) if callable(value) else seconds(name, value)


def check_negative_ttl(name: str, value: object) -> float | None:
    """None: as ttl. 0: a None is not cached. Else a duration."""
    return None if value is None else check_window(name, value)


def check_window(name: str, value: object) -> float:
    """A duration, or 0 for none."""
    zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
    return 0.0 if zero else seconds(name, value)


def check_part(name: str, value: object) -> float | None:
    """None, or a fraction of the ttl."""
    number = None if value is None else _number(value)
    if value is not None and (number is None or not 0 < number < 1):
        raise ConfigError(f"{name}={value!r}: must be a fraction of the ttl, more than 0 and less than 1, or None")
    return number


def check_beta(name: str, value: object) -> float | None:
    """None, or the factor of XFetch."""
    number = None if value is None else _number(value)
    if value is not None and (number is None or not 0 < number <= BETA_MAX):
        raise ConfigError(f"{name}={value!r}: must be more than 0 and at most {BETA_MAX}, or None; 1.0 is the paper's")
    return number


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def optional_seconds(name: str, value: object) -> float | None:
    """None, or a duration."""
    return None if value is None else seconds(name, value)


def _whole(low: int, high: int = 1 << 40) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{name}={value!r}: must be a whole number from {low} to {high}")
        return value

    return check


def _optional_whole(low: int) -> Callable[[str, object], int | None]:
    whole = _whole(low)
    return lambda name, value: None if value is None else whole(name, value)


def _one_of(*words: str) -> Callable[[str, object], str]:
    def check(name: str, value: object) -> str:
        if value not in words:
            raise ConfigError(f"{name}={value!r}: must be one of {', '.join(map(repr, words))}")
        return str(value)

    return check


def _fraction(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1 or math.isnan(value):
        raise ConfigError(f"{name}={value!r}: must be a fraction, from 0 to less than 1")
    return float(value)


def _namespace(name: str, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ConfigError(f"{name}={value!r}: must be 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return value


def _codec(name: str, value: object) -> Codec:
    if not callable(getattr(value, "encode", None)) or not callable(getattr(value, "decode", None)):
        raise ConfigError(f"{name}={value!r}: must have encode(value) -> bytes and decode(bytes) -> value")
    return cast("Codec", value)


class Clash(NamedTuple):
    """Two settings that, both given, contradict each other."""

    names: tuple[str, ...]
    when: Callable[[Settings], bool]
    why: str

    def show(self, settings: Settings) -> str:
        """The settings as the user would write them."""
        return ", ".join(f"{name}={getattr(settings, name)!r}" for name in self.names)


CHECKS: Mapping[str, Callable[[str, Any], object]] = {
    "namespace": _namespace,
    "ttl": check_ttl,
    "l1_ttl": optional_seconds,
    "l1_max_entries": _whole(1),
    "l1_max_bytes": _optional_whole(1),
    "eviction": _one_of("lru", "s3fifo"),
    "jitter": _fraction,
    "negative_ttl": check_negative_ttl,
    "stale_while_revalidate": check_window,
    "stale_if_error": check_window,
    "stale_backoff": seconds,
    "early_refresh": check_part,
    "xfetch_beta": check_beta,
    "loader_soft_timeout": optional_seconds,
    "loader_hard_timeout": optional_seconds,
    "lease": seconds,
    "wait_timeout": optional_seconds,
    "max_concurrent_loads": _whole(1, 10_000),
    "outage_ttl": optional_seconds,
    "max_staleness": seconds,
    "redis_timeout": seconds,
    "redis_connect_timeout": seconds,
    "max_connections": _whole(1, 10_000),
    "retries": _whole(0, 100),
    "breaker_failures": _whole(1),
    "breaker_reset": seconds,
    "reconnect_max": seconds,
    "on_unavailable": _one_of("degrade", "raise"),
    "journal_max": _whole(1),
    "copy": _one_of("none", "serialized"),
    "codec": _codec,
    "max_key_bytes": _whole(1, 64 * 1024 - 1),  # lengths of names have two bytes
    "max_value_bytes": _whole(1, 512 * 1024 * 1024),
    "on_reconnect": _one_of("prove", "flush"),
}


def _longer(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and first > second


CLASHES: tuple[Clash, ...] = (
    Clash(
        ("l1_ttl", "ttl"),
        lambda s: s.l1_ttl is not None and not callable(s.ttl) and s.l1_ttl > s.ttl,
        "l1_ttl caps the freshness that ttl gives, so it must be at most ttl",
    ),
    Clash(
        ("redis_timeout", "max_staleness"),
        lambda s: s.redis_timeout > s.max_staleness,
        "a read would wait for Redis longer than L1 may be trusted: redis_timeout must be at most max_staleness",
    ),
    Clash(
        ("outage_ttl", "max_staleness"),
        lambda s: _longer(s.outage_ttl, s.max_staleness),
        "what is loaded while Redis is away hears of no write, so outage_ttl must be at most max_staleness",
    ),
    Clash(
        ("early_refresh", "xfetch_beta"),
        lambda s: s.early_refresh is not None and s.xfetch_beta is not None,
        "both say when a value is refreshed before its end: give one of them",
    ),
    Clash(
        ("stale_backoff",),
        lambda s: (
            s.stale_backoff != DEFAULTS["stale_backoff"]
            and not s.stale_while_revalidate
            and not s.stale_if_error
            and s.early_refresh is None
        ),
        "it is the pause after a refresh that failed, and there is none without stale_while_revalidate, stale_if_error "
        "or early_refresh: give one of them too",
    ),
    Clash(
        ("loader_soft_timeout",),
        lambda s: s.loader_soft_timeout is not None and not s.stale_if_error,
        "it serves the stale value of a load that takes longer: give stale_if_error too, or loader_hard_timeout alone",
    ),
    Clash(
        ("loader_soft_timeout", "loader_hard_timeout"),
        lambda s: _longer(s.loader_soft_timeout, s.loader_hard_timeout),
        "the hard timeout would always come first: loader_soft_timeout must be at most loader_hard_timeout",
    ),
)

# With slots the class attribute is a descriptor, so the defaults are read from the fields.
DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(Settings)}
