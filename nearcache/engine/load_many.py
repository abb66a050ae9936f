"""Load some values that neither tier has by one call of a loader, each by the rules by which ``load`` loads one.

A reader leads the flights of the keys that no other reader here loads, and follows the other flights. It asks for the
leases of those that it leads by one request, loads those that were granted by one call, and fills them by one request.
Only then it waits for the other keys: first for those that it leads and another instance loads, then for flights.

    reader 1 of a and b                      reader 2 of b and a             what happens
    leads a
                                             leads b, follows a
    follows b, loads a, ends its flight
                                             loads b, ends its flight        each gets the other's value

If each waited for the other's flight before it loads, neither would load. If it waited for flights before it has an
answer for the keys that it leads, two readers that lead keys which other instances load would wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nearcache.engine import stale
from nearcache.engine.attempt import ANY, POLL
from nearcache.engine.batch import Batch, LoadMany, One
from nearcache.engine.core import Core, chunks
from nearcache.engine.leases import abort
from nearcache.engine.load import follow
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.engine.read import fetch_many
from nearcache.engine.requests import Operation
from nearcache.engine.trouble import next_limit, timed_out
from nearcache.errors import ConfigError
from nearcache.events import LoadFailed
from nearcache.local.singleflight import Flight, Outcome, Purpose
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH, Busy, Granted, Lease, Present
from nearcache.protocol.versions import Version


async def get_or_load_many(core: Core, keys: Sequence[str], loader: LoadMany, policy: Policy) -> dict[str, Outcome]:
    """The values of some keys that are no plain hits in L1: from L1 past their end, from L2, else loaded.

    Args:
        core: the cache.
        keys: each once.
        loader: called with the keys that this reader leads; it gives a mapping, in which some may be missing.
        policy: as for ``load.get_or_load``.

    Returns:
        By key, the value, or the loader's exception, as data; or that there is none.
    """
    if not callable(loader):
        raise ConfigError(f"load_many={str(loader)[:200]}: must be callable with a list of keys, and give a mapping")
    for part in core.all:
        part.tier.fallback.keeps_flushed |= policy.stale_if_error > 0
    search = Search(core, loader, policy, Purpose.VALUE, dict.fromkeys(keys, ANY))
    for key in keys:
        part = core.of(key)
        served = stale.look(part, key, policy) if key in part.tier.entries or part.tier.fallback.used else None
        if served is None:
            continue
        del search.older_than[key]
        search.batch.landed[key] = Outcome(served.value)
        if served.older_than is not None:
            search.due[key] = served.older_than
    return await search.land()


def values_of(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The values that there are; raises what a loader has raised."""
    return {key: outcome.get() for key, outcome in outcomes.items() if not outcome.absent}


