"""Every metric in one table, read from ``stats()`` and ``health()``: the same for Prometheus and OpenTelemetry.

No label is a key, a tag or a function, whose number has no bound. Several caches of one namespace in a process (a sync
and an async one) are one series: ``combine`` says how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from nearcache import __version__
from nearcache.base import BaseCache
from nearcache.health import Health
from nearcache.local.effects import Cause
from nearcache.primaries import Primary
from nearcache.protocol.names import PROTOCOL
from nearcache.stats import Stats

Values: TypeAlias = Mapping[tuple[str, ...], float]
"""Values by the labels behind the namespace."""
_WORDS = {"s": "_seconds", "By": "_bytes"}
"""What Prometheus puts behind a name for a unit; the others are part of the name."""


# A series that begins at 1 is no increase to Prometheus: the first flush or timeout of a process would not be seen.
_NO_FLUSHES = dict.fromkeys((cause.value for cause in Cause), 0)
_NO_ERRORS = {"timeout": 0, "connection": 0}


class Look(NamedTuple):
    """What a metric is computed from."""

    stats: Stats
    health: Health
    cache: BaseCache


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """Without prefix, unit and suffix."""
    kind: Literal["counter", "gauge"]
    help: str
    values: Callable[[Look], Values]
    labels: tuple[str, ...] = ()
    """Those behind ``namespace``."""
    unit: str = ""
    """By UCUM, as OpenTelemetry has it."""
    combine: Literal["sum", "min", "max"] = "sum"

    @property
    def prometheus(self) -> str:
        """The whole name by Prometheus' conventions.

        >>> [metric.prometheus for metric in METRICS if metric.name.startswith("load")]
        ['nearcache_loads_total', 'nearcache_load_errors_total', 'nearcache_load_duration_seconds_total']
        """
        return f"nearcache_{self.name}{_WORDS.get(self.unit, '')}{'_total' if self.kind == 'counter' else ''}"


def _one(value: float | None) -> Values:
    """A metric without labels; no series where there is no value."""
    return {} if value is None else {(): float(value)}


def _by(table: Mapping[str, float]) -> Values:
    return {(label,): float(value) for label, value in table.items()}


def _proof_age(look: Look) -> float | None:
    if look.health.bus in ("none", "idle"):
        return 0.0 if look.health.bus == "none" else None
    return math.inf if look.health.proof_age is None else look.health.proof_age


def _by_primary(look: Look, value: Callable[[Primary], float]) -> Values:
    """By the address, of which there are at most as many as buckets; one that has lost its buckets has no series."""
    return {(one.address or "unknown",): float(value(one)) for one in look.health.primaries}


def _gets(look: Look) -> Values:
    stats = look.stats
    return _by(
        {"l1_hit": stats.l1_hits, "l2_hit": stats.l2_hits, "miss": stats.misses, "stale": stats.stale_served},
    )


METRICS = (
    Metric(
        "gets",
        "counter",
        "Reads by what answered them. A stale value that serves after a failed or slow load was a miss before.",
        _gets,
        ("result",),
        "{read}",
    ),
    Metric("loads", "counter", "Loaders called.", lambda look: _one(look.stats.loads), unit="{load}"),
    Metric("load_errors", "counter", "Loaders that raised.", lambda look: _one(look.stats.load_errors), unit="{load}"),
    Metric(
        "load_duration",
        "counter",
        "Seconds that loaders took, in all.",
        lambda look: _one(look.stats.load_seconds),
        unit="s",
    ),
    Metric(
        "uncached_values",
        "counter",
        "Loaded values that could not be stored.",
        lambda look: _one(look.stats.uncached),
        unit="{value}",
    ),
    Metric(
        "l1_evictions",
        "counter",
        "Entries that left L1 for want of room.",
        lambda look: _one(look.stats.evictions),
        unit="{entry}",
    ),
    Metric(
        "fills_refused",
        "counter",
        "Values not kept because a write may have come between.",
        lambda look: _one(look.stats.fills_refused),
        unit="{value}",
    ),
    Metric(
        "invalidations",
        "counter",
        "Own writes that Redis acknowledged (sent), and messages taken from the bus (received).",
        lambda look: _by({"sent": look.stats.invalidations_sent, "received": look.stats.invalidations_received}),
        ("direction",),
        "{message}",
    ),
    Metric(
        "propagations",
        "counter",
        "Own writes whose message was timed.",
        lambda look: _one(look.stats.propagations),
        unit="{write}",
    ),
    Metric(
        "propagation",
        "counter",
        "Seconds from these writes on the server to the arrival of their messages here, in all.",
        lambda look: _one(look.stats.propagation_seconds),
        unit="s",
    ),
    Metric(
        "audited",
        "counter",
        "Entries of L1 that the audit compared with Redis (audit_fraction).",
        lambda look: _one(look.stats.audited),
        unit="{entry}",
    ),
    Metric(
        "audit_stale",
        "counter",
        "Entries among them that were stale for longer than max_staleness.",
        lambda look: _one(look.stats.audit_stale),
        unit="{entry}",
    ),
    Metric(
        "audit_stale_age",
        "counter",
        "Seconds for which these were stale, in all.",
        lambda look: _one(look.stats.audit_stale_age),
        unit="s",
    ),
    Metric(
        "flushes",
        "counter",
        "Times L1 was dropped because messages may have been missed, by reason.",
        lambda look: _by({**_NO_FLUSHES, **look.stats.flushes_by_reason}),
        ("reason",),
        "{flush}",
    ),
    Metric(
        "journalled_keys",
        "counter",
        "Keys of writes that Redis did not acknowledge.",
        lambda look: _one(look.stats.journalled),
        unit="{key}",
    ),
    Metric(
        "l2_errors",
        "counter",
        "Operations that Redis did not answer as it should, by the code of its error, or timeout or connection.",
        lambda look: _by({**_NO_ERRORS, **look.stats.l2_errors_by_code}),
        ("code",),
        "{operation}",
    ),
    Metric(
        "corrupt_values",
        "counter",
        "Records in Redis that could not be read.",
        lambda look: _one(look.stats.corrupt_values),
        unit="{value}",
    ),
    Metric(
        "unknown_types",
        "counter",
        "Records of a type that is not registered here, or has other fields here.",
        lambda look: _one(look.stats.unknown_types),
        unit="{value}",
    ),
    Metric("l1_entries", "gauge", "Entries in L1.", lambda look: _one(look.stats.l1_entries), unit="{entry}"),
    Metric(
        "l1_max_entries",
        "gauge",
        "The setting l1_max_entries.",
        lambda look: _one(look.cache.settings.l1_max_entries),
        unit="{entry}",
    ),
    Metric(
        "l1_size",
        "gauge",
        "Encoded bytes of the keys and values in L1.",
        lambda look: _one(look.stats.l1_bytes),
        unit="By",
    ),
    Metric(
        "healthy",
        "gauge",
        "1 if L1 is proven coherent, else 0; absent before the first use.",
        lambda look: _one(None if look.health.bus == "idle" else look.cache.healthy),
        combine="min",
    ),
    Metric(
        "proof_age",
        "gauge",
        "Seconds since L1 was last proven coherent, infinite if it is not; absent before the first use.",
        lambda look: _one(_proof_age(look)),
        unit="s",
        combine="max",
    ),
    Metric(
        "bus_round_trip",
        "gauge",
        "Seconds that Redis took for the last heartbeat.",
        lambda look: _one(look.health.round_trip),
        unit="s",
        combine="max",
    ),
    Metric(
        "clock_offset",
        "gauge",
        "Seconds by which Redis' clock is ahead of this process', by the last heartbeat.",
        lambda look: _one(look.health.clock_offset),
        unit="s",
        combine="max",
    ),
    Metric(
        "breaker_open",
        "gauge",
        "1 if Redis is left alone after failures, else 0.",
        lambda look: _one(look.health.breaker != "closed"),
        combine="max",
    ),
    Metric(
        "refused_operations",
        "gauge",
        "Kinds of operations that Redis refuses while it answers.",
        lambda look: _one(len(look.health.refused)),
        unit="{operation}",
        combine="max",
    ),
    Metric(
        "journal_entries",
        "gauge",
        "Writes that wait for their replay.",
        lambda look: _one(look.health.journal),
        unit="{write}",
    ),
    Metric(
        "primary_bus_down",
        "gauge",
        "With several buckets: 1 if the bus of this primary is not up for all that it has, else 0.",
        lambda look: _by_primary(look, lambda one: one.bus != "proven"),
        ("primary",),
        combine="max",
    ),
    Metric(
        "primary_buckets_unproven",
        "gauge",
        "With several buckets: how many of this primary's are not proven coherent.",
        lambda look: _by_primary(look, lambda one: len(one.unproven)),
        ("primary",),
        "{bucket}",
        combine="max",
    ),
    Metric(
        "build_info",
        "gauge",
        "1, with the release and the version of the protocol.",
        lambda _: {(__version__, PROTOCOL.decode()): 1.0},
        ("version", "protocol"),
        combine="max",
    ),
)


def look_at(cache: BaseCache) -> Look:
    """What a cache says of itself now."""
    return Look(cache.stats(), cache.health(), cache)


def read(caches: Iterable[BaseCache]) -> list[dict[tuple[str, ...], float]]:
    """The values of each metric of the table, by namespace and further labels."""
    looks = [look_at(cache) for cache in caches]
    table: list[dict[tuple[str, ...], float]] = []
    for metric in METRICS:
        combined: dict[tuple[str, ...], float] = {}
        for look in looks:
            for labels, value in metric.values(look).items():
                full = (look.cache.settings.namespace, *labels)
                before = combined.get(full)
                combined[full] = value if before is None else _COMBINE[metric.combine]((before, value))
        table.append(combined)
    return table


_COMBINE: dict[str, Callable[[tuple[float, float]], float]] = {"sum": sum, "min": min, "max": max}
