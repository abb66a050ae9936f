"""What a running cache can tell of its set-up, as findings: from what it knows, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator

from nearcache.engine.bus_state import GRAVITY, BusState
from nearcache.engine.core import Core
from nearcache.findings import Finding
from nearcache.local.effects import Cause
from nearcache.settings import SETTINGS

CHURN = 0.1
"""L2 hits per L1 hit, above which a full L1 that evicts is too small (docs/performance.md)."""
TURNS = 3
"""How often L1 must have been filled anew before that is said."""

_REFUSALS = (("RESP2", "resp2"), ("the server is version", "too-old"), ("no Sentinel names", "sentinel"))
"""Words of a reason, and the kind that they mean."""
_STATES = {
    BusState.INCOMPATIBLE: "other-protocol",
    BusState.MISCONFIGURED: "set-up",
    BusState.REFUSED: "bus",
    BusState.LOST: "unreachable",
}
_NO_INFO = "nothing tells one server from another: INFO is denied, or two answer by turns"
LOADS = 1000
"""Loads of a function from which its cost is judged."""
TRIPS = 3
"""Round trips of a miss: the read, the lease, and the fill."""
TURNED_DOWN = 100
"""Loads of a function that keeps none of them, from which that is said."""
LARGE = 16 * 1024
"""Encoded bytes from which decoding takes some 50 µs or more."""
SAMPLE = 100


def notice(core: Core) -> None:
    """Find out what takes longer to look for than ``findings_of`` may: now and then, in the background."""
    found = {
        "large-values": _large_values(core),
        "function-cost": _function_cost(core),
        "never-stored": _turned_down(core),
    }
    for kind, detail in found.items():
        if detail is None:
            core.noticed.pop(kind, None)
        else:
            core.noticed[kind] = detail


def _large_values(core: Core) -> str | None:
    """Entries that were used lately, are large, and are decoded at each hit."""
    keys = core.tier.used_lately(SAMPLE)
    entries = {key: entry for key in keys if (entry := core.tier.entries.get(key)) is not None}
    large = {key: entry.size for key, entry in entries.items() if entry.decode is not None and entry.size > LARGE}
    if len(large) * 10 < len(entries) or not large:
        return None
    key = max(large, key=large.__getitem__)
    told = f"{len(large)} of {len(entries)} entries that were used lately are decoded at each hit"
    return f"{told}, {key!r} of {large[key]} bytes"


def _function_cost(core: Core) -> str | None:
    """A function that is quicker than what its misses cost, even if all hits of this cache were its own."""
    stats, trip = core.stats(), max(one.round_trip or 0.0 for one in core.all)
    hits = stats.l1_hits + stats.l2_hits
    for one in tuple(core.loads.functions.values()):
        mean = one.seconds / max(one.loads, 1)
        if one.loads >= LOADS and hits * mean < one.loads * TRIPS * trip:
            told = (
                f"{one.name} was loaded {one.loads} times in {mean * 1e6:.0f} µs each; a miss costs {TRIPS} round trips"
            )
            return f"{told} of {trip * 1e6:.0f} µs, and {hits} hits in all save less, even if all were its own"
    return None


def _turned_down(core: Core) -> str | None:
    """A function none of whose values is stored."""
    for one in tuple(core.loads.functions.values()):
        if one.loads >= TURNED_DOWN and not one.kept:
            told = f"none of the {one.loads} values that {one.name} gave was stored"
            return f"{told}: too large, of no type that the codec carries, or turned down"
    return None


def kind_of(reason: str, otherwise: str) -> str:
    """The kind of a trouble, by its words."""
    return next((kind for text, kind in _REFUSALS if text in reason), otherwise)


def findings_of(core: Core, reason: str, *, shared: bool) -> Iterator[Finding]:
    """What is wrong with a cache now, or may be.

    Args:
        core: the cache.
        reason: the gravest trouble, in a sentence.
        shared: whether others may use its server.
    """
    if core.parts:
        yield from _findings_of_primaries(core)
    else:
        yield from _findings_of_server(core, "", reason)
        if core.bus_state is BusState.PROVEN and core.invalidation.identity is None:
            yield Finding("no-info", _NO_INFO)
    if shared and core.settings.namespace == SETTINGS["namespace"].default:
        yield Finding("default-namespace", f"the namespace is {core.settings.namespace!r}, as of all who name none")
    stats, most = core.stats(), core.settings.l1_max_entries
    if stats.evictions > TURNS * most and stats.l2_hits > CHURN * stats.l1_hits:
        detail = f"{stats.evictions} evictions, and {stats.l2_hits} reads of Redis beside {stats.l1_hits} hits"
        yield Finding("l1-churn", f"{detail}, with l1_max_entries={most}")
    if stats.uncached and "never-stored" not in core.noticed:
        yield Finding("never-stored", f"{stats.uncached} loaded values could not be stored; LoadFailed names whose")
    lost = stats.flushes_by_reason.get(Cause.COUNTER.value, 0)
    if lost > 1:
        yield Finding("evicting-policy", f"the counter of the namespace was lost {lost} times while the server went on")
    late, timeouts = sum(one.requests.batch_timeouts for one in core.all), stats.l2_errors_by_code.get("timeout", 0)
    if late > 1 and late > timeouts / 2:
        detail = f"{late} of {timeouts} timeouts were of requests for several keys"
        yield Finding("large-batches", f"{detail}, such as {max(one.requests.batch_size for one in core.all)}")
    for kind, detail in tuple(core.noticed.items()):
        yield Finding(kind, detail)


def _findings_of_primaries(core: Core) -> Iterator[Finding]:
    """What is wrong with each server of a cache of several buckets."""
    from nearcache.primaries import primaries_of  # noqa: PLC0415  # few need it, and it takes its time to import

    for primary in primaries_of(core):
        parts = [core.parts[bucket] for bucket in primary.buckets]
        worst = min(parts, key=lambda part: (GRAVITY.index(part.bus_state), part.requests.denied is None))
        yield from _findings_of_server(worst, f"{primary}: ", worst.bus_failure or "")
        if worst.bus_state is BusState.PROVEN and any(part.invalidation.identity is None for part in parts):
            yield Finding("no-info", f"{primary}: {_NO_INFO}")


def _findings_of_server(core: Core, whose: str, reason: str) -> Iterator[Finding]:
    """What is wrong with the bus or the rights; ``whose``: what stands before the detail."""
    if core.bus_state in _STATES:
        yield Finding(kind_of(reason, _STATES[core.bus_state]), f"{whose}{reason}")
    if core.requests.denied is not None:
        yield Finding("rights", f"{whose}{core.requests.denied}")
