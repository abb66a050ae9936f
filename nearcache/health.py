"""How a cache is doing now, as a frozen object: what a health check or a dashboard asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from nearcache.engine.breaker import State
from nearcache.engine.core import Core

Status: TypeAlias = Literal["ok", "degraded", "down"]
Breaker: TypeAlias = Literal["closed", "half-open", "open"]
Bus: TypeAlias = Literal["none", "idle", "connecting", "proven", "lost", "refused", "closed"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a cache knows of itself and of Redis, without asking anybody. It holds no secret."""

    status: Status
    """``ok``: both tiers work. ``degraded``: something does not, and ``get`` goes past it: L1 is not proven, writes are
    journalled, Redis refuses something. ``down``: Redis is not asked; L1 serves until its proof ends, then loaders."""
    round_trip: float | None
    """Seconds that Redis took for the last heartbeat; None: there was none yet."""
    bus: Bus
    """``none``: ``memory://`` needs none. ``idle``: not used yet. ``refused``: the server answers,
    but will not do. ``closed``: after ``close``."""
    proof_age: float | None
    """Seconds since the moment up to which L1 was last proven coherent; above ``max_staleness`` it serves nothing."""
    breaker: Breaker
    """``closed``: Redis is asked. ``half-open``: one operation tries. ``open``: it is left alone."""
    journal: int
    """Writes that wait for their replay."""
    refused: tuple[str, ...] = ()
    """Operations that Redis refuses while it answers, each with the code of its error."""


def _bus_of(core: Core) -> Bus:
    if core.new_bus is None:
        return "none"
    if core.bus_state.refused:
        return "refused"
    return cast("Bus", core.bus_state.value)


def health_of(core: Core, *, closed: bool = False) -> Health:
    """How a cache is doing now."""
    breaker, tier = core.breaker, core.tier
    proven_at = tier.proof.until - core.settings.max_staleness
    age = max(0.0, core.runtime.monotonic() - proven_at) if abs(proven_at) != float("inf") else None
    journal, refused = len(tier.journal), tuple(sorted(f"{what}: {code}" for what, code in breaker.refused.items()))
    status: Status = "ok"
    if closed or core.requests.bypassed or not breaker.sends:
        status = "down"
    elif not core.healthy or journal or refused:
        status = "degraded"
    return Health(
        status=status,
        round_trip=core.round_trip,
        bus=_bus_of(core),
        proof_age=age,
        breaker="closed" if breaker.sends else "half-open" if breaker.state is State.TRYING else "open",
        journal=journal,
        refused=refused,
    )
