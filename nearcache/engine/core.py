"""State shared by all operations of one cache; independent of threads, asyncio and Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from nearcache.counters import Counters
from nearcache.engine.breaker import Breaker
from nearcache.engine.bus_state import BusState
from nearcache.engine.chores import Chores
from nearcache.engine.entries import Entries
from nearcache.engine.plain import LoneReads
from nearcache.engine.ports import Bus, Remote, Runtime
from nearcache.engine.requests import Requests
from nearcache.errors import NearCacheWarning, warn
from nearcache.events import CorruptValue, Event, Flushed, Listener, LoadFailed, StaleFound, UnknownType, changed
from nearcache.local.effects import Cause, Effects
from nearcache.local.invalidation import Invalidation
from nearcache.local.loads import Loads, name_of
from nearcache.local.singleflight import Flights
from nearcache.local.tier import Tier
from nearcache.local.waiters import Waiters
from nearcache.policy import Policy
from nearcache.protocol.answers import Peer
from nearcache.settings import Settings

if TYPE_CHECKING:
    from nearcache.stats import Stats

T = TypeVar("T")

REFILL = 10.0
"""Seconds for which loads stay limited after the server came back empty: then every process loads every key anew."""
UNUSED_LEASES_MAX = 1000
REPORTED_MAX = 1000
"""Keys of which one kind of event is reported, in REPORTED_FOR seconds: where all are damaged, that says enough."""
REPORTED_FOR = 3600.0
REASON_MAX = 500
"""Characters of what a user's codec, or a function of the value, says in its exception."""


@dataclass(slots=True)
class Reported:
    """Keys of which one kind of event was reported, and need not be reported at each call."""

    keys: set[str] = field(default_factory=set)
    until: float = 0.0
    """When the next ones may be reported, if there are REPORTED_MAX (monotonic)."""


ERROR_MAX = 300
"""Characters of a loader's error that are told."""


