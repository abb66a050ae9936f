"""Values that serve without a load, or in its place: past their end, or before it while they are refreshed.

RFC 5861: within ``stale_while_revalidate`` beyond its ttl a value is served while it is refreshed in the background;
within ``stale_if_error`` it is served when the load failed. Before the end, ``early_refresh`` lets the first reader
after a fraction of the ttl start a refresh, and XFetch each reader by chance: a refresh starts when

    now - load time * beta * ln(random) >= end

which is the more likely the nearer the end, and the longer the load takes (Vattani, Chierichetti, Lowenstein: Optimal
Probabilistic Cache Stampede Prevention, VLDB 2015).
"""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

from nearcache.engine.core import Core
from nearcache.local.store import Entry
from nearcache.policy import XFETCH_WINDOW, Policy
from nearcache.protocol.versions import Version


class Stale(NamedTuple):
    """A value past its end, but not older than any write that is known."""

    value: Any
    entry: Entry
    age: float
    """Seconds since its end."""
    marked: bool = False
    """Whether ``mark_stale`` ended it: then it serves only after an error."""

    def while_revalidating(self, policy: Policy) -> bool:
        """Whether it may be served while it is loaded anew."""
        return not self.marked and self.age < policy.stale_while_revalidate

    def if_error(self, policy: Policy) -> bool:
        """Whether it may be served when the load failed."""
        return policy.stale_if_error > 0 and (self.marked or self.age < policy.stale_if_error)


class Served(NamedTuple):
    """A value that answers a read at once."""

    value: Any
    older_than: Version | None
    """Refresh it in the background, by a value of a higher version than this; None: it is fresh enough."""


def fresh_entry(core: Core, key: str) -> Entry | None:
    """A fresh local entry that the fast path skips: loaded while Redis is away, or due for early refresh.

    Callers need not ask if the key has no entry, and no fallback value is used.
    """
    tier = core.tier
    now = core.runtime.monotonic()
    if tier.fallback.used:
        entry = tier.serve_loaded(key, now)
        if entry is not None:
            return entry
    entry = tier.entry(key)
    return entry if entry is not None and now < entry.expires and now < entry.proof.until else None


def look(core: Core, key: str, policy: Policy) -> Served | None:
    """A local answer that the fast path skips; None: ask L2, or the loader."""
    entry = fresh_entry(core, key)
    if entry is not None:
        core.counters.l1_hits += 1
        return Served(core.entries.value_of(entry), entry.version if due(core, key, entry, policy) else None)
    entry = core.tier.entry(key) if key in core.tier.entries else None
    if entry is None:
        return None
    now = core.runtime.monotonic()
    # Under a cap of L1's own, L2 may have it fresh. Without a proof, the loader comes before the stale value.
    if policy.l1_ttl is not None or now >= entry.proof.until:
        return None
    stale = Stale(core.entries.value_of(entry), entry, now - entry.expires)
    return serve_meanwhile(core, key, stale) if stale.while_revalidating(policy) else None


def serve_meanwhile(core: Core, key: str, stale: Stale) -> Served:
    """Serve a stale value, and refresh it unless that has just failed."""
    core.counters.stale_served += 1
    return Served(stale.value, None if backing_off(core, key) else stale.entry.version)


def due(core: Core, key: str, entry: Entry, policy: Policy) -> bool:
    """Whether a fresh value is to be refreshed now."""
    now = core.runtime.monotonic()
    if now < entry.deadline:
        return False
    if policy.xfetch_beta is not None:
        delta_beta = (entry.expires - entry.deadline) / XFETCH_WINDOW
        return now - delta_beta * math.log(1 - random.random()) >= entry.expires and not backing_off(core, key)
    if policy.early_refresh is None or backing_off(core, key):
        return False
    entry.deadline = min(entry.expires, now + policy.stale_backoff)  # until then, the fast path serves other readers
    return True


def backing_off(core: Core, key: str) -> bool:
    """Whether a load of this key has failed so lately that it is not tried again while there is a value."""
    return core.loads.backing_off(key, core.runtime.monotonic(), core.tier.snapshot(key))


def last_resort(core: Core, key: str, policy: Policy, *, away: bool) -> Stale | None:
    """The value that this process has of a key, however old, if it may serve after an error."""
    entry = core.tier.last_resort(key, away=away)
    if entry is None:
        return None
    stale = Stale(core.entries.value_of(entry), entry, core.runtime.monotonic() - entry.expires)
    return stale if stale.if_error(policy) else None
