"""Keep the bus: connect, prove L1, apply messages, send heartbeats; and begin again when the connection is lost.

A heartbeat is sent every ``max_staleness / 4``. When none is answered for ``max_staleness / 2``, the socket is read
once more, since this process may have stalled, and then the connection is closed: a half-open one would never be
noticed otherwise.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nearcache.engine.bus_state import BusSignal, BusState, Phase, Report, advance
from nearcache.engine.core import Core
from nearcache.engine.leases import give_back
from nearcache.engine.ports import Bus, BusRefused, Incompatible, RemoteFailed, RemoteMisconfigured
from nearcache.engine.replay import LONGEST_PAUSE, replay_journal
from nearcache.engine.rights import try_lacking_rights, try_rights
from nearcache.events import BreakerClosed, CoherenceFailed, Connected, Disconnected
from nearcache.local.deferred import PAUSE
from nearcache.local.waiters import Latch, Waiters
from nearcache.protocol.answers import Beat, BusItem, Greeting

FAR = float("inf")
BACKOFF = 0.02
"""Seconds of the first pause; it doubles up to ``reconnect_max``, with full jitter. While the server refuses the bus it
doubles up to LONGEST_PAUSE: people have to mend that, and a fleet would connect many times a second for nothing."""

_SIGNALS: Mapping[type[RemoteFailed], BusSignal] = {
    RemoteMisconfigured: BusSignal.MISCONFIGURED,
    BusRefused: BusSignal.REFUSED,
    Incompatible: BusSignal.INCOMPATIBLE,
}
"""The signal of an attempt that ended, by its exception; for all others the connection failed."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """Keeps the bus of one cache, on a thread or task of its own."""

    core: Core
    stop: Latch
    """Set when ``run`` has to end."""
    tried: Latch
    """Set when the first attempt has ended."""
    proofs: Waiters = field(default_factory=Waiters)
    """Callers of ``wait_healthy``."""
    failure: RemoteFailed | None = None
    """Why the last attempt ended; None: it has proven L1."""

    async def run(self) -> None:
        """Keep the bus until ``end`` is called; once only."""
        core = self.core
        if core.bus_state is not BusState.IDLE:
            return
        self._advance(BusSignal.START)
        failures = refusals = 0
        while not self.ended:
            began = core.runtime.monotonic()
            proven = await self._attempt()
            if self._refused:
                await try_rights(core, "")
            self.tried.set()
            # A bus that is proven and lost again at once is no success, or it would be tried without a pause for ever.
            lasted = proven and core.runtime.monotonic() - began > core.settings.reconnect_max
            failures = 0 if lasted else failures + 1
            refusals = refusals + 1 if core.bus_state.refused else 0
            longest = LONGEST_PAUSE if refusals else core.settings.reconnect_max
            pause = min(longest, BACKOFF * 2 ** min(refusals or failures, 16))
            await self._wait(random.uniform(0, pause))

    async def _wait(self, pause: float) -> None:
        """Wait before the next attempt. Where the bus is refused, no heartbeat replays the journal: do so meanwhile."""
        while not self.ended:
            if self._refused:
                await replay_journal(self.core)
            part = min(pause, self.core.settings.reconnect_max)
            if part <= 0 or await self.stop.wait(part):
                return
            pause -= part

    @property
    def _refused(self) -> bool:
        """Whether the server answers, though it gives no messages."""
        return self.core.bus_state.refused and not self.core.requests.bypassed

    @property
    def ended(self) -> bool:
        """Whether ``end`` was called."""
        return self.core.bus_state is BusState.CLOSED

    def end(self) -> None:
        """Stop, and wake the callers that wait for a proof. The cache waits for the end of ``run`` by itself."""
        self._advance(BusSignal.CLOSE)
        self.stop.set()
        self.tried.set()
        self.proofs.wake_all()

    async def first_use(self) -> None:
        """Wait for the first attempt, so that the first values can go to L1; no longer than a read may take (G7)."""
        await self.tried.wait(self.core.settings.redis_timeout)

    async def first_attempt(self) -> RemoteFailed | None:
        """Wait until the first attempt has ended; why the server can't be used as set up, if that is so.

        A user that lacks a right reads L2 all the same, but a program that waits here should hear of it.
        """
        settings = self.core.settings
        if self.core.new_bus is not None:
            await self.tried.wait(settings.redis_connect_timeout + 2 * settings.redis_timeout)
        if self.core.bus_state is BusState.MISCONFIGURED:
            return self.failure
        denied = next((one.requests.denied for one in self.core.all if one.requests.denied is not None), None)
        return None if denied is None else RemoteMisconfigured(denied)

    async def wait_healthy(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until L1 is proven; whether it is."""
        runtime = self.core.runtime
        until = runtime.monotonic() + timeout
        while True:
            proof = runtime.latch()
            self.proofs.add("", proof)
            try:
                left = until - runtime.monotonic()
                if self.core.healthy or left <= 0 or self.ended or not await proof.wait(left):
                    return self.core.healthy
            finally:
                self.proofs.remove("", proof)

    async def _attempt(self) -> bool:
        """One connection from beginning to end; whether it was ever proven."""
        core = self.core
        assert core.new_bus is not None  # noqa: S101  # a cache without a bus has no subscriber
        bus = core.requests.bus = core.new_bus()
        subscription = Subscription(self, bus)
        failure = RemoteFailed("closed")
        try:
            await bus.open()
            await subscription.listen()
        except RemoteFailed as known:
            failure = known
        except Exception as mistake:  # noqa: BLE001  # no mistake may end the bus for good
            failure = RemoteFailed(f"unexpected: {mistake!r}")
        finally:
            core.breaker.bus_down()
            self.lost(subscription)
            await bus.close()
        self.end_of_attempt(failure)
        return subscription.phase is Phase.PROVEN

    def lost(self, subscription: Subscription) -> None:
        """Apply the loss of a subscription to L1."""
        core = self.core
        if subscription.phase is Phase.PROVEN:
            core.invalidation.lost()
            core.waiters.wake_all()
            core.remote.discard_idle()

    def end_of_attempt(self, failure: RemoteFailed) -> None:
        """Take the end of a connection, whose loss has been applied, and report it unless that was done before."""
        core = self.core
        self.failure, core.bus_failure = failure, str(failure)
        report = self._advance(_SIGNALS.get(type(failure), BusSignal.FAILED))
        core.requests.bypassed |= core.bus_state is BusState.INCOMPATIBLE
        if type(failure) in _SIGNALS:
            core.breaker.bus_reached()
        if report is Report.REFUSAL:
            core.emit(CoherenceFailed(str(failure)))
        elif report is Report.LOSS:
            core.emit(Disconnected(str(failure)))

    def not_adopted(self) -> None:
        """The server refuses the write that a greeting needs: nothing may be proven by its numbers."""
        self.failure = RemoteFailed("the server refuses writes, so that its write numbers can't be relied on")
        self.tried.set()

    def proved(self, kept: int) -> None:
        """L1 was proven by a new connection, which kept so many of its entries."""
        core = self.core
        self.failure = None
        self._advance(BusSignal.PROVED)
        core.requests.bypassed = False
        if core.breaker.bus_up():
            core.emit(BreakerClosed())
        core.emit(Connected(kept))
        self.tried.set()
        self.proofs.wake_all()

    def _advance(self, signal: BusSignal) -> Report:
        core = self.core
        while True:
            before = core.bus_state
            after, report = advance(before, signal)
            # The bus proves L1, and looks its next state up; meanwhile the cache is closed, by another thread or by a
            # finaliser on this one: CLOSED has to stay. No other code runs between this comparison and the assignment.
            if core.bus_state is before:
                core.bus_state = after
                return report


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscribed connection."""

    subscriber: Subscriber
    bus: Bus
    phase: Phase = Phase.SUBSCRIBED
    asked: deque[float] = field(default_factory=deque)
    """When the queries that are not answered yet were asked, oldest first."""

    next_beat: float = 0.0
    _step_at: float = FAR
    """When dropped entries are freed next."""

    async def listen(self) -> None:
        """Send heartbeats and apply what arrives, until the connection fails."""
        await self.begin()
        while not self.subscriber.ended:
            items = await self.bus.receive(await self.until_next())
            if not items and self.silent:
                items = await self.bus.receive(0.0)
                if not items:
                    raise RemoteFailed("the server does not answer")
            await self.take(items)

    async def begin(self) -> None:
        """Ask for the greeting."""
        await self._ask_greeting()
        core = self.subscriber.core
        self.next_beat = core.runtime.monotonic() + core.settings.max_staleness / 4

    async def until_next(self) -> float:
        """Do what is due, such as a heartbeat; for how many seconds nothing else will be."""
        core = self.subscriber.core
        now = core.runtime.monotonic()
        if now >= self.next_beat:
            self.next_beat = now + core.settings.max_staleness / 4
            self.asked.append(core.runtime.monotonic())
            await self.bus.ask_beat()
        self._step_at = self._free_some(self._step_at)
        return max(0.0, min(self.next_beat, self._silence_ends(), self._step_at) - now)

    @property
    def silent(self) -> bool:
        """Whether a query has not been answered for so long that the connection is dead, unless its answer has come."""
        return self.subscriber.core.runtime.monotonic() >= self._silence_ends()

    async def take(self, items: Sequence[BusItem]) -> None:
        """Apply what has come, and look whether something has not come in time.

        Raises:
            RemoteFailed: this connection can't be used any more.
        """
        core = self.subscriber.core
        await self._take(items)
        if core.invalidation.ahead is not None:
            core.report(core.invalidation.overdue(core.runtime.monotonic()))
        if core.invalidation.expected is not None:
            missing = core.invalidation.missing_own_write(core.runtime.monotonic())
            if missing.flushes:
                core.report(missing)
                raise RemoteFailed("the bus does not bring what was written")

    def _free_some(self, step_at: float) -> float:
        """Free some of what was dropped, if it is time for a step; when the next one is due.

        The first step comes after a pause, too: else a caller that has just invalidated a large tag waits for it.
        """
        tier, now = self.subscriber.core.tier, self.subscriber.core.runtime.monotonic()
        if not tier.frees:
            return FAR
        if now >= step_at:
            tier.free_some()
            step_at = FAR
        return min(step_at, now + PAUSE)

    def _silence_ends(self) -> float:
        """When an unanswered query means that the connection is dead."""
        return self.asked[0] + self.subscriber.core.settings.max_staleness / 2 if self.asked else FAR

    async def _ask_greeting(self) -> None:
        self.asked.append(self.subscriber.core.runtime.monotonic())
        await self.bus.ask_greeting()

    def _answered(self) -> float:
        """Take the oldest query off the list, and its round trip; when it was asked."""
        core = self.subscriber.core
        asked_at = self.asked.popleft()
        core.round_trip = core.runtime.monotonic() - asked_at
        return asked_at

    async def _take(self, items: Sequence[BusItem]) -> None:
        """Apply items in order; messages that follow each other are applied under one hold of the lock."""
        core = self.subscriber.core
        batch: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                batch.append(item)
                continue
            core.report(core.invalidation.messages(batch))
            batch.clear()
            if isinstance(item, Greeting):
                await self._greeted(item)
            else:
                await self._beaten(item)
            await give_back(core)
        core.report(core.invalidation.messages(batch))

    async def _greeted(self, greeting: Greeting) -> None:
        core = self.subscriber.core
        asked_at = self._answered()
        if not greeting.master:
            raise RemoteFailed("the server is no master")
        if not greeting.adopted:  # it refuses writes: L2 is read with its floors, and heartbeats ask again
            core.breaker.bus_reached()
            await try_rights(core, "")
            self.subscriber.not_adopted()
            return
        core.hold(greeting.l1_share)
        core.notice_node(lone=greeting.lone_node)
        if self.phase is Phase.SUBSCRIBED:
            self.phase = Phase.PREPARED
            core.breaker.bus_reached()
            core.invalidation.greeted(greeting)
            probed = await self._probe()
            # Before L1 is trusted: the counter has moved by what was replayed, so ask again where it stands.
            if await replay_journal(core, probing=True) or probed:
                await self._ask_greeting()
                return
        if core.invalidation.nonce is not None:  # the probe was published before this answer, so it should have come
            raise BusRefused("a probe published through the server did not come back on the bus")
        # Commands may go to a server that was the primary when their connection was made, and is a replica now: no
        # connection is used that was made before this one proves L1.
        core.invalidation.met = None
        core.remote.discard_idle()
        with core.tier.lock:
            if core.invalidation.met not in (None, greeting.identity):  # by a connection that was made just now
                raise RemoteFailed("commands are answered by another server than the one listened to")
            effects, kept = core.invalidation.back(greeting, asked_at, prove=core.settings.on_reconnect == "prove")
        core.report(effects)
        if self.phase is not Phase.PROVEN:
            self.phase = Phase.PROVEN
            self.subscriber.proved(kept)

    async def _probe(self) -> bool:
        """Publish a probe, unless one has come back before: its echo shows that coherence works at all."""
        core = self.subscriber.core
        if core.invalidation.echoed:
            return False
        core.invalidation.nonce = os.urandom(16).hex()
        if not await try_rights(core, core.invalidation.nonce):  # that says nothing about the bus
            core.invalidation.nonce = None
        return core.invalidation.nonce is not None or core.invalidation.echoed

    async def _beaten(self, beat: Beat) -> None:
        core = self.subscriber.core
        if not beat.master:
            raise RemoteFailed("the server is no master any more")
        if self.phase is not Phase.PROVEN:  # identities were not compared yet: after a failover, the number may be B's
            self._answered()
            if not self.asked:
                await self._ask_greeting()
            return
        core.hold(beat.l1_share)
        # The counter is lost, was set back, or is another server's: a greeting makes a new one, above all numbers seen.
        last, history = core.invalidation.last, core.invalidation.history
        another = beat.number is None or beat.number < last or beat.history != history
        core.report(core.invalidation.beat(beat, self._answered(), core.runtime.monotonic()))
        self.subscriber.proofs.wake_all()
        if another:
            await self._ask_greeting()
            return
        await try_lacking_rights(core)
        if len(core.tier.journal):
            await replay_journal(core)
        await core.chores.begin_due()