@dataclass(slots=True, eq=False)
class Core:
    """One cache: its settings, its local state, and its way to Redis."""

    settings: Settings
    runtime: Runtime
    remote: Remote
    new_bus: Callable[[], Bus] | None
    """Makes an unconnected bus; None: there is no other instance to be coherent with."""
    tier: Tier
    invalidation: Invalidation
    breaker: Breaker
    policy: Policy
    parts: tuple[Core, ...] = ()
    """Of a cache of several buckets: the core of each, which does all that concerns one key; else nothing."""
    whole: Core | None = None
    """Of the core of one bucket of several: the core of the cache."""
    reads: Callable[[Core], LoneReads] = LoneReads
    """How reads of single keys go to Redis: alone, or along with those of other threads or tasks."""
    counters: Counters = field(default_factory=Counters)
    flights: Flights = field(default_factory=Flights)
    waiters: Waiters = field(default_factory=Waiters)
    listeners: list[Listener] = field(default_factory=list)
    unused_leases: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=UNUSED_LEASES_MAX))
    """Leases that may be ours though no answer said so, to be given back; beyond the bound they end by themselves."""
    reported: dict[type[Event], Reported] = field(default_factory=dict)
    loads: Loads = field(init=False)
    """What limits loads, and remembers those that failed."""
    entries: Entries = field(init=False)
    requests: Requests = field(init=False)
    chores: Chores = field(init=False)
    single: LoneReads = field(init=False)
    """The reads of single keys."""
    replay_pause: float = 0.0
    replay_after: float = float("-inf")
    """When the journal is replayed again (monotonic), after a replay that was refused, and how long that pause is."""
    rights_pause: float = 0.0
    rights_after: float = float("-inf")
    """The same for the trial of a right that is lacking."""
    noticed: dict[str, str] = field(default_factory=dict)
    """What was found wrong with the set-up at run time: kinds of nearcache.findings, each with its detail."""
    bus_state: BusState = BusState.IDLE
    place: Hashable | None = None
    """Of one bucket of several: the server that has it; None: it is not known."""
    bus_failure: str | None = None
    """Why the last attempt of the bus ended."""
    round_trip: float | None = None
    """Seconds that the last answer on the bus took."""

    def __post_init__(self) -> None:
        self.remote.on_connected = self.connected
        self.remote.seen = partial(getattr, self.invalidation, "seen")
        self.loads = Loads(self.runtime.permits(self.settings.max_concurrent_loads))
        self.entries = Entries(self.settings, self.runtime, self.tier, self.invalidation)
        self.requests = Requests(
            self.settings,
            self.runtime,
            self.remote,
            self.tier,
            self.invalidation,
            self.breaker,
            self.counters,
            self.emit,
        )
        self.chores = Chores(self.runtime)
        self.single = self.reads(self)
        self.tier.fallback.keeps_flushed = self.settings.stale_if_error > 0

    @property
    def all(self) -> tuple[Core, ...]:
        """The cores that keep something: those of the buckets, or this one."""
        return self.parts or (self,)

    def of(self, key: str) -> Core:
        """The core of a key's bucket."""
        parts = self.parts
        return parts[crc32(key.encode()) % len(parts)] if parts else self  # as bucket_of, a call less

    def split(self, keys: Iterable[str]) -> list[tuple[Core, list[str]]]:
        """Some keys by their buckets, in the order of the buckets."""
        if not self.parts:
            return [(self, list(keys))]
        found: dict[int, list[str]] = {}
        buckets = len(self.parts)
        for key in keys:
            found.setdefault(crc32(key.encode()) % buckets, []).append(key)  # as bucket_of, a call less
        return [(self.parts[bucket], found[bucket]) for bucket in sorted(found)]

    def interrupt(self) -> None:
        """Close the connection of the bus, from any thread."""
        for one in self.all:
            if one.requests.bus is not None:
                one.requests.bus.interrupt()

    def emit(self, event: Event) -> None:
        """Call the user's listeners; one that raises harms nothing."""
        if self.whole is not None:
            self.whole.emit_of(self, event)
            return
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S112  # a user's callback must break neither read nor bus
                continue

    def emit_of(self, part: Core, event: Event) -> None:
        """Emit what a bucket reports."""
        del part
        self.emit(event)

    def count_flush(self, cause: Cause) -> None:
        """Count a flush; those of several buckets by one cause as one."""
        if self.whole is None or self.whole.is_first(self, cause):
            self.counters.flushed(cause.value)

    def is_first(self, part: Core, cause: Cause) -> bool:
        """Whether no bucket on the same server has been flushed by this cause within ``as_one``."""
        del part, cause
        return True

    def as_one(self) -> AbstractContextManager[None]:
        """Within it, what several buckets of one server report for one cause is one event."""
        return nullcontext()

    def emit_once(self, event: CorruptValue | LoadFailed | StaleFound | UnknownType) -> None:
        """Report something about a key or type, but not at each call; of REPORTED_MAX in REPORTED_FOR seconds."""
        reported, now = self.reported.setdefault(type(event), Reported()), self.runtime.monotonic()
        subject = event.type if isinstance(event, UnknownType) else event.key
        if subject in reported.keys:
            return
        if len(reported.keys) >= REPORTED_MAX and now >= reported.until:
            reported.keys.clear()
        if len(reported.keys) < REPORTED_MAX:
            reported.until = reported.until if reported.keys else now + REPORTED_FOR
            reported.keys.add(subject)
            self.emit(changed(event, reason=event.reason[:REASON_MAX]))

    def not_cached(self, key: str, loader: Callable[[], object], error: Exception) -> None:
        """Report a loaded value that can't be stored, once per function: its next values will not fit either."""
        self.counters.uncached += 1
        function = getattr(loader, "func", loader)  # a decorated function's loader is a partial of it
        label = name_of(function)
        labels = self.reported.setdefault(LoadFailed, Reported()).keys
        if label in labels or len(labels) >= REPORTED_MAX:
            return
        labels.add(label)
        reason = f"what {label} gave was loaded, but not cached: {error}"[: 3 * ERROR_MAX]
        self.emit(LoadFailed(key, reason))
        with suppress(NearCacheWarning):  # where warnings are errors: the value is there, and its caller gets it
            warn(f"{key!r}: {reason}; each call loads again")

    def hide(self, key: str, error: Exception, why: str) -> None:
        """Report an error of a loader that no caller gets."""
        text = f"{why}: the loader raised {type(error).__name__}: {error}"[:ERROR_MAX]
        now, last = self.runtime.monotonic(), self.loads.hidden_at
        repeated = now < last + 1.0
        self.loads.hidden, self.loads.hidden_at = f"{key}: {text}", last if repeated else now
        self.emit(LoadFailed(key, text, error, repeated))

    def report(self, effects: Effects) -> None:
        """Count what a batch of messages did, and wake the callers that wait for its keys; outside the lock."""
        self.counters.invalidations_received += effects.received
        for cause in effects.untold:
            self.count_flush(cause)
        for cause, reason, entries in effects.flushes:
            self.count_flush(cause)
            self.emit(Flushed(reason, entries))
        if effects.restarted:
            self.loads.refills_until = self.runtime.monotonic() + REFILL
        if effects.everything:
            self.waiters.wake_all()
        elif effects.keys:
            self.waiters.wake(effects.keys)

    def connected(self, peer: Peer) -> None:
        """Take note of the server behind a new command connection.

        When it is not the one that the bus listens to (a failover that the bus has not seen), its numbers say nothing
        about what L1 holds (I): L1 is flushed, and the bus has to find the same server.
        """
        effects = self.invalidation.check_identity(peer.identity)
        if effects.flushes:
            self.report(effects)
            if self.requests.bus is not None:
                self.requests.bus.interrupt()

    def hold(self, share: float) -> None:
        """Let L1 hold no more than this part of the keys, as the namespace says, nor than the setting."""
        self.tier.hold(min(share, self.settings.l1_share))

    def notice_node(self, *, lone: bool) -> None:
        """Take note whether the server is a node of a cluster that the URL names alone."""
        self.noticed.pop("cluster-node", None)
        if lone:
            self.noticed["cluster-node"] = "the server is a node of a cluster, and the URL names it alone"

    @property
    def alone(self) -> bool:
        """Whether there is no server: what L1 does not have, does not exist."""
        return self.new_bus is None

    @property
    def healthy(self) -> bool:
        """Whether L1 is proven coherent now."""
        return self.tier.synced and self.runtime.monotonic() < self.tier.proof.until

    @property
    def floors_proven(self) -> bool:
        """Whether the local floors may be trusted; else they are read with the values (M)."""
        tier = self.tier
        return tier.floors.known and tier.synced and self.runtime.monotonic() < tier.proof.until

    @property
    def away(self) -> bool:
        """Whether Redis is away, as far as is known without asking it."""
        return not self.requests.bypassed and (not self.healthy or not self.breaker.sends)

    def stats(self) -> Stats:
        """The counters now."""
        self.counters.evictions = self.tier.evictions
        now = self.counters.snapshot(l1_entries=self.tier.count, l1_bytes=self.tier.size)
        return replace(
            now,
            l1_hits=now.l1_hits + self.tier.hits,  # the engine's hits, and the plain ones
            propagations=sum(one.invalidation.propagations for one in self.all),
            propagation_seconds=sum(one.invalidation.propagation_seconds for one in self.all),
        )


def chunks(keys: Sequence[T], size: int) -> list[Sequence[T]]:
    """A sequence in parts of at most ``size``."""
    if len(keys) <= size:
        return [keys] if keys else []
    return [keys[start : start + size] for start in range(0, len(keys), size)]
