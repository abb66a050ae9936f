"""What an instance that has the setting announce tells `nearcache top`: a document in Redis that soon expires."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nearcache.engine.core import Core
from nearcache.health import Health, health_of
from nearcache.local.snapshot import STRIPES
from nearcache.protocol.names import PLACES
from nearcache.stats import Stats
from nearcache.troubles import Troubles

if TYPE_CHECKING:
    from nearcache.primaries import Primary

EVERY = 2.0
"""Seconds between two announcements; a heartbeat brings them, so at least ``max_staleness / 4``."""
LIFE = 5
"""Announcements that may fail before an instance counts as gone."""
SEARCHES = 8
"""Places that are tried at a time, when another instance has ours."""


class Announcer:
    """Announces one cache.

    Args:
        core: the cache.
        troubles: what is wrong with it.
        kind: the name of its class.
    """

    def __init__(self, core: Core, troubles: Troubles, kind: str) -> None:
        self._core, self._troubles, self._kind = core, troubles, kind
        self._id = os.urandom(16).hex().encode()
        self._place = random.randrange(PLACES)
        self._began = self._at = core.runtime.monotonic()
        self._before = core.stats()

    async def run(self) -> None:
        """Write the document; where another instance has the place, look for a free one."""
        core = self._core
        core.requests.permit()
        document = self._id + b" " + json.dumps(self._document()).encode()
        life = LIFE * max(EVERY, core.settings.max_staleness / 4)
        for _ in range(SEARCHES):
            if await core.remote.announce(self._place, self._id, document, int(life * 1000)):
                return
            self._place = random.randrange(PLACES)

    def _document(self) -> dict[str, Any]:
        core, now, stats = self._core, self._core.runtime.monotonic(), self._core.stats()
        before, seconds = self._before, max(now - self._at, 0.001)
        self._before, self._at = stats, now
        return {
            "instance": f"{socket.gethostname()}:{os.getpid()}",
            "kind": self._kind,
            "version": import_module("nearcache").__version__,  # which imports this module
            "up": round(now - self._began, 1),
            **_of_reads(stats, before, seconds),
            **_of_health(health_of(core, self._troubles)),
            "l1_entries": stats.l1_entries,
            "l1_max_entries": core.settings.l1_max_entries,
            "l1_bytes": stats.l1_bytes,
            "l1_share": min(one.tier.stripes_held for one in core.all) / STRIPES,
            "flushes": stats.flushes,
            "audit_stale": stats.audit_stale,
        }


def _of_reads(now: Stats, before: Stats, seconds: float) -> dict[str, Any]:
    """Reads a second since the last document, and the parts of them that L1 and Redis answered; None: no reads."""
    l1, l2 = now.l1_hits - before.l1_hits, now.l2_hits - before.l2_hits
    reads = l1 + l2 + now.misses - before.misses
    loads = now.loads - before.loads
    ratios = (round(l1 / reads, 4), round(l2 / reads, 4)) if reads else (None, None)
    return {
        "reads": round(reads / seconds, 1),
        "l1_ratio": ratios[0],
        "l2_ratio": ratios[1],
        "loads": round(loads / seconds, 1),
    }


def _of_health(health: Health) -> dict[str, Any]:
    return {
        "status": health.status,
        "reason": health.reason,
        "proof_age": health.proof_age,
        "propagation": health.propagation,
        "round_trip": health.round_trip,
        "journal": health.journal,
        **_of_primaries(health.primaries),
    }


def _of_primaries(primaries: Sequence[Primary]) -> dict[str, Any]:
    """Where there are several buckets: the servers that have them, how many of these are up, and what is unproven."""
    if not primaries:
        return {}
    return {
        "primaries": len(primaries),
        "primaries_up": sum(one.bus == "proven" for one in primaries),
        "buckets_unproven": sum(len(one.unproven) for one in primaries),
    }
