"""The loads that one reader makes for some keys at once: one call of the loader, one request that fills them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, TypeAlias

from nearcache.engine.attempt import Attempt
from nearcache.engine.core import Core
from nearcache.engine.filling import fill, return_unversioned, turn_down
from nearcache.engine.leases import abort
from nearcache.engine.ports import Background
from nearcache.engine.trouble import or_stale, stale_instead
from nearcache.errors import LoaderTimeout
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.singleflight import Flight, Outcome
from nearcache.local.waiters import Latch
from nearcache.policy import Policy

LoadMany: TypeAlias = Callable[[list[str]], Any]


@dataclass(slots=True, eq=False)
class One(Attempt):
    """The attempt for one key of a batch."""

    may_be_absent: ClassVar[bool] = True
    batch: Batch = field(kw_only=True)
    again_at: float = 0.0
    """When L2 is asked again though no news has come (monotonic)."""
    woken: bool = False
    """Whether news of the key has come."""

    def set(self) -> None:
        """News of the key has come: wake the reader."""
        self.woken = True
        self.batch.news.set()

    async def load(self) -> Outcome:
        """Load this key by a call of its own."""
        await self.batch.load([self])
        return self.batch.landed[self.key]


@dataclass(slots=True, eq=False)
class Batch:
    """The flights of one reader, and its loads."""

    core: Core
    loader: LoadMany
    policy: Policy
    news: Latch
    """Set when news of a key has come for which the reader waits."""
    landed: dict[str, Outcome] = field(default_factory=dict)
    """By key, what came of it."""
    led: dict[One, None] = field(default_factory=dict)
    """The attempts whose flights are to be ended by the reader."""
    followed: deque[tuple[One, Flight, Background | None]] = field(default_factory=deque)
    """Flights of other readers, and own ones that are loaded in the background."""
    failed: bool = False
    """Whether a load has failed: the reader need not wait for the other keys."""

    async def leave(self) -> None:
        """End what the reader has begun, if an exception took it out of its search: other readers lead then."""
        led = list(self.led)
        try:
            await self.give_back(led)
        finally:
            for one in led:
                self.end(one, None)
            limit = self.policy.loader_hard_timeout
            for one, _, behind in self.followed:
                if behind is not None and limit is not None:  # no other code would end it
                    behind.cancel(one.began + limit - self.core.runtime.monotonic())

    def end(self, one: One, outcome: Outcome | None) -> None:
        """End the flight of an attempt; without an outcome its followers look for themselves."""
        core = self.core
        self.led.pop(one, None)
        core.waiters.remove(one.key, one)
        if outcome is not None:
            self.take(one.key, outcome)
        core.flights.end((one.key, one.purpose), one.flight, None if one.abandoned else outcome, one.pack)

    def take(self, key: str, outcome: Outcome) -> None:
        """Keep the outcome of a key for the reader."""
        self.landed[key] = outcome
        self.failed |= outcome.error is not None

    async def give_back(self, attempts: Sequence[One]) -> None:
        """Give back the leases that some attempts have."""
        leases = [(one.key, one.lease_id) for one in attempts if one.grant is not None]
        for one in attempts:
            one.grant = None
        if leases:
            await self.core.runtime.settle(abort(self.core, leases))

    async def load_ready(self, ready: Sequence[One]) -> None:
        """Load for the attempts that are ready: here, or in the background when there is a time limit."""
        runtime, policy = self.core.runtime, self.policy
        soft, hard = policy.loader_soft_timeout, policy.loader_hard_timeout
        owner, began = object(), runtime.monotonic()
        for limit in sorted(limit for limit in (soft, hard) if limit is not None):
            for one in ready:
                one.began, one.flight.reserve = began, one.stale
                one.flight.behind, one.flight.queues = owner, True
            work, patience = self._load_behind(ready), max(0.0, began + limit - runtime.monotonic())
            behind = await runtime.spawn(work, owner, patience)
            if behind is not None:
                for one in ready:
                    self.led.pop(one, None)
                    self.followed.append((one, one.flight, behind))
                return
            served = {one: stale_instead(one) for one in ready}
            await self._finish({one: outcome for one, outcome in served.items() if outcome is not None})
            ready = [one for one in ready if served[one] is None]
            if not ready:
                return
        if hard is not None:
            full = LoaderTimeout("not loaded: every thread for loads with a time limit is busy")
            await self._finish({one: or_stale(one, Outcome(error=full)) for one in ready})
            return
        for one in ready:
            one.flight.behind = None
        await self.load(ready)

    async def _load_behind(self, ready: Sequence[One]) -> None:
        try:
            await self.load(ready)
        except BaseException as error:  # noqa: BLE001  # it is raised in the caller that waits
            for one in ready:
                one.fatal = error
                self.end(one, None)

    async def load(self, ready: Sequence[One]) -> None:
        """Load for some attempts by one call; fill both tiers where there is a lease and no write came between."""
        keys, began = [one.key for one in ready], self.core.runtime.monotonic()
        try:
            outcome, load_ms = await ready[0].call(began, partial(self.loader, keys), ready)
            if outcome.error is None:
                outcome = _checked(outcome.value, keys)
            if outcome.error is not None:
                outcomes = {one: or_stale(one, outcome) for one in ready}
            else:
                outcomes = await self._keep(ready, outcome.value, began, load_ms)
        except BaseException:
            await self.give_back(ready)
            raise
        await self._finish(outcomes)

    async def _keep(
        self, ready: Sequence[One], values: Mapping[str, Any], began: float, load_ms: int
    ) -> dict[One, Outcome]:
        """Fill both tiers with what was loaded; the outcome of each attempt."""
        core = self.core
        encoded = {one: one.encode(values[one.key], load_ms) for one in ready if one.keeps and one.key in values}
        leased = [(one, encoded.get(one)) for one in ready if one.grant is not None]
        kept = await fill(core, [(one, value) for one, value in leased if value is not None])
        sure = await turn_down(core, [one for one, value in leased if value is None])
        for one in ready:
            if one not in kept:
                return_unversioned(one, encoded.get(one), began, sure=one in sure)
        return {one: Outcome(values[one.key]) if one.key in values else Outcome(absent=True) for one in ready}

    async def _finish(self, outcomes: Mapping[One, Outcome]) -> None:
        """Give back the leases that some attempts still have, and end their flights."""
        await self.give_back(list(outcomes))
        for one, outcome in outcomes.items():
            self.end(one, outcome)


def _checked(given: Any, keys: Sequence[str]) -> Outcome:
    """What a loader gave for these keys, as a dict, or an error; what it gave for others is left out."""
    try:
        if not isinstance(given, Mapping):
            raise TypeError(f"load_many gave {type(given).__name__}: must give a mapping from keys to values")
        strange = next((key for key in given if not isinstance(key, str)), None)
        if strange is not None:
            raise TypeError(
                f"load_many gave a key of type {type(strange).__name__}: must be the keys that it was given"
            )
        return Outcome({key: given[key] for key in keys if key in given})
    except Exception as error:  # the mapping is the user's
        if from_signal_handler(error):
            raise
        return Outcome(error=error)
