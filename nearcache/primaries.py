"""The servers of a cache of several buckets, as frozen objects: which of them has what, and how it is doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nearcache.engine.breaker import BreakerWord
from nearcache.engine.buckets import address_of
from nearcache.engine.bus_state import GRAVITY, BusState, BusWord
from nearcache.engine.core import Core


@dataclass(frozen=True, kw_only=True)
class Primary:
    """A server that has some of the buckets, as far as this instance knows it.

    Attributes:
        address: Host and port; None: nobody has told yet which server has these buckets, or no server has them.
        buckets: The numbers of its buckets.
        unproven: Those of them whose part of L1 is not proven coherent now.
        bus: The words of :class:`Health`, of the bucket that is worst off.
        breaker: As in :class:`Health`: each server has a breaker of its own.
        reason: Why a bucket is not proven, or operations are not sent or refused; None: all is well.
    """

    address: str | None
    buckets: tuple[int, ...]
    unproven: tuple[int, ...]
    bus: BusWord
    breaker: BreakerWord
    reason: str | None

    def __str__(self) -> str:
        """The server and its buckets, for a message."""
        return named(self.address, self.buckets)


def named(address: str | None, buckets: Sequence[int]) -> str:
    """A server and its buckets, for a message.

    >>> named("127.0.0.1:7000", (0, 3))
    'primary 127.0.0.1:7000 (buckets 0, 3)'
    """
    server = "no known primary" if address is None else f"primary {address}"
    return f"{server} (bucket{'s' * (len(buckets) != 1)} {', '.join(map(str, buckets))})"


def primaries_of(core: Core) -> tuple[Primary, ...]:
    """The servers of a cache, by their addresses; empty where the cache has one bucket, or was not used yet."""
    if core.bus_state is BusState.IDLE:
        return ()
    parts: dict[str | None, list[Core]] = {}
    for part in core.parts:
        parts.setdefault(address_of(part.place), []).append(part)
    return tuple(_primary(address, parts[address]) for address in sorted(parts, key=lambda one: one or ""))


def _primary(address: str | None, parts: Sequence[Core]) -> Primary:
    worst = min(parts, key=lambda part: GRAVITY.index(part.bus_state))
    return Primary(
        address=address,
        buckets=tuple(part.tier.proof.bucket for part in parts),
        unproven=tuple(part.tier.proof.bucket for part in parts if not part.healthy),
        bus=worst.bus_state.word,
        breaker=worst.breaker.word,
        reason=_reason(worst, parts),
    )


def _reason(worst: Core, parts: Sequence[Core]) -> str | None:
    if worst.bus_state is BusState.CONNECTING:
        return "connecting"
    if worst.bus_state is not BusState.PROVEN:
        return worst.bus_failure
    denied = next((part.requests.denied for part in parts if part.requests.denied is not None), None)
    if denied is not None:
        return denied
    for breaker in (part.breaker for part in parts):
        if not breaker.sends:
            return breaker.reason
        if breaker.refused:
            return f"refused: {', '.join(f'{what}: {code}' for what, code in sorted(breaker.refused.items()))}"
    return None
