"""What the flows of one cache share, and the one way to ask Redis: through the breaker."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

from nearcache.engine.breaker import Breaker
from nearcache.engine.ports import Bus, NotSent, Remote, RemoteFailed, RemoteTimeout, Runtime
from nearcache.errors import CodecError, ValueTooLarge
from nearcache.events import (
    Accepted,
    BreakerClosed,
    BreakerOpened,
    CorruptValue,
    Event,
    Flushed,
    Listener,
    LoadFailed,
    Refused,
)
from nearcache.local.invalidation import Effects, Invalidation
from nearcache.local.loads import Loads
from nearcache.local.singleflight import Flights
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.local.waiters import Waiters
from nearcache.options import Policy
from nearcache.protocol.answers import Granted, Item, Peer, Written
from nearcache.protocol.records import pack_tail
from nearcache.protocol.versions import Version, created_of
from nearcache.settings import Settings
from nearcache.stats import Counters, Stats

P = ParamSpec("P")
T = TypeVar("T")


REFILL = 10.0
"""Seconds for which loads stay limited after the server came back empty: then every process loads every key anew."""
UNUSED_LEASES_MAX = 1000
REPORTED_MAX = 1000


@dataclass(slots=True)
class Encoded(Item):
    """A value that may be stored: as Redis gets it, as given, and as bytes."""

    value: Any = None
    payload: bytes = b""
    load_ms: int = 0


@dataclass(slots=True, eq=False)
class Core:
    """One cache without a face: state, ports and settings."""

    settings: Settings
    runtime: Runtime
    remote: Remote
    new_bus: Callable[[], Bus] | None
    """Makes an unconnected bus; None: there is nobody to be coherent with."""
    tier: Tier
    invalidation: Invalidation
    breaker: Breaker
    policy: Policy
    counters: Counters = field(default_factory=Counters)
    flights: Flights = field(default_factory=Flights)
    waiters: Waiters = field(default_factory=Waiters)
    listeners: list[Listener] = field(default_factory=list)
    unused_leases: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=UNUSED_LEASES_MAX))
    """Leases that may be ours though no answer said so, to be given back; what is too many ends by itself."""
    reported: set[tuple[type[Event], str]] = field(default_factory=set)
    """What was told of which keys, and need not be told at each call."""
    bus: Bus | None = None
    """The connection that is listened to now, or was last."""
    loads: Loads = field(init=False)
    """What limits loads, and remembers those that failed."""
    pack: Callable[[object], bytes | None] | None = field(init=False)
    """Makes bytes of a value that several readers share; None: they share the value itself."""
    bus_state: Literal["idle", "connecting", "proven", "lost", "refused"] = "idle"
    round_trip: float | None = None
    """Seconds that the last answer on the bus took."""
    bypassed: bool = False
    """Whether the namespace is kept by another protocol: then Redis is not asked, and L1 not filled."""

    def __post_init__(self) -> None:
        self.remote.on_connected = self.connected
        self.pack = None if self.tier.decode is None else self._packed
        self.loads = Loads(self.runtime.permits(self.settings.max_concurrent_loads))
        self.tier.fallback.keeps_flushed = self.settings.stale_if_error > 0
        self.remote.may_repeat = lambda: self.breaker.sends

    def emit(self, event: Event) -> None:
        """Tell the listeners; one that raises harms nobody."""
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S112  # a user's callback must break neither read nor bus
                continue

    def emit_once(self, event: CorruptValue | LoadFailed) -> None:
        """Tell the listeners something about a key, but not again and again."""
        if (type(event), event.key) not in self.reported:
            if len(self.reported) >= REPORTED_MAX:
                self.reported.clear()
            self.reported.add((type(event), event.key))
            self.emit(event)

    def report(self, effects: Effects) -> None:
        """Count and pass on what a batch of messages did; outside the lock."""
        self.counters.invalidations_received += effects.received
        for reason, entries in effects.flushes:
            self.counters.flushes += 1
            self.emit(Flushed(reason, entries))
        if effects.restarted:
            self.loads.refills_until = self.runtime.monotonic() + REFILL
        if effects.everything:
            self.waiters.wake_all()
        elif effects.keys:
            self.waiters.wake(effects.keys)

    @property
    def healthy(self) -> bool:
        """Whether L1 is proven coherent now."""
        return self.tier.synced and self.runtime.monotonic() < self.tier.fresh_until

    def stats(self) -> Stats:
        """The counters now."""
        self.counters.evictions = self.tier.evictions
        now = self.counters.snapshot(l1_entries=len(self.tier.entries), l1_bytes=self.tier.size)
        return replace(now, l1_hits=now.l1_hits + self.tier.hits)  # the flows' hits, and the plain ones

    @property
    def away(self) -> bool:
        """Whether Redis is away, as far as is known without asking it."""
        return not self.bypassed and (not self.healthy or not self.breaker.sends)

    @property
    def floors_proven(self) -> bool:
        """Whether the local floors may be trusted; else they are read with the values."""
        tier = self.tier
        return tier.floors.known and tier.synced and self.runtime.monotonic() < tier.fresh_until

    # -------------------------------------------------------------------------------------------------- values and L1

    def encode(self, key: str, value: object, policy: Policy, load_ms: int = 0) -> Encoded | None:
        """A value ready to be stored; None when negative_ttl or the condition turns it down.

        Raises:
            CodecError, ValueTooLarge: it can't be stored.
        """
        ttl_ms = policy.ttl_ms(value)
        if ttl_ms is None:
            return None
        payload = self.settings.codec.encode(value)
        if not isinstance(payload, bytes):
            raise CodecError(f"the codec gave {type(payload).__name__} for {key!r}: encode must give bytes")
        if len(payload) > self.settings.max_value_bytes:
            raise ValueTooLarge(
                f"the value of {key!r} has {len(payload)} bytes encoded: at most "
                f"max_value_bytes={self.settings.max_value_bytes}; store it in parts, or raise the setting"
            )
        tail = pack_tail(payload, policy.tags, load_ms)
        return Encoded(key, tail, ttl_ms, policy.stale_ms, value, payload, load_ms)

    def entry(
        self,
        key: str,
        value: object,
        payload: bytes,
        version: Version,
        fresh_until: int,
        policy: Policy,
        load_ms: int = 0,
    ) -> Entry:
        """A value as L1 holds it, with the deadlines that L2's freshness, l1_ttl and early refreshes give."""
        expires = self.invalidation.deadline(fresh_until)
        deadline = expires
        if policy.early_refresh is not None or policy.xfetch_beta is not None:
            created = self.invalidation.deadline(created_of(version))
            deadline = min(expires, policy.refresh_at(created, expires, load_ms / 1000))
        if policy.l1_ttl is not None:
            expires = min(expires, self.runtime.monotonic() + policy.l1_ttl)
            deadline = min(deadline, expires)
        size, kept = len(key) + len(payload), self.kept(value, payload)
        return self.tier.make_entry(kept, deadline, version, policy.tags, size, expires)

    def entry_of(self, encoded: Encoded, written: Written, policy: Policy) -> Entry:
        """A value that Redis has just taken, as L1 holds it."""
        fresh_until = written.created + encoded.ttl_ms * 1000
        return self.entry(
            encoded.key, encoded.value, encoded.payload, written.version, fresh_until, policy, encoded.load_ms
        )

    def outage_entry(self, encoded: Encoded, began: float, policy: Policy) -> Entry:
        """A value that Redis could not take, kept for so long that nobody misses a write for more than G1 allows."""
        until = began + min(self.settings.outage_life, encoded.ttl_ms / 1000)
        size = len(encoded.key) + len(encoded.payload)
        kept = self.kept(encoded.value, encoded.payload)
        return self.tier.make_entry(kept, until, 0, policy.tags, size, until)

    def kept(self, value: object, payload: bytes) -> object:
        """What L1 keeps of a value."""
        return value if self.tier.decode is None else payload

    def value_of(self, entry: Entry) -> Any:
        """The value of an entry, as a hit gives it."""
        return entry.value if self.tier.decode is None else self.tier.decode(entry.value)

    def _packed(self, value: object) -> bytes | None:
        try:
            return self.settings.codec.encode(value)
        except Exception:  # noqa: BLE001  # what can't be stored is shared as it is; its leader has told of it
            return None

    # ------------------------------------------------------------------------------------------------------- asking

    async def ask(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask Redis, unless the breaker is open.

        Raises:
            RemoteFailed: it was not asked (NotSent), or did not answer as it should.
        """
        self.permit()
        try:
            answer = await method(*args, **kwargs)
        except RemoteFailed as failure:
            self.failed(failure, _name(method))
            raise
        self.answered(_name(method), answer)
        return answer

    # What ``ask`` is made of, for the one place where its own cost counts: a read of one key.

    def permit(self) -> None:
        """Raise NotSent if Redis is not to be asked now."""
        if self.breaker.sends and not self.bypassed:  # as nearly always
            return
        if self.bypassed:
            raise NotSent("the namespace is kept by another protocol")
        if not self.breaker.permit(self.runtime.monotonic()):
            raise NotSent("Redis is left alone for a while after failures")

    def answered(self, operation: str, answer: object) -> None:
        """Redis answered: the breaker may close, and what was refused may be accepted again."""
        if self.breaker.ok():
            self.emit(BreakerClosed())
        if self.breaker.refused:
            self._accepted(operation, answer)

    def server_now(self) -> int:
        """The server's time in µs, by the bus while it is synced, else by the newest command connection."""
        if self.tier.synced:
            return int((self.runtime.monotonic() + self.invalidation.server_offset) * 1e6)
        return self.remote.now()

    def deadline(self) -> int:
        """By when (server µs) what is sent now must have been executed, if ever."""
        patience = self.settings.redis_timeout + self.settings.redis_connect_timeout
        return self.remote.now() + int(patience * 1e6)

    def wrote(self, number: int) -> None:
        """A write was acknowledged: the bus has to bring its number, too."""
        self.counters.invalidations_sent += 1
        self.invalidation.expect(number, self.runtime.monotonic())

    def connected(self, peer: Peer) -> None:
        """Take note of who answers on a new command connection.

        When it is not who the bus listens to (a failover that the bus has not seen), its numbers say nothing about what
        L1 holds (I): L1 is flushed, and the bus has to find the same server.
        """
        effects = self.invalidation.check_identity(peer.identity)
        if effects.flushes:
            self.report(effects)
            if self.bus is not None:
                self.bus.interrupt()

    def failed(self, failure: RemoteFailed, operation: str) -> None:
        """Count a failure, and open the breaker when it is one too many; what is an answer is a refusal."""
        if failure.counted:
            return
        self.counters.l2_errors += 1
        if failure.answered:
            if self.breaker.ok():
                self.emit(BreakerClosed())
            self.refused(operation, failure)
        elif self.breaker.failed(timeout=isinstance(failure, RemoteTimeout), now=self.runtime.monotonic()):
            self.emit(BreakerOpened(str(failure)))

    def refused(self, operation: str, failure: RemoteFailed) -> None:
        """Redis is there, but will not do this: told once, until it does everything again."""
        if self.breaker.refuse(operation, failure.code):
            self.emit(Refused(operation, str(failure)))
        if failure.code == "READONLY":  # no primary any more: where the new one is, connecting anew finds out
            self.remote.discard_idle()
            if self.bus is not None:
                self.bus.interrupt()

    def _accepted(self, operation: str, answer: object) -> None:
        wrote = isinstance(answer, Written)
        stored = isinstance(answer, Granted) or (wrote and operation in _STORING)
        if isinstance(answer, Written) and not answer.stored:
            operation, stored = "", False
        elif operation == "lease" and not stored:  # a lease that is not given writes nothing
            return
        if self.breaker.accept(operation, wrote=wrote, stored=stored):
            self.emit(Accepted())


_STORING = frozenset({"fill", "store"})
"""Operations whose acknowledgement says that a value was stored."""


def _name(method: Callable[..., object]) -> str:
    """What was asked for, as it is called."""
    return getattr(method.func if isinstance(method, partial) else method, "__name__", "")


def chunks(keys: Sequence[T], size: int) -> list[Sequence[T]]:
    """A sequence in parts of at most ``size``."""
    return [keys[start : start + size] for start in range(0, len(keys), size)]
