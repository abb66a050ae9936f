"""One connection of the bus: greeting and proof of L1, messages, heartbeats.

A heartbeat is sent every ``max_staleness / 4``. When none is answered for ``max_staleness / 2``, the socket is read
once more, since this process may have stalled, and then the connection is closed: a half-open one would never be
noticed otherwise.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearcache.engine.bus_state import Phase
from nearcache.engine.leases import give_back
from nearcache.engine.ports import Bus, BusRefused, RemoteFailed
from nearcache.engine.replay import replay_journal
from nearcache.engine.rights import try_lacking_rights, try_rights
from nearcache.local.deferred import PAUSE
from nearcache.protocol.answers import Beat, BusItem, Empty, Greeting

if TYPE_CHECKING:
    from nearcache.engine.subscriber import Subscriber

FAR = float("inf")


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
        await self.ask_greeting()
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

    async def ask_greeting(self) -> None:
        """Ask where the counter stands."""
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
                self.subscriber.empty = None
                await self._greeted(item)
            elif isinstance(item, Empty):  # heartbeats ask again
                self._answered()
                self.subscriber.lost(self)
                self.subscriber.empty, self.phase = item, Phase.SUBSCRIBED
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
                await self.ask_greeting()
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
                await self.ask_greeting()
            return
        core.hold(beat.l1_share)
        # The counter is lost, was set back, or is another server's: a greeting makes a new one, above all numbers seen.
        last, history = core.invalidation.last, core.invalidation.history
        another = beat.number is None or beat.number < last or beat.history != history
        core.report(core.invalidation.beat(beat, self._answered(), core.runtime.monotonic()))
        self.subscriber.proofs.wake_all()
        if another:
            await self.ask_greeting()
            return
        await try_lacking_rights(core)
        if len(core.tier.journal):
            await replay_journal(core)
        await core.chores.begin_due()
