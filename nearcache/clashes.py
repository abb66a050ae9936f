"""Settings that contradict each other, as one table; whether a default follows, or ConfigError names them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

from nearcache.checks import shown
from nearcache.errors import ConfigError

Settings: TypeAlias = Any
"""nearcache.settings imports this file."""


STALE_BACKOFF = 5.0
"""The default of stale_backoff, which may be given where it means nothing."""
COMPRESS_MIN_BYTES = 1024
"""The default of compress_min_bytes, the same."""


class Clash(NamedTuple):
    """Settings that contradict each other, if at least one of them was given."""

    names: tuple[str, ...]
    when: Callable[[Settings], bool]
    why: str
    follows: str = ""
    """The name whose default takes the other's value, where that was given alone."""

    def resolve(self, settings: Settings, given: Collection[str]) -> None:
        """Let the default follow what was given, if it can.

        Raises:
            ConfigError: the settings contradict each other, and none of them is a default that follows.
        """
        if not any(name in given for name in self.names) or not self.when(settings):
            return
        if self.follows and self.follows not in given:
            (other,) = set(self.names) - {self.follows}
            object.__setattr__(settings, self.follows, getattr(settings, other))
            return
        named = [
            f"{name}={shown(getattr(settings, name))}{'' if name in given else ' (the default)'}" for name in self.names
        ]
        raise ConfigError(f"{', '.join(named)}: {self.why}")


def _longer(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and first > second


def _refreshes(s: Settings) -> bool:
    return bool(s.stale_while_revalidate or s.stale_if_error or s.early_refresh is not None)


CLASHES: tuple[Clash, ...] = (
    Clash(
        ("l1_ttl", "ttl"),
        lambda s: not callable(s.ttl) and _longer(s.l1_ttl, s.ttl),
        "l1_ttl caps the freshness that ttl gives, so it must be at most ttl",
    ),
    Clash(
        ("redis_timeout", "max_staleness"),
        lambda s: s.redis_timeout > s.max_staleness,
        "a read would wait for Redis longer than L1 may be trusted: redis_timeout must be at most max_staleness",
        follows="redis_timeout",
    ),
    Clash(
        ("outage_ttl", "max_staleness"),
        lambda s: _longer(s.outage_ttl, s.max_staleness),
        "a value loaded while Redis is away hears of no write, so outage_ttl must be at most max_staleness",
    ),
    Clash(
        ("early_refresh", "xfetch_beta"),
        lambda s: s.early_refresh is not None and s.xfetch_beta is not None,
        "both say when a value is refreshed before its end: give one of them",
    ),
    Clash(
        ("stale_backoff",),
        lambda s: s.stale_backoff != STALE_BACKOFF and not _refreshes(s),
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
    Clash(
        ("compress_min_bytes",),
        lambda s: s.compress_min_bytes != COMPRESS_MIN_BYTES and s.compress is None,
        "it is the size from which values are compressed, and none is: give compress='zstd' too",
    ),
    Clash(
        ("compress_min_bytes", "max_value_bytes"),
        lambda s: s.compress is not None and s.compress_min_bytes > s.max_value_bytes,
        "no value is so large that it would be compressed: compress_min_bytes must be at most max_value_bytes",
        follows="compress_min_bytes",
    ),
)
