"""One attempt to load a value: look into L2, take a lease, call the loader, fill both tiers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nearcache.checks import seconds
from nearcache.current import CURRENT, Load, Loads, StaleValue
from nearcache.engine import stale
from nearcache.engine.core import Core
from nearcache.engine.entries import Encoded
from nearcache.engine.filling import fill, return_unversioned, turn_down
from nearcache.engine.leases import abort
from nearcache.engine.plain import Read
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.engine.read import fetch
from nearcache.engine.requests import Operation
from nearcache.engine.stale import Stale
from nearcache.engine.trouble import back_off, next_limit, note_stale, or_stale, stale_instead, timed_out
from nearcache.errors import LoaderTimeout
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.singleflight import Flight, Outcome, Purpose
from nearcache.local.waiters import Latch
from nearcache.policy import Policy
from nearcache.protocol.answers import Ask, Busy, Granted, Held, Present
from nearcache.protocol.versions import Version, created_of

Loader = Callable[[], Any]
POLL = 0.05
"""Seconds between looks while another instance loads and no message can wake this reader."""
ANY: Version = -1
"""Below every version."""
NEWEST: Version = 1 << 255
"""Above every version."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt to get a value."""

    may_be_absent: ClassVar[bool] = False
    """Whether the reader can do without a value: its loader loads several keys, and may leave some out."""
    core: Core
    key: str
    loader: Loader
    policy: Policy
    flight: Flight
    """The reader's own flight, which others follow if it leads."""
    began: float
    """When the wait began (monotonic) that the loader's time limits are for."""
    until: float
    """How long to wait for another's load (monotonic)."""
    purpose: Purpose
    older_than: Version
    """What L2 has is taken if its version is higher."""
    ready: bool = False
    """Whether the search has ended in a load that is to be made here."""
    abandoned: bool = False
    """Whether it ended for a reason of its own, as a refresh without a lease: its followers look for themselves."""
    wait_is_over: bool = False
    fatal: BaseException | None = None
    """A cancellation or KeyboardInterrupt that ended the load in the background."""
    due: Version | None = None
    """The version of the value that was found and is to be refreshed in the background."""
    stale: Stale | None = None
    """The value that L2 has past its end."""
    away: bool = False
    """Whether Redis did not answer."""
    ended: float = 0.0
    """When the load has ended (monotonic)."""
    offset: float = 0.0
    """The server's clock minus ours then."""
    lease_id: bytes = b""
    grant: Granted | None = None
    found: Read | None = None
    """What L2 has answered."""
    said: Load | None = None
    """What the loader has said by ``current_load``."""
    dead: bool = False
    """Whether L2 has a record of the key, which was judged dead or is to be replaced."""

    # ------------------------------------------------------------------------------------------------------ searching

    async def look_up(self) -> Outcome | None:
        """Look into L2, and ask for the lease if it has nothing.

        Returns:
            The value. None: ``ready`` to load, or another load has ended, and L2 is to be asked again.
        """
        core, key = self.core, self.key
        outcome = self.look_into_l1()
        if outcome is not None:
            return outcome
        found = await fetch(core, key, self.policy)
        outcome = self.judge(found)
        if outcome is not None or self.ready:
            return outcome
        # Another instance has the lease · its F is published right after "busy" was answered · this reader begins to
        # wait, and nothing wakes it: it has to be among the waiters before it asks.
        news = core.runtime.latch()
        try:
            core.waiters.add(key, news)
            lease = await self._lease(found.head)
            if isinstance(lease, Granted):
                self.grant, self.ready = lease, True
                return None
            left = self.until - core.runtime.monotonic()
            if left > 0 and not isinstance(lease, Held):
                return None if isinstance(lease, Present) else await self._await_news(news, min(lease.remaining, left))
        except RemoteFailed:
            self.away = not core.requests.bypassed
        finally:
            core.waiters.remove(key, news)
        return self.begin_load(worth_it=False)

    def look_into_l1(self) -> Outcome | None:
        """The value that has come into L1 since the reader has missed it there."""
        # Reader 1 and reader 2 miss in L1 · 1 loads, its value comes into L1, and its flight ends · 2 enters a flight
        # of its own: without a second look it would ask Redis for what L1 has.
        core, key = self.core, self.key
        if self.purpose is not Purpose.VALUE or not (key in core.tier.entries or core.tier.fallback.used):
            return None
        entry = stale.fresh_entry(core, key)
        if entry is None:
            return None
        core.counters.l1_hits += 1
        return Outcome(core.entries.value_of(entry))

    def judge(self, found: Read) -> Outcome | None:
        """The value of what L2 has, if it can serve; None: ``ready`` to load, or the lease is to be asked for."""
        self.found = found
        core, failed = self.core, found.failure is not None
        if failed or not found.snapshot.trusted:
            self.away = not core.requests.bypassed if failed else core.away
            return self.begin_load(worth_it=not failed)
        if found.raw is not None:
            served = self._served(found)
            if served is not None:
                return served
        if self.purpose is Purpose.AFTER_WAIT or core.requests.denied is not None:
            return self.begin_load(worth_it=core.requests.denied is None)
        return None

    async def _await_news(self, news: Latch, patience: float) -> Outcome | None:
        """Wait for another instance's load; None: ask L2 again."""
        core = self.core
        now = core.runtime.monotonic()
        patience = min(patience, next_limit(self, now) - now)
        if await news.wait(patience if core.tier.synced else min(patience, POLL)) or self.purpose is Purpose.REFRESH:
            return None
        outcome = timed_out(self, core.runtime.monotonic())
        self.abandoned = outcome is not None
        return outcome

    def begin_load(self, *, worth_it: bool = True) -> Outcome | None:
        """Load now; but a refresh does so only under a lease: its readers have a value."""
        if self.purpose is Purpose.REFRESH and not worth_it:
            self.abandoned = True
            back_off(self)  # else each reader would start a refresh that gets no lease
            return Outcome()
        self.ready = True
        return None

    def _served(self, found: Read) -> Outcome | None:
        """The value of a record that can serve at once."""
        core, entry = self.core, found.entry
        if entry is not None and entry.version > self.older_than:
            if self.purpose is Purpose.VALUE and stale.due(core, self.key, entry, self.policy):
                self.due = entry.version
            return Outcome(found.value)
        self.stale = found.stale
        if self.purpose is not Purpose.VALUE or self.stale is None:
            return None
        if self.stale.while_revalidating(self.policy):
            note_stale(self, self.stale)
            served = stale.serve_meanwhile(core, self.key, self.stale)
            self.due = served.older_than
            return Outcome(served.value, stale=True)
        return stale_instead(self) if stale.backing_off(core, self.key) else None

    def new_load(self) -> Load:
        """What the loader may ask, and say, about the load of this key."""
        self.said = Load(self.key, self.policy.tags, self._old_value)
        return self.said

    def _old_value(self) -> StaleValue | None:
        """The value that the load is to replace, for the loader."""
        core, found = self.core, self.found
        if found is not None and found.stale is not None:
            value, entry = found.stale.value, found.stale.entry
        elif found is not None and found.entry is not None:
            value, entry = found.value, found.entry
        else:
            here = core.tier.last_resort(self.key, away=self.away)
            if here is None or not here.version:
                return None
            value, entry = core.entries.value_of(here), here
        return StaleValue(value, max(0.0, (core.requests.server_now() - created_of(entry.version)) / 1e6))

    async def _lease(self, head: bytes) -> Granted | Busy | Held | Present:
        """Ask for the lease. Without an answer it may have been granted all the same, and is given back."""
        core, policy = self.core, self.policy
        lease_ms = max(1, int(policy.lease * 1000))
        ask, method, deadline = self.ask(head), core.remote.lease, core.requests.deadline()
        try:
            return (await core.requests.ask(Operation.LEASE, method, (ask,), lease_ms, policy.tags, deadline))[0]
        except NotSent:
            raise
        except RemoteFailed:
            core.unused_leases.append((self.key, self.lease_id))
            raise
        except BaseException:
            await core.runtime.settle(abort(core, ((self.key, self.lease_id),)))
            raise

    def ask(self, head: bytes) -> Ask:
        """A new request for the lease of a key whose record begins so."""
        self.lease_id, self.dead = os.urandom(16), bool(head)
        return Ask(self.key, self.lease_id, head)

    async def give_lease_back(self) -> None:
        """Give the lease back: the load is not made."""
        if self.grant is not None:
            await abort(self.core, ((self.key, self.lease_id),))

    # -------------------------------------------------------------------------------------------------------- loading

    async def load(self) -> Outcome:
        """Call the loader; fill both tiers if there is a lease and no write came between."""
        core, encoded, sure = self.core, None, False
        began = core.runtime.monotonic()
        try:
            outcome, load_ms = await self.call(began, self.loader, (self,))
            if outcome.error is not None:
                return or_stale(self, outcome)
            if self.keeps:
                encoded = self.encode(outcome.value, load_ms)
            if self.grant is not None:
                if encoded is None:
                    sure = self in await turn_down(core, (self,))
                elif self in await fill(core, ((self, encoded),)):
                    return outcome
        finally:
            if self.grant is not None:
                await core.runtime.settle(self.give_lease_back())
        return_unversioned(self, encoded, began, sure=sure)
        return outcome

    @property
    def keeps(self) -> bool:
        """Whether a loaded value is stored, or kept aside."""
        return self.grant is not None or self.away or self.policy.stale_if_error > 0

    async def call(self, began: float, loader: Loader, batch: Sequence[Attempt]) -> tuple[Outcome, int]:
        """Call a loader, with a permit where loads are limited, and count.

        Args:
            began: when the load began (monotonic).
            loader: loads for all of the batch.
            batch: this attempt, and others whose keys the same call loads.

        Returns:
            Its outcome, and the ms it took.
        """
        core, loads = self.core, self.core.loads
        for one in batch:
            core.counters.misses += one.purpose is not Purpose.REFRESH
        # Inside a load that has a permit it would wait for itself.
        limited = loads.limited(began, away=self.away) and loads.permitted.isdisjoint(core.runtime.callers())
        for one in batch:
            one.flight.queues = limited
        permit = await loads.acquire(self.until - began) if limited else None
        if limited and permit is None:
            limit = core.settings.max_concurrent_loads
            late = LoaderTimeout(f"{self.key!r} was not loaded: max_concurrent_loads={limit} others were for too long")
            return Outcome(error=late), 0
        me = core.runtime.callers()[-1] if limited else None
        try:
            for one in batch:
                one.flight.queues = False
            if limited:
                loads.permitted.add(me)
                began = core.runtime.monotonic()
            core.counters.loads += 1
            loaded = loads.of(self.loader)
            loaded.loads += 1
            said: Load = Loads({one.key: one.new_load() for one in batch}) if self.may_be_absent else self.new_load()
            current = CURRENT.set(said)
            try:
                outcome = await core.runtime.load(loader)
            finally:
                said.end()
                CURRENT.reset(current)
        finally:
            if limited:
                loads.permitted.discard(me)
                loads.release(permit)
        core.counters.load_errors += outcome.error is not None
        ended = core.runtime.monotonic()
        offset = core.requests.offset(ended)
        for one in batch:
            one.ended, one.offset = ended, offset
        core.counters.load_seconds += ended - began
        loaded.seconds += ended - began
        return outcome, int(1000 * (ended - began))

    def encode(self, value: object, load_ms: int) -> Encoded | None:
        """A loaded value as it can be stored; None: it is returned to the caller uncached."""
        core = self.core
        try:
            if self.said is not None and not self._obey(self.said):
                return None
            encoded = core.entries.encode(self.key, value, self.policy, load_ms)
            core.loads.of(self.loader).kept += encoded is not None
            return encoded
        except Exception as error:  # the codec, ttl and condition may be the user's
            if from_signal_handler(error):
                raise
            core.not_cached(self.key, self.loader, error)
            return None

    def _obey(self, said: Load) -> bool:
        """Take over what the loader has said by ``current_load``; whether the value is to be stored at all.

        Raises:
            ConfigError, InvalidKey: the ttl is no ttl, or a tag no tag.
        """
        if said.ttl is not None:
            self.policy = replace(self.policy, ttl=seconds("ttl", said.ttl), negative_ttl=None)
        asked = self.policy.tags
        if not said.tags <= set(asked):
            self.policy = self.policy.with_tags({*asked, *said.tags})
            if self.grant is not None:
                given = dict(zip(asked, self.grant.tag_floors, strict=True))
                self.grant = self.grant._replace(tag_floors=tuple(given.get(tag, 0) for tag in self.policy.tags))
        return not said.skipped

    def pack(self, value: object) -> bytes | None:
        """The bytes of the value for followers; None: they share it."""
        return self.core.entries.pack(value, self.policy)
