"""What a running cache can tell of its set-up, as findings: from what it knows, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator

from nearcache.engine.bus_state import BusState
from nearcache.engine.core import Core
from nearcache.findings import Finding
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
    if core.bus_state in _STATES:
        yield Finding(kind_of(reason, _STATES[core.bus_state]), reason)
    if core.requests.denied is not None:
        yield Finding("rights", core.requests.denied)
    if core.bus_state is BusState.PROVEN and core.invalidation.identity is None:
        yield Finding("no-info", "nothing tells one server from another: INFO is denied, or two answer by turns")
    if shared and core.settings.namespace == SETTINGS["namespace"].default:
        yield Finding("default-namespace", f"the namespace is {core.settings.namespace!r}, as of all who name none")
    stats, most = core.stats(), core.settings.l1_max_entries
    if stats.evictions > TURNS * most and stats.l2_hits > CHURN * stats.l1_hits:
        detail = f"{stats.evictions} evictions, and {stats.l2_hits} reads of Redis beside {stats.l1_hits} hits"
        yield Finding("l1-churn", f"{detail}, with l1_max_entries={most}")
    if stats.uncached:
        yield Finding("never-stored", f"{stats.uncached} loaded values could not be stored; LoadFailed names whose")
