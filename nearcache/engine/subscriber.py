"""Keep the bus: connect, listen as long as the connection lives, and begin again when it is lost."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from nearcache.engine.bus_state import BusSignal, BusState, Phase, Report, advance
from nearcache.engine.core import Core
from nearcache.engine.ports import BusRefused, Incompatible, RemoteFailed, RemoteMisconfigured
from nearcache.engine.replay import LONGEST_PAUSE, replay_journal
from nearcache.engine.rights import try_rights
from nearcache.engine.subscription import Subscription
from nearcache.events import BreakerClosed, CoherenceFailed, Connected, Disconnected
from nearcache.local.waiters import Latch, Waiters
from nearcache.protocol.answers import Empty

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
    empty: Empty | None = None
    """The last answer to a greeting, if the bucket is empty and may not be taken."""

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
        self.empty = None
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
