"""How a cache is doing now, as a frozen object: what a health check or a dashboard asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from nearcache.advice import findings_of
from nearcache.engine.breaker import BREAKER_WORDS, BreakerWord
from nearcache.engine.bus_state import BusState, BusWord
from nearcache.engine.core import Core
from nearcache.findings import Finding
from nearcache.troubles import Troubles

if TYPE_CHECKING:
    from nearcache.primaries import Primary

Status: TypeAlias = Literal["ok", "degraded", "down"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a cache knows of itself and of Redis, without asking anybody. It holds no secret.

    Attributes:
        status: ``ok``: both tiers work, or the cache was not used yet, and nothing is known against it. ``degraded``:
            something does not work, and ``get`` goes past it: L1 is not proven, Redis is not asked or refuses
            something, writes are journalled. ``down``: L1 is not proven and Redis is not asked, so each read loads; or
            the cache is closed.
        round_trip: Seconds that Redis took for the last heartbeat; None: there was none yet.
        bus: ``none``: ``memory://`` needs none. ``idle``: not used yet. ``refused``: the server answers, but will not
            do; ``reason`` says why. ``closed``: after ``close``.
        proof_age: Seconds since the moment up to which L1 was last proven coherent; above ``max_staleness`` it serves
            nothing.
        breaker: ``closed``: Redis is asked. ``half-open``: one operation tries. ``open``: it is left alone.
        journal: Writes that wait for their replay.
        propagation: Seconds from an own write on the server to the arrival of its message here, of the newest that was
            timed; None: nothing was written here. Other instances are as far, give or take their way to the server.
        refused: Operations that Redis refuses while it answers, each with the code of its error.
        clock_offset: Seconds by which Redis' clock was ahead of ``time.time`` at the last heartbeat, at most a round
            trip too many; None: there was none yet.
        load_error: The newest error of a loader that no caller got: a stale value served, or it came in the background.
        reason: Why the status is not ``ok``, in a sentence, as far as it is known.
        primary: Host and port of the primary that the Sentinels named last; None: none was asked.
        reasons: What is wrong or may be with the set-up, as far as the cache knows: each with kind, detail and
            what to do.
        primaries: Where the cache has several buckets, as on a cluster: each server with ``address``, ``buckets``,
            ``unproven`` (those of its buckets that are not proven coherent now), ``bus``, ``breaker`` and ``reason``.
            Empty before the first use, and where there is one bucket.
    """

    status: Status
    round_trip: float | None
    bus: BusWord
    proof_age: float | None
    breaker: BreakerWord
    journal: int
    propagation: float | None = None
    refused: tuple[str, ...] = ()
    clock_offset: float | None = None
    load_error: str | None = None
    reason: str | None = field(default=None, compare=False)
    primary: str | None = None
    reasons: tuple[Finding, ...] = field(default=(), compare=False)
    primaries: tuple[Primary, ...] = ()


def _primaries_of(core: Core) -> tuple[Primary, ...]:
    if not core.parts:
        return ()
    from nearcache.primaries import primaries_of  # noqa: PLC0415  # few need it, and it takes its time to import

    return primaries_of(core)


def _clock_offset(core: Core) -> float | None:
    """The larger one where several servers have the buckets."""
    ours = time.time() - core.runtime.monotonic()
    offsets = [one.invalidation.server_offset - ours for one in core.all if one.round_trip is not None]
    return max(offsets, key=abs, default=None)


def health_of(
    core: Core, troubles: Troubles, *, closed: bool = False, shared: bool = False, primary: str | None = None
) -> Health:
    """How a cache is doing now; ``shared``: others may use its server."""
    # A loss is an event once, and each later attempt may fail for another reason.
    lost = core.bus_failure if core.bus_state is BusState.LOST else None
    primaries = _primaries_of(core)
    ill = "; ".join(f"{one}: {one.reason}" for one in primaries if one.reason is not None)
    reason = ill or lost or troubles.reason
    breakers = [one.breaker for one in core.all]
    proven_at = min(one.tier.proof.until for one in core.all) - core.settings.max_staleness
    age = max(0.0, core.runtime.monotonic() - proven_at) if abs(proven_at) != float("inf") else None
    journal = sum(len(one.tier.journal) for one in core.all)
    refused = tuple(sorted({f"{what}: {code}" for one in breakers for what, code in one.refused.items()}))
    healthy, sends = core.healthy, all(one.sends for one in breakers)
    asks = sends and not core.all[0].requests.bypassed
    unused = core.bus_state is BusState.IDLE and core.new_bus is not None
    status: Status = "ok"
    if closed or not any(one.healthy or (one.breaker.sends and not one.requests.bypassed) for one in core.all):
        status = "down"
    elif not ((healthy or unused) and asks) or journal or refused:
        status = "degraded"
    return Health(
        status=status,
        round_trip=max((one.round_trip for one in core.all if one.round_trip is not None), default=None),
        bus="closed" if closed else "none" if core.new_bus is None else core.bus_state.word,
        proof_age=age,
        breaker=max(breakers, key=lambda one: BREAKER_WORDS.index(one.word)).word,
        journal=journal,
        propagation=max((took for one in core.all if (took := one.invalidation.propagation) is not None), default=None),
        refused=refused,
        clock_offset=_clock_offset(core),
        load_error=core.loads.hidden,
        reason="the cache is closed" if closed else None if status == "ok" else reason,
        reasons=() if closed else tuple(findings_of(core, reason, shared=shared)),
        primary=primary,
        primaries=primaries,
    )
