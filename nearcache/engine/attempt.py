"""One attempt to load a value: look into L2, take a lease, call the loader, fill; and a stale value when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nearcache.engine import stale, write
from nearcache.engine.core import Core
from nearcache.engine.entries import Encoded
from nearcache.engine.leases import abort
from nearcache.engine.plain import Read
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.engine.read import fetch
from nearcache.engine.requests import Operation
from nearcache.engine.stale import Stale
from nearcache.errors import CodecError, LoaderTimeout
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.marks import Mark
from nearcache.local.singleflight import Flight, Outcome, Purpose, again
from nearcache.local.snapshot import Snapshot
from nearcache.local.waiters import Latch
from nearcache.policy import Policy
from nearcache.protocol.answers import Busy, Granted, Held, Present
from nearcache.protocol.versions import Version

Loader = Callable[[], Any]
POLL = 0.05
"""Seconds between looks while another instance loads and no message can wake this reader."""
NEVER = float("inf")
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
    _lease_id: bytes = field(default_factory=lambda: os.urandom(16))
    _grant: Granted | None = None
    _dead: bool = False
    """Whether L2 has a record of the key, which was judged dead or is to be replaced."""
    _away: bool = False
    """Whether Redis did not answer."""

    @property
    def snapshot(self) -> Snapshot:
        """Taken before anything is sent."""
        return self.flight.snapshot

    # ------------------------------------------------------------------------------------------------------ searching

    async def look_up(self) -> Outcome | None:
        """Look into L2, and ask for the lease if it has nothing.

        Returns:
            The value. None: ``ready`` to load, or another load has ended, and L2 is to be asked again.
        """
        core, key = self.core, self.key
        # Two readers miss in L1; one loads and lands before the other enters its flight: look again, or it loads too.
        entry = stale.fresh_entry(core, key) if self.purpose is Purpose.VALUE else None
        if entry is not None:
            core.counters.l1_hits += 1
            return Outcome(core.entries.value_of(entry))
        news = core.runtime.latch()
        try:
            core.waiters.add(key, news)  # before anything is sent, so that no news is missed
            found = await fetch(core, key, self.policy)
            if found.failure is not None or not found.snapshot.trusted:
                self._away = core.away if found.failure is None else not core.requests.bypassed
                return self._begin_load(worth_it=found.failure is None)
            served = self._found(found)
            if served is not None:
                return served
            if self.purpose is Purpose.AFTER_WAIT or core.requests.denied is not None:
                return self._begin_load(worth_it=core.requests.denied is None)
            self._dead = bool(found.head)
            lease = await self._lease(found.head)
            left = self.until - core.runtime.monotonic()
            if isinstance(lease, Busy) and left > 0:
                return await self._await_news(news, min(lease.remaining, left))
            if isinstance(lease, Present) and left > 0:
                return None
            if isinstance(lease, Granted):
                self._grant = lease
            return self._begin_load(worth_it=isinstance(lease, Granted))
        except RemoteFailed:
            self._away = not core.requests.bypassed
            return self._begin_load(worth_it=False)
        finally:
            core.waiters.remove(key, news)

    async def _await_news(self, news: Latch, patience: float) -> Outcome | None:
        """Wait for another instance's load; None: ask L2 again."""
        core = self.core
        patience = min(patience, self.until_next_limit(core.runtime.monotonic()))
        if await news.wait(patience if core.tier.synced else min(patience, POLL)) or self.purpose is Purpose.REFRESH:
            return None
        outcome = self.timed_out(core.runtime.monotonic())
        self.abandoned = outcome is not None
        return outcome

    def _begin_load(self, *, worth_it: bool = True) -> Outcome | None:
        """Load now; but a refresh does so only under a lease: its readers have a value."""
        if self.purpose is Purpose.REFRESH and not worth_it:
            self.abandoned = True
            self._back_off()  # else each reader would start a refresh that gets no lease
            return Outcome()
        self.ready = True
        return None

    def _found(self, found: Read) -> Outcome | None:
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
            self._note_stale(self.stale)
            served = stale.serve_meanwhile(core, self.key, self.stale)
            self.due = served.older_than
            return Outcome(served.value, stale=True)
        return self.stale_instead() if stale.backing_off(core, self.key) else None

    async def _lease(self, head: bytes) -> Granted | Busy | Held | Present:
        """Ask for the lease. Without an answer it may have been granted all the same, and is given back."""
        core, policy = self.core, self.policy
        lease_ms = max(1, int(policy.lease * 1000))
        try:
            return await core.requests.ask(
                Operation.LEASE,
                core.remote.lease,
                self.key,
                self._lease_id,
                head,
                lease_ms,
                policy.tags,
                core.requests.deadline(),
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
        outcome = await (self._load_only() if self._grant is None else self._load_and_fill(self._grant))
        return self.or_stale(outcome)

    async def _load_and_fill(self, grant: Granted) -> Outcome:
        core, encoded = self.core, None
        kept = sure = settled = False
        try:
            outcome, load_ms = await self._call()
            ended = self._mark()
            if outcome.error is None:
                encoded = self._encode(outcome.value, load_ms)
                if encoded is not None:
                    kept = await self._fill(encoded, grant)
                else:
                    sure = await self._turned_down()
                settled = True
        finally:
            if not settled:
                await core.runtime.settle(abort(core, self.key, self._lease_id))
        if outcome.error is None and not kept:
            # For an error of a later load: it must not serve what is older.
            after_errors = encoded if self.policy.stale_if_error else None
            entry = None if after_errors is None else core.entries.of_outage(after_errors, None, self.policy)
            core.tier.returned_unversioned(self.key, None if sure else ended, self.snapshot, entry)
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
        """The time at which a load ends."""
        now = self.core.runtime.monotonic()
        return Mark(now, self.core.requests.server_now() / 1e6 - now)

    async def _load_only(self) -> Outcome:
        """Load without filling; while Redis is away, the value is kept here for a while."""
        core = self.core
        began = core.runtime.monotonic()
        outcome, load_ms = await self._call()
        if outcome.error is None:
            ended = self._mark()
            encoded = self._encode(outcome.value, load_ms) if self._away or self.policy.stale_if_error else None
            entry = None
            if encoded is not None:
                entry = core.entries.of_outage(encoded, began if self._away else None, self.policy)
            core.tier.returned_unversioned(self.key, ended, self.snapshot, entry)
        return outcome

    async def _call(self) -> tuple[Outcome, int]:
        """Call the loader, with a permit where loads are limited, and count; its outcome, and the ms it took."""
        core, callers = self.core, self.core.runtime.callers()
        loads = core.loads
        began = core.runtime.monotonic()
        core.counters.misses += self.purpose is not Purpose.REFRESH
        limited = loads.limited(began, away=self._away) and loads.permitted.isdisjoint(
            callers
        )  # it would wait for itself
        self.flight.queues = limited
        if limited and not await loads.acquire(self.until - began):
            limit = core.settings.max_concurrent_loads
            late = LoaderTimeout(f"{self.key!r} was not loaded: max_concurrent_loads={limit} others were for too long")
            return Outcome(error=late), 0
        try:
            self.flight.queues = False
            if limited:
                loads.permitted.add(callers[-1])
                began = core.runtime.monotonic()
            core.counters.loads += 1
            outcome = await core.runtime.load(self.loader)
        finally:
            if limited:
                loads.permitted.discard(callers[-1])
                loads.release()
        core.counters.load_errors += outcome.error is not None
        return outcome, int(1000 * (core.runtime.monotonic() - began))

    def _encode(self, value: object, load_ms: int) -> Encoded | None:
        """A loaded value as it can be stored; None: it is returned to the caller uncached."""
        core = self.core
        try:
            return core.entries.encode(self.key, value, self.policy, load_ms)
        except Exception as error:  # the codec, ttl and condition may be the user's
            if from_signal_handler(error):
                raise
            core.not_cached(self.key, self.loader, error)
            return None

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
        if not core.tier.put(key, core.entries.of_write(encoded, written, self.policy), self.snapshot):
            core.counters.fills_refused += 1
        return True

    def pack(self, value: object) -> bytes | None:
        """The bytes of the value for followers; None: they share it."""
        return self.core.entries.pack(value, self.policy)

    # ------------------------------------------------------------------------------------------- when there is trouble

    def until_next_limit(self, now: float) -> float:
        """Seconds until the next of the loader's time limits."""
        limits = (self.policy.loader_soft_timeout, self.policy.loader_hard_timeout)
        ends = (self.began + limit for limit in limits if limit is not None)
        return min((end - now for end in ends if end > now), default=NEVER)

    def timed_out(self, now: float) -> Outcome | None:
        """The outcome when a time limit is over; None: no limit is over, or no value may serve."""
        soft, hard = self.policy.loader_soft_timeout, self.policy.loader_hard_timeout
        if hard is not None and now >= self.began + hard:
            error = LoaderTimeout(f"{self.key!r} was not loaded within loader_hard_timeout={hard}")
            return self.or_stale(Outcome(error=error))
        return self.stale_instead() if soft is not None and now >= self.began + soft else None

    def outcome_of(self, flight: Flight, *, follows: bool) -> Outcome | None:
        """The outcome of a flight, as this reader may have it."""
        outcome = flight.outcome
        if not follows or outcome is None:
            return outcome
        if outcome.stale:
            if flight.windows != self.flight.windows:  # it may be too old for this reader, which looks for itself
                return None
            self.core.counters.stale_served += 1
        self.core.counters.misses += 1
        if flight.packed is not None:
            with suppress(CodecError):
                outcome = outcome._replace(value=self.core.entries.decode(flight.packed))
        outcome = self.or_stale(outcome)
        return outcome if outcome.error is None else Outcome(error=again(outcome.error, flight.trace))

    async def wait_ended(self) -> Outcome | None:
        """Act on a load of another instance that takes too long."""
        if self.purpose is not Purpose.AFTER_WAIT:
            self.wait_is_over = True
            return None
        if not self.policy.timed:  # the second load hangs as well
            return await self.load()
        late = LoaderTimeout(f"{self.key!r} was not loaded: two loads of it hang, and wait_timeout is over")
        return self.or_stale(Outcome(error=late))

    def stale_instead(self) -> Outcome | None:
        """A stale value after an error or a time limit, if there is one and it may serve."""
        if self.purpose not in (Purpose.VALUE, Purpose.AFTER_WAIT):  # the new value is wanted, or none
            return None
        there = self.stale if self.stale is not None and self.stale.if_error(self.policy) else None
        serves = there or stale.last_resort(self.core, self.key, self.policy, away=self._away)
        if serves is None:
            return None
        if serves is there:
            self._note_stale(serves)
        self.core.counters.stale_served += 1
        return Outcome(self.core.entries.value_of(serves.entry), stale=True)  # several readers may have this one

    def or_stale(self, outcome: Outcome) -> Outcome:
        """A stale value in place of an error."""
        if outcome.error is None:
            return outcome
        self._back_off()
        served = self.stale_instead()
        if served is not None:
            self.core.hide(self.key, outcome.error, "a stale value serves")
        return served or outcome

    def _back_off(self) -> None:
        """Leave the loader alone for a while, as long as an old value can serve."""
        core = self.core
        until = core.runtime.monotonic() + self.policy.stale_backoff
        core.loads.note_failure(self.key, until, core.tier.snapshot(self.key))

    def _note_stale(self, served: Stale) -> None:
        """Record the version of a stale value that is returned, so that no later read returns an older one (S)."""
        self.core.tier.returned_stale(self.key, served.entry.version, self.snapshot)
