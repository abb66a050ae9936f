"""One attempt to load a value: look into L2, take a lease, call the loader, fill both tiers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nearcache.checks import seconds
from nearcache.current import CURRENT, Load, StaleValue
from nearcache.engine import stale, write
from nearcache.engine.core import Core
from nearcache.engine.entries import Encoded
from nearcache.engine.leases import abort
from nearcache.engine.plain import Read
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.engine.read import fetch
from nearcache.engine.requests import Operation
from nearcache.engine.stale import Stale
from nearcache.engine.trouble import back_off, note_stale, or_stale, stale_instead, timed_out, until_next_limit
from nearcache.errors import LoaderTimeout
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.marks import Mark
from nearcache.local.singleflight import Flight, Outcome, Purpose
from nearcache.local.waiters import Latch
from nearcache.policy import Policy
from nearcache.protocol.answers import Busy, Granted, Held, Present
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
    _lease_id: bytes = b""
    _grant: Granted | None = None
    _found: Read | None = None
    """What L2 has answered."""
    _said: Load | None = None
    """What the loader has said by ``current_load``."""
    _dead: bool = False
    """Whether L2 has a record of the key, which was judged dead or is to be replaced."""

    # ------------------------------------------------------------------------------------------------------ searching

    async def look_up(self) -> Outcome | None:
        """Look into L2, and ask for the lease if it has nothing.

        Returns:
            The value. None: ``ready`` to load, or another load has ended, and L2 is to be asked again.
        """
        core, key = self.core, self.key
        # Reader 1 and reader 2 miss in L1 · 1 loads, its value comes into L1, and its flight ends · 2 enters a flight
        # of its own: without a second look it would ask Redis for what L1 has.
        if self.purpose is Purpose.VALUE and (key in core.tier.entries or core.tier.fallback.used):
            entry = stale.fresh_entry(core, key)
            if entry is not None:
                core.counters.l1_hits += 1
                return Outcome(core.entries.value_of(entry))
        found = self._found = await fetch(core, key, self.policy)
        failed = found.failure is not None
        if failed or not found.snapshot.trusted:
            self.away = not core.requests.bypassed if failed else core.away
            return self._begin_load(worth_it=not failed)
        head = b""
        if found.raw is not None:
            served, head = self._served(found), found.head
            if served is not None:
                return served
        if self.purpose is Purpose.AFTER_WAIT or core.requests.denied is not None:
            return self._begin_load(worth_it=core.requests.denied is None)
        # Another instance has the lease · its F is published right after "busy" was answered · this reader begins to
        # wait, and nothing wakes it: it has to be among the waiters before it asks.
        news = core.runtime.latch()
        try:
            core.waiters.add(key, news)
            lease = await self._lease(head)
            if isinstance(lease, Granted):
                self._grant, self.ready = lease, True
                return None
            left = self.until - core.runtime.monotonic()
            if left > 0 and not isinstance(lease, Held):
                return None if isinstance(lease, Present) else await self._await_news(news, min(lease.remaining, left))
        except RemoteFailed:
            self.away = not core.requests.bypassed
        finally:
            core.waiters.remove(key, news)
        return self._begin_load(worth_it=False)

    async def _await_news(self, news: Latch, patience: float) -> Outcome | None:
        """Wait for another instance's load; None: ask L2 again."""
        core = self.core
        patience = min(patience, until_next_limit(self, core.runtime.monotonic()))
        if await news.wait(patience if core.tier.synced else min(patience, POLL)) or self.purpose is Purpose.REFRESH:
            return None
        outcome = timed_out(self, core.runtime.monotonic())
        self.abandoned = outcome is not None
        return outcome

    def _begin_load(self, *, worth_it: bool = True) -> Outcome | None:
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

    def _old_value(self) -> StaleValue | None:
        """The value that the load is to replace, for the loader."""
        core, found = self.core, self._found
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
        self._lease_id, self._dead = os.urandom(16), bool(head)
        try:
            ask, deadline = core.remote.lease, core.requests.deadline()
            return await core.requests.ask(
                Operation.LEASE, ask, self.key, self._lease_id, head, lease_ms, policy.tags, deadline
            )
        except NotSent:
            raise
        except RemoteFailed:
            core.unused_leases.append((self.key, self._lease_id))
            raise
        except BaseException:
            await core.runtime.settle(abort(core, self.key, self._lease_id))
            raise

    async def give_lease_back(self) -> None:
        """Give the lease back: the load is not made."""
        if self._grant is not None:
            await abort(self.core, self.key, self._lease_id)

    # -------------------------------------------------------------------------------------------------------- loading

    async def load(self) -> Outcome:
        """Call the loader; fill both tiers if there is a lease and no write came between."""
        core, policy, encoded = self.core, self.policy, None
        began, given_back, sure = core.runtime.monotonic(), self._grant is None, False
        try:
            outcome, load_ms = await self._call(began)
            if outcome.error is not None:
                return or_stale(self, outcome)
            if self._grant is not None:
                encoded = self._encode(outcome.value, load_ms)
                if encoded is None:
                    sure = await self._turned_down()
                elif await self._fill(encoded, self._grant):
                    given_back = True
                    return outcome
                given_back = True
            elif self.away or policy.stale_if_error:
                encoded = self._encode(outcome.value, load_ms)
        finally:
            if not given_back:
                await core.runtime.settle(abort(core, self.key, self._lease_id))
        # It is returned without a version. Kept aside it serves while Redis is away, or after an error of a later load.
        entry = None
        if encoded is not None and (self.away or policy.stale_if_error):
            entry = core.entries.of_outage(encoded, began if self.away else None, policy)
        core.tier.returned_unversioned(self.key, None if sure else self._mark(), self.flight.snapshot, entry)
        return outcome

    async def _turned_down(self) -> bool:
        """Remove what L2 has of a key whose loaded value is not to be stored; whether nothing older can be there now.

        What was there is not what the loader means any more, and would be served stale. Where nothing was there, the
        lease alone is given back: if it was held to the end, nothing was written since.
        """
        if self._dead:
            return await write.remove(self.core, [self.key])
        return await abort(self.core, self.key, self._lease_id)

    def _mark(self) -> Mark:
        """The time at which the load has ended."""
        return Mark(self.ended, self.offset)

    async def _call(self, began: float) -> tuple[Outcome, int]:
        """Call the loader, with a permit where loads are limited, and count; its outcome, and the ms it took."""
        core, loads = self.core, self.core.loads
        core.counters.misses += self.purpose is not Purpose.REFRESH
        # Inside a load that has a permit it would wait for itself.
        limited = loads.limited(began, away=self.away) and loads.permitted.isdisjoint(core.runtime.callers())
        self.flight.queues = limited
        if limited and not await loads.acquire(self.until - began):
            limit = core.settings.max_concurrent_loads
            late = LoaderTimeout(f"{self.key!r} was not loaded: max_concurrent_loads={limit} others were for too long")
            return Outcome(error=late), 0
        me = core.runtime.callers()[-1] if limited else None
        try:
            self.flight.queues = False
            if limited:
                loads.permitted.add(me)
                began = core.runtime.monotonic()
            core.counters.loads += 1
            said = self._said = Load(self.key, self.policy.tags, self._old_value)
            current = CURRENT.set(said)
            try:
                outcome = await core.runtime.load(self.loader)
            finally:
                said.end()
                CURRENT.reset(current)
        finally:
            if limited:
                loads.permitted.discard(me)
                loads.release()
        core.counters.load_errors += outcome.error is not None
        self.ended = core.runtime.monotonic()
        self.offset = core.requests.offset(self.ended)
        core.counters.load_seconds += self.ended - began
        return outcome, int(1000 * (self.ended - began))

    def _encode(self, value: object, load_ms: int) -> Encoded | None:
        """A loaded value as it can be stored; None: it is returned to the caller uncached."""
        core = self.core
        try:
            if self._said is not None and not self._obey(self._said):
                return None
            return core.entries.encode(self.key, value, self.policy, load_ms)
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
            if self._grant is not None:
                given = dict(zip(asked, self._grant.tag_floors, strict=True))
                self._grant = self._grant._replace(tag_floors=tuple(given.get(tag, 0) for tag in self.policy.tags))
        return not said.skipped

    async def _fill(self, encoded: Encoded, grant: Granted) -> bool:
        """Offer a loaded value to L2, and put it into L1 if L2 took it; whether it did."""
        core, key = self.core, self.key
        try:
            written = await core.requests.ask(
                Operation.FILL, core.remote.fill, encoded, self._lease_id, grant, self.policy.tags
            )
        except RemoteFailed:
            core.unused_leases.append((key, self._lease_id))
            return False
        if written is None:
            core.counters.fills_refused += 1
            return False
        if not core.tier.put(key, core.entries.of_write(encoded, written, self.policy), self.flight.snapshot):
            core.counters.fills_refused += 1
        return True

    def pack(self, value: object) -> bytes | None:
        """The bytes of the value for followers; None: they share it."""
        return self.core.entries.pack(value, self.policy)
