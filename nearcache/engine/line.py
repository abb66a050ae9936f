"""Keep the connection to one server that has some buckets: what comes for each, and which come and go.

It runs on a thread or task of its own, so that a server that hangs delays no other.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcache.engine.breaker import Breaker
from nearcache.engine.bucket_subscriber import BucketSubscriber
from nearcache.engine.bus_state import BusState, Phase
from nearcache.engine.ports import Bus, News, RemoteFailed, SharedBus
from nearcache.engine.replay import LONGEST_PAUSE, replay_journal
from nearcache.engine.rights import try_rights
from nearcache.engine.subscriber import BACKOFF
from nearcache.engine.subscription import Subscription
from nearcache.protocol.answers import BusItem

if TYPE_CHECKING:
    from nearcache.engine.lines import Lines

_MESSAGES = frozenset({bytes})
LOOK = 0.1
"""Seconds after which a line looks whether it has other buckets."""


@dataclass(slots=True, eq=False)
class Line:
    """The connection to one server, made again until no bucket is there."""

    lines: Lines
    place: Hashable
    breaker: Breaker
    wanted: frozenset[int] = frozenset()
    """The buckets that are there, as far as is known."""
    over: bool = False
    """Whether it has ended; decided under the lock of the tier, as what is wanted is."""
    _bus: SharedBus | None = None
    _followed: frozenset[int] | None = None
    """The buckets that were wanted when they were last compared with those that are subscribed."""
    _due: float = 0.0
    """When a bucket has something to do next (monotonic)."""
    _replay_at: float = 0.0
    """When the journals of refused buckets, for which no heartbeat does it, are replayed next (monotonic)."""

    def interrupt(self) -> None:
        """End the present connection."""
        if self._bus is not None:
            self._bus.interrupt()

    async def run(self) -> None:
        """Keep the connection."""
        core, failures = self.lines.core, 0
        try:
            while not self._ends():
                began = core.runtime.monotonic()
                proven = await self._attempt()
                lasted = proven and core.runtime.monotonic() - began > core.settings.reconnect_max
                failures = 0 if lasted else failures + 1
                refused = [one for one in self._members() if one._refused]  # noqa: SLF001  # of the base class
                for one in refused:
                    await try_rights(one.core, "")
                    await replay_journal(one.core)
                longest = LONGEST_PAUSE if refused else core.settings.reconnect_max
                pause = random.uniform(0, min(longest, BACKOFF * 2 ** min(failures, 16)))
                await self.lines.stop.wait(pause)
        finally:
            self.over = True

    def _ends(self) -> bool:
        with self.lines.core.tier.lock:
            self.over = self.lines.ended or not self.wanted
            return self.over

    def _members(self) -> list[BucketSubscriber]:
        return [self.lines.buckets[bucket] for bucket in sorted(self.wanted)]

    async def _attempt(self) -> bool:
        """One connection from beginning to end; whether any bucket was proven by it."""
        bus = self._bus = self.lines.places.new_bus(self.place)
        feeds: dict[Bus, Subscription] = {}
        proven = False
        failure = RemoteFailed("closed")
        try:
            await bus.open()
            while not self.lines.ended and (self.wanted or feeds):
                if len(feeds) != len(self.wanted) or self._followed is not self.wanted:
                    await self._follow(bus, feeds)
                news = await self._receive(bus, feeds)
                if len(news) == 1 and news[0][0] in feeds and _MESSAGES.issuperset(map(type, news[0][1])):
                    # As nearly always: what is below, with fewer calls.
                    await feeds[news[0][0]].take(news[0][1])  # type: ignore[arg-type]  # there is no failure among them
                    continue
                with self.lines.core.as_one():
                    for channel, items in news:
                        if channel in feeds:
                            await self._take(bus, feeds, channel, items)
                await self._take_empty(feeds)
                proven = proven or any(feed.phase is Phase.PROVEN for feed in feeds.values())
        except RemoteFailed as known:
            failure = known
        except Exception as mistake:  # noqa: BLE001  # no mistake may end the bus for good
            failure = RemoteFailed(f"unexpected: {mistake!r}")
        finally:
            self.breaker.bus_down()
            for feed in feeds.values():
                feed.subscriber.lost(feed)
            await bus.close()
        subscribers = {id(feed.subscriber): feed.subscriber for feed in feeds.values()}
        subscribers |= {id(one): one for one in self._members() if one.core.bus_state is not BusState.PROVEN}
        for subscriber in subscribers.values():
            subscriber.end_of_attempt(failure)
        return proven

    async def _follow(self, bus: SharedBus, feeds: dict[Bus, Subscription]) -> None:
        """Subscribe to the buckets that have come, and leave those that have gone."""
        wanted = self.wanted
        kept = {feed.subscriber.core.tier.proof.bucket: channel for channel, feed in feeds.items()}
        self._followed = wanted
        if kept.keys() == wanted:
            return
        for bucket in kept.keys() - wanted:
            await self._lose(bus, feeds, kept[bucket], RemoteFailed("the bucket has moved to another server"))
        now = self.lines.core.runtime.monotonic()
        for bucket in sorted(wanted - kept.keys()):
            subscriber = self.lines.buckets[bucket]
            if now < subscriber.joined_after:
                continue
            channel = await bus.join(bucket)
            subscriber.core.requests.bus = channel
            feeds[channel] = feed = Subscription(subscriber, channel)
            await feed.begin()
        if now >= self._replay_at:
            self._replay_at = now + self.lines.core.settings.reconnect_max
            for one in self._members():
                if one._refused:  # noqa: SLF001  # of the base class
                    await replay_journal(one.core)

    async def _receive(self, bus: SharedBus, feeds: dict[Bus, Subscription]) -> Sequence[tuple[Bus, Sequence[News]]]:
        now = self.lines.core.runtime.monotonic()
        if now >= self._due:  # not at each message: each bucket would be asked what it has to do
            wait = LOOK
            soon = now + self.lines.core.settings.max_staleness / 8
            if any(now >= feed.next_beat for feed in feeds.values()):
                for feed in feeds.values():  # their heartbeats go together
                    feed.next_beat = now if feed.next_beat <= soon else feed.next_beat
            for feed in feeds.values():
                wait = min(wait, await feed.until_next())
            self._due = now + wait
        news = await bus.receive(max(0.0, self._due - now))
        if not news and any(feed.silent for feed in feeds.values()):
            news = await bus.receive(0.0)
            if not news:
                raise RemoteFailed("the server does not answer")
        if not news:
            for channel in tuple(feeds):  # something may be overdue
                await self._take(bus, feeds, channel, ())
        return news

    async def _take(self, bus: SharedBus, feeds: dict[Bus, Subscription], channel: Bus, items: Sequence[News]) -> None:
        """Apply what has come for one bucket; a failure among it is the end of this bucket here, and of no other."""
        good: list[BusItem] = []
        failure = None
        for item in items:
            if isinstance(item, RemoteFailed):
                failure = item
                break  # what stands behind it proves nothing: where a subscription is refused, a greeting does
            good.append(item)
        if good or failure is None:
            await feeds[channel].take(good)
        if failure is None:
            return
        one = self.lines.buckets[feeds[channel].subscriber.core.tier.proof.bucket]
        await self._lose(bus, feeds, channel, failure)
        if one.core.bus_state.refused:
            await one.refused()
            return
        with self.lines.core.tier.lock:
            self.wanted -= {one.core.tier.proof.bucket}
        self.lines.news.set()

    async def _take_empty(self, feeds: dict[Bus, Subscription]) -> None:
        """Greet the buckets that are empty again as soon as they may be taken."""
        for feed in feeds.values():
            one = self.lines.buckets[feed.subscriber.core.tier.proof.bucket]
            if one.empty is None:
                continue
            if not one.empty.may():
                self.lines.leave_empty(one, one.empty.why())
            elif not feed.asked:  # else the answer to the heartbeat asks; two greetings would be one before its probe
                one.empty = None
                await feed.ask_greeting()

    async def _lose(self, bus: SharedBus, feeds: dict[Bus, Subscription], channel: Bus, failure: RemoteFailed) -> None:
        feed = feeds.pop(channel)
        feed.subscriber.lost(feed)
        feed.subscriber.end_of_attempt(failure)
        await bus.leave(channel)
