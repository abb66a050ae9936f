"""Keep the buses of a cache of several buckets: one connection, a line, to each server that has some of them.

Each bucket has a Subscription of its own on the line of its server: it is greeted, proven and lost by itself. Where the
buckets are is asked anew whenever one of them is lost; a bucket that has moved is lost on its old line, and is proven,
or flushed, on the new one. Each line runs on a thread or task of its own, so that a server that hangs delays no other.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from nearcache.engine.breaker import Breaker
from nearcache.engine.bucket_subscriber import BucketSubscriber, Tried
from nearcache.engine.buckets import address_of
from nearcache.engine.bus_state import GRAVITY, BusSignal, BusState, Phase, Report
from nearcache.engine.ports import (
    Background,
    Bus,
    Incompatible,
    News,
    Places,
    RemoteFailed,
    RemoteMisconfigured,
    SharedBus,
)
from nearcache.engine.replay import LONGEST_PAUSE, replay_journal
from nearcache.engine.rights import try_rights
from nearcache.engine.subscriber import BACKOFF, Subscriber
from nearcache.engine.subscription import Subscription
from nearcache.local.waiters import Latch
from nearcache.protocol.answers import BusItem

_MESSAGES = frozenset({bytes})
LOOK = 0.1
"""Seconds after which a line looks whether it has other buckets."""
STEADY = 30.0
"""Seconds after which the places of the buckets are asked again, though none is lost."""


@dataclass(slots=True, eq=False)
class Lines(Subscriber):
    """Keeps the buses of all buckets."""

    places: Places = field(kw_only=True)
    buckets: tuple[BucketSubscriber, ...] = ()
    news: Latch = field(init=False)
    """Set when the places have to be asked anew."""
    lines: dict[Hashable, Line] = field(default_factory=dict)
    running: list[Background] = field(default_factory=list)

    def __post_init__(self) -> None:
        core = self.core
        self.news = core.runtime.latch()
        self.places.trouble = self.ask_anew
        missing = set(range(len(core.parts)))
        self.buckets = tuple(
            BucketSubscriber(part, self.stop, Tried(bucket, missing, self.tried), self.proofs, observe=self.observe)
            for bucket, part in enumerate(core.parts)
        )

    async def run(self) -> None:
        """Keep the buses until ``end`` is called; once only."""
        core = self.core
        if core.bus_state is not BusState.IDLE:
            return
        self._advance(BusSignal.START)
        for bucket in self.buckets:
            bucket._advance(BusSignal.START)  # noqa: SLF001  # of the base class
        failures = 0
        try:
            while not self.ended:
                self.news = core.runtime.latch()
                try:
                    owners = await self.places.owners()
                except RemoteFailed as failure:
                    failures += 1
                    self._nobody_knows(failure)
                else:
                    self._assign(owners)
                    states = [one.core.bus_state for one in self.buckets]
                    lost = any(state is not BusState.PROVEN and not state.refused for state in states)
                    failures = failures + 1 if lost else 0
                await self._pause(failures)
        finally:
            for line in tuple(self.lines.values()):
                line.interrupt()
            for background in self.running:
                background.cancel(0.0)

    async def first_attempt(self) -> RemoteFailed | None:
        """See Subscriber; the primary is named, since each may be set up in another way."""
        failure = await Subscriber.first_attempt(self)
        for part in sorted(self.core.parts, key=lambda part: part.bus_state is not BusState.MISCONFIGURED):
            why = part.bus_failure if part.bus_state is BusState.MISCONFIGURED else part.requests.denied
            if failure is not None and why is not None and isinstance(part.place, tuple):
                return RemoteMisconfigured(f"primary {address_of(part.place)}: {why}")
        return failure

    def ask_anew(self) -> None:
        """Ask where the buckets are: a node has said that one is elsewhere."""
        self.news.set()

    async def _pause(self, failures: int) -> None:
        """Wait for news, and a little longer when there were some just now: a failover takes seconds."""
        if not failures:
            await self.news.wait(STEADY)
        longest = self.core.settings.reconnect_max
        await self.stop.wait(random.uniform(0.5, 1.0) * min(longest, BACKOFF * 2 ** min(max(failures, 1), 16)))

    def _nobody_knows(self, failure: RemoteFailed) -> None:
        for bucket in self.buckets:
            if bucket.core.bus_state is BusState.CONNECTING:
                bucket.core.breaker.bus_down()
                bucket.end_of_attempt(failure)

    def _assign(self, owners: Sequence[Hashable | None]) -> None:
        """Let each bucket be kept by the line of its place."""
        with self.core.tier.lock:
            self.lines = {place: line for place, line in self.lines.items() if not line.over}
            wanted: dict[Hashable, set[int]] = {place: set() for place in self.lines}
            for bucket, place in enumerate(owners):
                self.core.parts[bucket].place = place
                if place is not None:
                    wanted.setdefault(place, set()).add(bucket)
                elif self.core.parts[bucket].bus_state is BusState.CONNECTING:
                    self.buckets[bucket].end_of_attempt(RemoteFailed("no node of the cluster has the bucket"))
            begun = []
            for place, buckets in wanted.items():
                line = self.lines.get(place)
                if line is None:
                    settings = self.core.settings
                    breaker = Breaker(settings.breaker_failures, settings.breaker_reset)
                    line = self.lines[place] = Line(self, place, breaker)
                    begun.append(line)
                line.wanted = frozenset(buckets)
                for bucket in buckets:
                    part = self.core.parts[bucket]
                    part.breaker = part.requests.breaker = line.breaker
        for line in begun:
            background = self.core.runtime.start(line.run(), "nearcache-bus")
            if background is None:
                line.over = True
            else:
                self.running.append(background)

    def observe(self) -> None:
        """Make the state of the whole that of its buckets; another protocol in one of them keeps the namespace."""
        core = self.core
        with core.tier.lock:
            if self.ended:
                return
            states = [part.bus_state for part in core.parts]
            core.bus_state = min(states, key=GRAVITY.index)
            for part in core.parts:
                part.requests.bypassed = BusState.INCOMPATIBLE in states
            self.failure = next((one.failure for one in self.buckets if one.failure is not None), None)
        if core.bus_state is not BusState.PROVEN:
            self.news.set()

    def leave_empty(self, one: BucketSubscriber, why: str) -> None:
        """Report that an empty bucket may not be taken, when all others have answered, or can't (X)."""
        states = [part.bus_state for part in self.core.parts]
        foreign = BusState.INCOMPATIBLE in states
        if one.core.bus_state is (BusState.INCOMPATIBLE if foreign else BusState.LOST):
            return
        if all(state is not BusState.CONNECTING or self._stays_empty(at) for at, state in enumerate(states)):
            one.end_of_attempt(Incompatible(why) if foreign else RemoteFailed(why))

    def _stays_empty(self, bucket: int) -> bool:
        empty = self.buckets[bucket].empty
        return empty is not None and not empty.may()

    def end(self) -> None:
        """Stop, and wake the callers that wait for a proof."""
        for bucket in self.buckets:
            bucket._advance(BusSignal.CLOSE)  # noqa: SLF001  # of the base class
        Subscriber.end(self)
        self.news.set()

    def _advance(self, signal: BusSignal) -> Report:
        return Subscriber._advance(self, signal)  # noqa: SLF001  # of the base class


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
