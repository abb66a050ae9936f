"""A cache of several buckets: one core each, and one for what they share.

A bucket is a part of the namespace with write numbers, floors and messages of its own, so that the buckets may lie on
several servers. Everything that concerns one key is done by the core of its bucket, as by that of a cache with one
bucket. They share the settings, the entries of L1, the counters and whatever is found by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from nearcache.engine.breaker import Breaker
from nearcache.engine.core import Core
from nearcache.engine.plain import LoneReads
from nearcache.engine.ports import Bus, Remote, Runtime
from nearcache.events import (
    Accepted,
    BreakerClosed,
    BreakerOpened,
    CoherenceFailed,
    Connected,
    Disconnected,
    Drained,
    Event,
    Flushed,
    Journalled,
    Refused,
    changed,
)
from nearcache.local.effects import Cause
from nearcache.local.invalidation import Invalidation
from nearcache.local.tier import Tier
from nearcache.local.whole import WholeTier
from nearcache.policy import Policy
from nearcache.settings import Settings

C = TypeVar("C", bound=Core)

_BEGIN = {Disconnected: "bus", CoherenceFailed: "refusal", BreakerOpened: "breaker", Refused: "refused"}
_OF_BUCKET = (Disconnected, CoherenceFailed, Connected)
_END = {Connected: ("bus", "refusal"), BreakerClosed: ("breaker",), Accepted: ("refused",)}


class Held:
    """What buckets have reported within ``as_one``."""

    def __init__(self) -> None:
        self.events: list[tuple[Core, Flushed | Journalled]] = []
        self.flushes: set[tuple[Hashable, Cause]] = set()
        self.over = False
        """Whether it has ended, though what was begun within it may go on."""

    def takes(self, part: Core, event: Event) -> bool:
        """Keep an event of a kind that is told together; whether it is one, and this has not ended."""
        if self.over or not isinstance(event, Flushed | Journalled):
            return False
        self.events.append((part, event))
        return True

    def merged(self) -> Iterator[Flushed | Journalled]:
        """One event of a kind for each server; it names the buckets if there are several, and none is left."""
        events, self.events = self.events, []
        groups: dict[tuple[type, Hashable], list[tuple[Core, Flushed | Journalled]]] = {}
        for part, event in events:
            groups.setdefault((type(event), part.place), []).append((part, event))
        for some in groups.values():
            part, event = some[0]
            if len(some) > 1:
                buckets = " ".join(sorted({str(one.tier.proof.bucket) for one, _ in some}, key=int))
                place = f"primary {address_of(part.place)}, " if isinstance(part.place, tuple) else ""
                reason = f"{place}buckets {buckets}: {event.reason}"
                if isinstance(event, Flushed):
                    event = Flushed(reason, sum(one.entries for _, one in some if isinstance(one, Flushed)))
                else:
                    event = Journalled(sum(one.keys for _, one in some if isinstance(one, Journalled)), reason)
            yield event


_held: ContextVar[Held | None] = ContextVar("nearcache_held", default=None)


def address_of(place: Hashable | None) -> str | None:
    """The place of a bucket as it is shown.

    >>> address_of(("::1", 7000))
    '[::1]:7000'
    """
    if not isinstance(place, tuple):
        return cast("str | None", place)
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True, eq=False)
class WholeCore(Core):
    """The core of a cache of several buckets."""

    troubled: dict[str, set[object]] = field(default_factory=dict)
    """By kind of trouble, what is in it: buckets, or the breakers of their servers."""

    @property
    def healthy(self) -> bool:
        """Whether every bucket is proven coherent now."""
        return all(part.healthy for part in self.parts)

    @property
    def away(self) -> bool:
        """Whether some bucket is away, as far as is known without asking."""
        return any(part.away for part in self.parts)

    def emit_of(self, part: Core, event: Event) -> None:
        """Emit what a bucket reports: the begin of a trouble once for each server, its end when no bucket is in it."""
        held = _held.get()
        if held is not None and held.takes(part, event):
            return
        kind = type(event)
        subject: object = part.tier.proof.bucket if kind in _OF_BUCKET else part.breaker
        with self.tier.lock:
            if kind in _BEGIN:
                others = self.troubled.setdefault(_BEGIN[kind], set())
                told = subject in others or any(
                    type(one) is int and self.parts[one].place == part.place for one in others
                )
                others.add(subject)
                if told:
                    return
                if isinstance(part.place, tuple):  # else there is one server, which the cache's address names
                    event = changed(event, reason=f"primary {address_of(part.place)}: {event.reason}")  # type: ignore[attr-defined]  # each of these has it
            elif kind in _END:
                troubles = [self.troubled.setdefault(name, set()) for name in _END[kind]]
                for others in troubles:
                    others.discard(subject)
                if any(troubles) or (kind is Connected and not all(one.tier.synced for one in self.parts)):
                    return
        if held is not None and kind is Connected:  # a flush comes before it, as with one bucket
            self._tell(held)
        if isinstance(event, Drained):
            event = changed(event, left=sum(len(one.tier.journal) for one in self.parts))
        self.emit(event)

    def is_first(self, part: Core, cause: Cause) -> bool:
        """See Core."""
        held, flush = _held.get(), (part.place, cause)
        if held is None or held.over:
            return True
        first = flush not in held.flushes
        held.flushes.add(flush)
        return first

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """See Core."""
        held = Held()
        token = _held.set(held)
        try:
            yield
        finally:
            _held.reset(token)
            held.over = True
            self._tell(held)

    def _tell(self, held: Held) -> None:
        for event in held.merged():
            self.emit(event)


def core_of_buckets(
    *,
    settings: Settings,
    runtime: Runtime,
    remotes: Sequence[Remote],
    new_bus: Callable[[], Bus],
    tier: WholeTier,
    reads: Callable[[Core], LoneReads],
) -> WholeCore:
    """The core of a cache whose buckets have these remotes."""

    def made(kind: type[C], remote: Remote, local: Tier, **shared: Any) -> C:
        return kind(
            settings=settings,
            runtime=runtime,
            remote=remote,
            new_bus=new_bus,
            tier=local,
            invalidation=Invalidation(local, settings.max_staleness),
            breaker=breaker,
            policy=policy,
            reads=reads,
            **shared,
        )

    policy = Policy.of(settings)
    breaker = Breaker(settings.breaker_failures, settings.breaker_reset)  # until it is known who has which bucket
    whole = made(WholeCore, remotes[0], tier)
    whole.parts = tuple(
        made(
            Core,
            remote,
            local,
            whole=whole,
            counters=whole.counters,
            flights=whole.flights,
            waiters=whole.waiters,
            reported=whole.reported,
        )
        for remote, local in zip(remotes, tier.parts, strict=True)
    )
    for part in whole.parts:
        part.loads, part.chores = whole.loads, whole.chores
    return whole
