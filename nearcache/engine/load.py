"""Load a value that neither tier has: one reader leads, others follow, and a stale value may serve meanwhile.

One load per key in a process: its first reader leads a flight, the others follow it. One in the fleet: the leader's
attempt takes a lease. A load with a time limit runs in the background, and its leader waits as its followers do.

    reader 1                                 reader 2                        what happens
    enters a flight, looks into L2, loads
                                             enters, joins the flight        it waits at the flight's latch
    its loader returns, fill, put
    ends the flight with the value                                           2 returns the same value

    is cancelled in its loader
    ends the flight without an outcome                                       2 tries again, and leads

    its loader hangs
                                             its wait_timeout is over        it leads, or joins, one more load that
                                                                             all readers whose wait is over share
    its loader hangs, with a soft limit
    the load goes on in the background                                       both return a stale value, if there is one
"""

from __future__ import annotations

from nearcache.engine import stale
from nearcache.engine.attempt import ANY, NEWEST, POLL, Attempt, Loader
from nearcache.engine.core import Core
from nearcache.engine.ports import Background
from nearcache.engine.trouble import NEVER, next_limit, or_stale, outcome_of, stale_instead, timed_out, wait_ended
from nearcache.errors import ConfigError, LoaderTimeout
from nearcache.events import LoadFailed
from nearcache.local.singleflight import Flight, Outcome, Purpose
from nearcache.policy import Policy
from nearcache.protocol.versions import Version

LONGEST_WAIT = 3600.0


async def get_or_load(core: Core, key: str, loader: Loader, policy: Policy, *, replace: bool = False) -> Outcome:
    """The value of a key that is no plain hit in L1: from L1 past its end, from L2, else loaded.

    Args:
        core: the cache.
        key: the key.
        loader: called at most once here; no lock is held meanwhile.
        policy: how the value is stored, how long to wait for another's load, what may be served stale.
        replace: load even if L2 has a living value, and fill over it.

    Returns:
        The value, or the loader's exception, as data.
    """
    if not callable(loader):
        raise ConfigError(f"loader={str(loader)[:200]}: must be callable without arguments, as in lambda: db.user(7)")
    if core.parts:
        core = core.of(key)
    core.tier.fallback.keeps_flushed |= policy.stale_if_error > 0
    if replace:
        return await _land(core, key, loader, policy, Purpose.REPLACE, NEWEST)
    served = stale.look(core, key, policy) if key in core.tier.entries or core.tier.fallback.used else None
    if served is None:
        return await _land(core, key, loader, policy, Purpose.VALUE, ANY)
    if served.older_than is not None:
        await _refresh_behind(core, key, loader, policy, served.older_than)
    return Outcome(served.value)


async def _refresh_behind(core: Core, key: str, loader: Loader, policy: Policy, older_than: Version) -> None:
    """Refresh the value that a reader is given, in the background, unless a refresh of it is under way."""
    refreshing = core.loads.refreshing
    if key in refreshing:
        return
    started = None
    try:
        refreshing.add(key)
        started = await core.runtime.spawn(_refresh(core, key, loader, policy, older_than), None, 0.0)
    finally:
        if started is None:
            refreshing.discard(key)


async def _refresh(core: Core, key: str, loader: Loader, policy: Policy, older_than: Version) -> None:
    try:
        outcome = await _land(core, key, loader, policy, Purpose.REFRESH, older_than)
        if outcome.error is not None:
            core.hide(key, outcome.error, "a refresh in the background")
    finally:
        core.loads.refreshing.discard(key)


async def _land(core: Core, key: str, loader: Loader, policy: Policy, purpose: Purpose, older_than: Version) -> Outcome:
    """Lead a flight, or follow another's, until there is an outcome."""
    began = now = core.runtime.monotonic()
    until = began + policy.patience
    while True:
        windows = policy.stale_while_revalidate, policy.stale_if_error
        mine = Flight(
            core.tier.snapshot(key), core.runtime.latch(), core.runtime.callers(), now + policy.lease, windows
        )
        attempt = Attempt(core, key, loader, policy, mine, began, until, purpose, older_than)
        outcome: Outcome | None = None
        behind: Background | None = None
        try:
            flight = core.flights.enter((key, purpose), mine, now)
            if flight is mine:
                outcome = await attempt.look_up()
                if attempt.ready:
                    behind, outcome = await _load(attempt, mine)
            elif flight.owner in mine.callers:  # the loader asks for its own key: waiting would be for itself
                core.emit_once(LoadFailed(key, "its loader asks for its own key: the inner call is not cached"))
                outcome = await attempt.load()
        finally:  # whatever happens: interrupted, the outcome is None, and a follower leads
            if behind is None:
                core.flights.end((key, purpose), mine, None if attempt.abandoned else outcome, attempt.pack)
        if outcome is None and (flight is not mine or behind is not None):
            outcome = await follow(attempt, flight, behind)
        if outcome is not None:
            if attempt.due is not None:
                await _refresh_behind(core, key, loader, policy, attempt.due)
            return outcome
        now = core.runtime.monotonic()
        if attempt.wait_is_over:  # all callers whose wait is over share one more load
            purpose, until = Purpose.AFTER_WAIT, now + policy.patience


