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
from nearcache.engine.bus_state import GRAVITY, BusSignal, BusState, Report
from nearcache.engine.line import Line
from nearcache.engine.ports import Background, Incompatible, Places, RemoteFailed, RemoteMisconfigured
from nearcache.engine.subscriber import BACKOFF, Subscriber
from nearcache.local.waiters import Latch

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
