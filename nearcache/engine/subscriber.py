"""Keep the bus: connect, prove, listen, beat; and when it is lost, do it again, for ever.

A heartbeat is asked every ``max_staleness / 4``. When none is answered for ``max_staleness / 2``, the socket is read
once more, since this process may have stalled, and then the connection is given up: a half-open one is never noticed
otherwise.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nearcache.engine.core import Core
from nearcache.engine.leases import give_back
from nearcache.engine.ports import Bus, BusRefused, Incompatible, RemoteFailed, RemoteMisconfigured
from nearcache.engine.replay import drain
from nearcache.events import BreakerClosed, CoherenceFailed, Connected, Disconnected
from nearcache.local.deferred import PAUSE
from nearcache.local.waiters import Latch, Waiters
from nearcache.protocol.answers import Beat, BusItem, Greeting

BACKOFF = 0.02
"""Seconds of the first pause; it doubles up to ``reconnect_max``, with full jitter."""


@dataclass(slots=True, eq=False)
class Listener:
    """The one who keeps the bus of a cache."""

    core: Core
    stop: Latch
    """Set: end."""
    tried: Latch
    """Set when the first attempt has ended."""
    news: Waiters = field(default_factory=Waiters)
    """Who waits for the next proof after a loss."""
    refusal: RemoteMisconfigured | None = None
    """Why the server can never be used as set up, while that is so."""
    refused: bool = False
    """Whether the server was reached at the last attempt, but would not do."""
    absent: bool = False
    """Whether it has been told that there is no bus."""
    probed: bool = False
    """Whether a probe of ours has come back."""
    stopping: bool = False

    async def run(self) -> None:
        """Until ``stop``; once only."""
        if self.core.bus_state != "idle":
            return
        failures = 0
        self.core.bus_state = "connecting"
        while not self.stopping:
            began = self.core.runtime.monotonic()
            failure, proven = await self._attempt()
            self._lost(failure, proven=proven)
            self.tried.set()
            if self.refused and not self.core.bypassed:  # without a bus, what is journalled is drained here
                await drain(self.core)
            # One that is proven and lost again at once is no success: it shall not be tried without a pause for ever.
            lasted = proven and self.core.runtime.monotonic() - began > self.core.settings.reconnect_max
            failures = 0 if lasted else failures + 1
            pause = min(self.core.settings.reconnect_max, BACKOFF * 2 ** min(failures, 16))
            if not self.stopping and await self.stop.wait(random.uniform(0, pause)):
                return

    def end(self) -> None:
        """Stop; who waits for a proof waits no longer. The bus's own wait is for its face to end."""
        self.stopping = True
        self.stop.set()
        self.tried.set()
        self.news.wake_all()

    async def first_use(self) -> None:
        """Let the bus come up, so that the very first values can go to L1; no longer than a read may take (G7)."""
        await self.tried.wait(self.core.settings.redis_timeout)

    async def first_attempt(self) -> RemoteMisconfigured | None:
        """Wait until the first attempt has ended; why the server can never be used, if that is so."""
        settings = self.core.settings
        if self.core.new_bus is not None:
            await self.tried.wait(settings.redis_connect_timeout + 2 * settings.redis_timeout)
        return self.refusal

    async def wait_healthy(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until L1 is proven; whether it is."""
        runtime = self.core.runtime
        until = runtime.monotonic() + timeout
        while True:
            news = runtime.latch()
            self.news.add("", news)
            try:
                left = until - runtime.monotonic()
                if self.core.healthy or left <= 0 or self.stopping or not await news.wait(left):
                    return self.core.healthy
            finally:
                self.news.remove("", news)

    async def _attempt(self) -> tuple[RemoteFailed, bool]:
        """One connection from beginning to end: how it ended, and whether it was ever proven."""
        core = self.core
        assert core.new_bus is not None  # noqa: S101  # a cache without a bus has no listener
        bus = core.bus = core.new_bus()
        connection = Connection(self, bus)
        failure = RemoteFailed("closed")
        try:
            await bus.open()
            await connection.listen()
        except RemoteFailed as known:
            failure = known
        except Exception as mistake:  # noqa: BLE001  # whatever it is, it must not end the bus for good
            failure = RemoteFailed(f"unexpected: {mistake!r}")
        finally:
            core.breaker.bus_down()
            if connection.proven:
                core.invalidation.lost()
                core.waiters.wake_all()
                core.remote.discard_idle()
            await bus.close()
        return failure, connection.proven

    def _lost(self, failure: RemoteFailed, *, proven: bool) -> None:
        """Tell, once each, that the bus is lost or was refused; after the loss has been applied."""
        if self.stopping:
            return
        first, self.absent = not self.absent, True
        self.core.bypassed |= isinstance(failure, Incompatible)
        refused = isinstance(failure, RemoteMisconfigured | BusRefused | Incompatible)
        if refused:
            self.core.breaker.bus_reached()
            if not self.refused:
                self.core.emit(CoherenceFailed(str(failure)))
        elif proven or first:
            self.core.emit(Disconnected(str(failure)))
        self.refused = refused
        self.core.bus_state = "refused" if refused else "lost"
        self.refusal = failure if isinstance(failure, RemoteMisconfigured) else None

    def proved(self, kept: int) -> None:
        """The bus is back."""
        self.absent, self.refused, self.refusal = False, False, None
        self.core.bypassed = False
        self.core.bus_state = "proven"
        if self.core.breaker.bus_up():
            self.core.emit(BreakerClosed())
        self.core.emit(Connected(kept))
        self.tried.set()
        self.news.wake_all()


@dataclass(slots=True, eq=False)
class Connection:
    """One subscribed connection."""

    listener: Listener
    bus: Bus
    proven: bool = False
    asked: deque[float] = field(default_factory=deque)
    """When the questions that are not answered yet were asked, oldest first."""
    probed: bool = False
    prepared: bool = False
    """Whether the probe was sent and the journal drained."""

    async def listen(self) -> None:
        """Ask, and take in what comes, until the connection fails."""
        core = self.listener.core
        staleness = core.settings.max_staleness
        monotonic = core.runtime.monotonic
        await self._ask(greeting=True)
        next_beat = monotonic() + staleness / 4
        while not self.listener.stopping:
            now = monotonic()
            if now >= next_beat:
                next_beat = now + staleness / 4
                await self._ask(greeting=False)
            wait = min(next_beat, self._patience()) - now
            if core.tier.free_some():
                wait = min(wait, PAUSE)
            items = await self.bus.receive(max(0.0, wait))
            if not items and monotonic() >= self._patience():
                items = await self.bus.receive(0.0)
                if not items:
                    raise RemoteFailed("the server does not answer")
            await self._take(items)
            if core.invalidation.ahead is not None:
                core.report(core.invalidation.overdue(monotonic()))
            if core.invalidation.expected is not None:
                broken = core.invalidation.missing_own_write(monotonic())
                if broken.flushes:
                    core.report(broken)
                    raise RemoteFailed("the bus does not bring what was written")

    def _patience(self) -> float:
        """When silence has lasted too long."""
        return self.asked[0] + self.listener.core.settings.max_staleness / 2 if self.asked else float("inf")

    async def _ask(self, *, greeting: bool) -> None:
        self.asked.append(self.listener.core.runtime.monotonic())
        await (self.bus.ask_greeting() if greeting else self.bus.ask_beat())

    def _answered(self) -> float:
        """When the question was asked that is answered now."""
        core = self.listener.core
        asked_at = self.asked.popleft()
        core.round_trip = core.runtime.monotonic() - asked_at
        return asked_at

    async def _take(self, items: Sequence[BusItem]) -> None:
        """Apply what came, in order; a run of messages under one hold of the lock."""
        core = self.listener.core
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
        core = self.listener.core
        asked_at = self._answered()
        if not greeting.master:
            raise RemoteFailed("the server is no master")
        if not self.prepared:
            self.prepared = True
            core.breaker.bus_reached()
            core.invalidation.greeted(greeting)
            probed = await self._probe()
            if await drain(core, probing=True) or probed:  # before L1 is trusted: ask again where the counter stands
                await self._ask(greeting=True)
                return
        if core.invalidation.nonce is not None:  # it was published before the server answered, so it should have come
            raise BusRefused("a probe published through the server did not come back on the bus")
        self.listener.probed |= self.probed
        effects, kept = core.invalidation.back(greeting, asked_at, prove=core.settings.on_reconnect == "prove")
        core.report(effects)
        if not self.proven:
            self.proven = True
            self.listener.proved(kept)

    async def _probe(self) -> bool:
        """At the start: what is published has to come back, or coherence does not work; whether it was published."""
        core = self.listener.core
        if not self.listener.probed:
            core.invalidation.nonce = os.urandom(16).hex()
            try:
                await core.ask(core.remote.probe, core.invalidation.nonce)
                self.probed = True
            except RemoteFailed:  # commands do not work now; that tells nothing about the bus
                core.invalidation.nonce = None
        return self.probed

    async def _beaten(self, beat: Beat) -> None:
        core = self.listener.core
        if not beat.master:
            raise RemoteFailed("the server is no master any more")
        core.report(core.invalidation.beat(beat, self._answered(), core.runtime.monotonic()))
        self.listener.news.wake_all()
        if beat.number is None:  # the counter is lost: have it made anew, and begin from there
            await self._ask(greeting=True)
        elif len(core.tier.journal):
            await drain(core)