async def _load(attempt: Attempt, flight: Flight) -> tuple[Background | None, Outcome | None]:
    """Make the load that the attempt is ready for: here, or in the background when it has a time limit."""
    runtime, policy = attempt.core.runtime, attempt.policy
    soft, hard = policy.loader_soft_timeout, policy.loader_hard_timeout
    if soft is None and hard is None:
        return None, await attempt.load()
    limits = [limit for limit in (soft, hard) if limit is not None]
    attempt.began = runtime.monotonic()
    flight.reserve, flight.behind, flight.queues = attempt.stale, object(), True  # its leader may be back before
    begun = False
    try:
        for limit in sorted(limits):
            work, patience = _end(attempt, flight), max(0.0, attempt.began + limit - runtime.monotonic())
            behind = await runtime.spawn(work, flight.owner, patience)
            begun = behind is not None
            outcome = None if begun else stale_instead(attempt)
            if begun or outcome is not None:
                return behind, outcome
        if hard is not None:
            full = LoaderTimeout(f"{attempt.key!r} was not loaded: every thread for loads with a time limit is busy")
            return None, or_stale(attempt, Outcome(error=full))
        begun = True
    finally:
        if not begun:
            await runtime.settle(attempt.give_lease_back())
    flight.behind = None
    return None, await attempt.load()  # no value could serve meanwhile, so the load is made here


async def _end(attempt: Attempt, flight: Flight) -> None:
    outcome: Outcome | None = None
    try:
        outcome = await attempt.load()
    except BaseException as error:  # noqa: BLE001  # it is raised in the caller that waits
        attempt.fatal = error
    finally:
        attempt.core.flights.end((attempt.key, attempt.purpose), flight, outcome, attempt.pack)


async def follow(attempt: Attempt, flight: Flight, behind: Background | None) -> Outcome | None:
    """Wait for a flight, as long as the time limits allow.

    Args:
        attempt: the reader's own attempt.
        flight: another reader's, or the own one.
        behind: the own load in the background; None: the flight is another's, and the wait has an end.

    Returns:
        None: the leader gave up, or the wait is over; try again.
    """
    core, policy = attempt.core, attempt.policy
    attempt.stale = attempt.stale or flight.reserve
    patience = attempt.until if behind is None else NEVER
    # Deadlock rule: a caller inside a permitted load, or one that has a thread, never waits for a leader
    # that needs one.
    me = core.runtime.callers()
    has_turn = behind is None and len(me) > 1 and (policy.timed or not core.loads.permitted.isdisjoint(me))
    look_again = POLL if has_turn else LONGEST_WAIT
    landed, checked = False, attempt.began
    # A load that has just hung is still in its thread: a reader that has a stale value does not wait for it again.
    served = stale_instead(attempt) if behind is None and stale.backing_off(core, attempt.key) else None
    if served is not None:
        return served
    try:
        while True:
            now = core.runtime.monotonic()
            limit = min(next_limit(attempt, checked), patience)
            landed = await flight.latch.wait(max(0.0, min(limit - now, look_again)))
            if landed:
                if behind is not None and attempt.fatal is not None:
                    raise attempt.fatal
                return outcome_of(attempt, flight, follows=behind is None)
            if has_turn and flight.queues:
                return await attempt.load()
            checked = now = core.runtime.monotonic()
            outcome = timed_out(attempt, now)
            if outcome is not None:
                return outcome
            if now >= patience:
                return await wait_ended(attempt)
    finally:
        if behind is not None and not landed and policy.loader_hard_timeout is not None:  # no other code would end it
            behind.cancel(attempt.began + policy.loader_hard_timeout - core.runtime.monotonic())