@dataclass(slots=True, eq=False)
class Search:
    """One reader's search for some keys."""

    core: Core
    loader: LoadMany
    policy: Policy
    purpose: Purpose
    older_than: dict[str, Version]
    """The keys, and below which version of each what L2 has is not taken."""
    due: dict[str, Version] = field(default_factory=dict)
    """The versions of the values that were found and are to be refreshed in the background."""
    batch: Batch = field(init=False)
    _began: float = field(init=False)
    _checked: float = field(init=False)
    """When it was checked whether time limits are over (monotonic)."""
    _terms: dict[str, tuple[Purpose, float]] = field(init=False)
    """By key, what its flight is for, and how long to wait for another's load (monotonic)."""
    _busy: list[One] = field(default_factory=list)
    """The attempts that lead here, and whose keys another instance loads."""

    def __post_init__(self) -> None:
        self.batch = Batch(self.core, self.loader, self.policy, self.core.runtime.latch())
        self._began = self._checked = self.core.runtime.monotonic()
        self._terms = dict.fromkeys(self.older_than, (self.purpose, self._began + self.policy.patience))

    async def land(self) -> dict[str, Outcome]:
        """Lead or follow flights until each key has an outcome, or a load has failed; the outcomes."""
        batch, asked = self.batch, list(self.older_than)
        try:
            while (asked or self._busy or batch.followed) and not batch.failed:
                if asked:
                    await self._lead(asked)
                asked = []
                if self._busy:
                    asked = await self._await_news()
                elif batch.followed:
                    asked = await self._follow_one()
            await self._refresh_behind()
        finally:
            await batch.leave()
        return dict(batch.landed)  # a load in the background may go on, and add to it

    async def _lead(self, keys: Sequence[str]) -> None:
        """Enter the flights of some keys, search for those that are led here, and load what was not found."""
        led = self._enter(keys)
        ready = [one for one in led if one.ready]
        ready += await self._search([one for one in led if not one.ready])
        await self._refresh_behind()
        if ready:
            await self.batch.load_ready(ready)

    def _enter(self, keys: Sequence[str]) -> list[One]:
        """Lead the flights of some keys, or join those of other readers; the attempts that lead."""
        core, policy, led = self.core, self.policy, []
        now, callers = core.runtime.monotonic(), core.runtime.callers()
        windows = policy.stale_while_revalidate, policy.stale_if_error
        taken = [
            (part, *pair)
            for part, some in core.split(keys)
            for pair in zip(some, part.tier.snapshots(some), strict=True)
        ]
        for part, key, snapshot in taken:
            (purpose, until), loader = self._terms[key], partial(self.loader, [key])
            mine = Flight(snapshot, core.runtime.latch(), callers, now + policy.lease, windows)
            floor = self.older_than[key]
            one = One(part, key, loader, policy, mine, self._began, until, purpose, floor, batch=self.batch)
            self.batch.led[one] = None
            flight = core.flights.enter((key, purpose), mine, now)
            if flight is not mine and flight.owner not in callers:
                del self.batch.led[one]
                self.batch.followed.append((one, flight, None))
                continue
            led.append(one)
            if flight is not mine:  # the loader asks for its own key: waiting would be for itself
                core.emit_once(LoadFailed(key, "its loader asks for its own key: the inner call is not cached"))
                one.ready = True
        return led

    async def _search(self, led: Sequence[One]) -> list[One]:
        """Look into L2, and ask for the leases of what it does not have; the attempts that are ready to load."""
        absent: list[One] = []
        for one in led:
            outcome = one.look_into_l1()
            if outcome is None:
                absent.append(one)
            else:
                self.batch.end(one, outcome)
        ready: list[One] = []
        asking: dict[str, tuple[One, bytes]] = {}
        reads = await fetch_many(self.core, [one.key for one in absent], self.policy)
        for one, read in zip(absent, reads, strict=True):
            outcome = one.judge(read)
            if one.due is not None:
                self.due[one.key] = one.due
            if outcome is not None:
                self.batch.end(one, outcome)
            elif one.ready:
                ready.append(one)
            else:
                asking[one.key] = one, read.head
        return ready + await self._take_leases(asking)

    async def _take_leases(self, asking: Mapping[str, tuple[One, bytes]]) -> list[One]:
        """Ask for leases, given how the record of each key begins; the attempts that are ready to load."""
        ready: list[One] = []
        for core, keys in self.core.split(asking):
            for part in chunks([asking[key] for key in keys], BATCH):
                leases = await self._ask(core, part)
                now = core.runtime.monotonic()
                for (one, _), lease in zip(part, leases, strict=True):
                    self._take(one, lease, now)
                    if one.ready:
                        ready.append(one)
        return ready

    async def _ask(self, core: Core, part: Sequence[tuple[One, bytes]]) -> Sequence[Lease | None]:
        """Ask for leases by one request; None: no answer. Each may have been granted then, and is given back."""
        policy = self.policy
        asks = [one.ask(head) for one, head in part]
        leases = [(ask.key, ask.lease_id) for ask in asks]
        lease_ms, deadline = max(1, int(policy.lease * 1000)), core.requests.deadline()
        for one, _ in part:  # before the request, so that no news is missed
            core.waiters.add(one.key, one)
        try:
            return await core.requests.ask(Operation.LEASE, core.remote.lease, asks, lease_ms, policy.tags, deadline)
        except RemoteFailed as failure:
            if not isinstance(failure, NotSent):
                core.unused_leases.extend(leases)
            return [None] * len(part)
        except BaseException:
            await core.runtime.settle(abort(core, leases))
            raise

    def _take(self, one: One, lease: Lease | None, now: float) -> None:
        """Go on by what was answered to the request for a lease."""
        left = one.until - now
        if isinstance(lease, Granted):
            one.grant, one.ready = lease, True
        elif isinstance(lease, Present) or (isinstance(lease, Busy) and left > 0):
            one.again_at = now + (min(lease.remaining, left) if isinstance(lease, Busy) else 0.0)
            self._busy.append(one)
        else:
            one.away = lease is None and not one.core.requests.bypassed
            outcome = one.begin_load(worth_it=False)
            if outcome is not None:
                self.batch.end(one, outcome)

    async def _await_news(self) -> list[str]:
        """Wait for loads of other instances; the keys of which L2 is to be asked again."""
        core, synced = self.core, all(one.core.tier.synced for one in self._busy)
        now = core.runtime.monotonic()
        self.batch.news = core.runtime.latch()  # for news from now on; what has come before stands in the attempts
        if not any(one.woken for one in self._busy):
            until = min(next_limit(self._busy[0], self._checked), *(one.again_at for one in self._busy))
            await self.batch.news.wait(max(0.0, until - now if synced else min(until - now, POLL)))
            now = core.runtime.monotonic()
        self._checked = now
        asked: list[str] = []
        busy, self._busy = self._busy, []
        for one in busy:
            outcome = None if one.woken or one.purpose is Purpose.REFRESH else timed_out(one, now)
            one.abandoned = outcome is not None
            if outcome is None and not one.woken and synced and now < one.again_at:
                self._busy.append(one)
                continue
            self.batch.end(one, outcome)
            if outcome is None:
                asked.append(one.key)
        return asked

    async def _follow_one(self) -> list[str]:
        """Wait for a flight; its key, if L2 is to be asked again."""
        one, flight, behind = self.batch.followed[0]
        outcome = await follow(one, flight, behind)
        self.batch.followed.popleft()
        if outcome is not None:
            self.batch.take(one.key, outcome)
            return []
        if one.wait_is_over:  # all callers whose wait is over share one more load
            self._terms[one.key] = Purpose.AFTER_WAIT, self.core.runtime.monotonic() + self.policy.patience
        return [one.key]

    async def _refresh_behind(self) -> None:
        """Refresh the values that are due by one load in the background, but those that are refreshed already."""
        core, refreshing = self.core, self.core.loads.refreshing
        due = {key: version for key, version in self.due.items() if key not in refreshing}
        self.due = {}
        if not due:
            return
        started = None
        try:
            refreshing.update(due)
            refresh = _refresh(Search(core, self.loader, self.policy, Purpose.REFRESH, due))
            started = await core.runtime.spawn(refresh, None, 0.0)
        finally:
            if started is None:
                refreshing.difference_update(due)


async def _refresh(search: Search) -> None:
    try:
        outcomes = await search.land()
        hidden = {id(outcome.error): (key, outcome.error) for key, outcome in outcomes.items()}
        for key, error in hidden.values():
            if error is not None:
                search.core.hide(key, error, "a refresh in the background")
    finally:
        search.core.loads.refreshing.difference_update(search.older_than)
