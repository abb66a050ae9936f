"""Load what neither tier has: one load per key in a process by a shared flight, one in the fleet by a lease."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from nearcache.events import LoadFailed
from nearcache.flows.core import Core, Encoded
from nearcache.flows.read import fetch_one
from nearcache.local.tier import Token
from nearcache.local.waiters import Aim, Flight
from nearcache.options import Policy
from nearcache.ports import Busy, Granted, Held, Lease, NotSent, Outcome, RemoteFailed

Loader = Callable[[], Any]
POLL = 0.05
"""Seconds between looks while another instance loads and the bus can't wake us."""


async def get_or_load(core: Core, key: str, loader: Loader, policy: Policy, *, replace: bool = False) -> Outcome:
    """The value of a key that L1 does not have: from L2, else loaded.

    Args:
        core: the cache.
        key: the key.
        loader: called at most once here; nobody holds a lock meanwhile.
        policy: how the value is stored, and how long to wait for another's load.
        replace: load even if L2 has a living value, and fill over it.

    Returns:
        The value, or the loader's exception, as data.
    """
    wait = policy.lease if policy.wait_timeout is None else policy.wait_timeout
    until = core.host.monotonic() + wait
    aim = Aim.REPLACE if replace else Aim.VALUE
    while True:
        place = key, aim
        mine = Flight(core.tier.token(key), core.host.wake(), core.host.me())
        outcome: Outcome | None = None
        try:
            flight = core.flights.enter(place, mine)
            if flight is mine:
                outcome = await _fly(core, key, loader, policy, flight.token, until, aim)
            elif flight.owner == mine.owner:  # the loader asks for its own key: waiting would be for itself
                core.emit_once(LoadFailed(key, "its loader asks for its own key: the inner call is not cached"))
                outcome = await _load_only(core, key, loader)
            elif await flight.wake.wait(max(0.0, until - core.host.monotonic())):
                outcome = flight.outcome
                core.counters.misses += outcome is not None
            elif aim is Aim.IMPATIENT:  # the second load hangs as well
                outcome = await _load_only(core, key, loader)
            else:  # all whose patience has ended share one more load
                aim, until = Aim.IMPATIENT, core.host.monotonic() + wait
        finally:  # whatever happens: interrupted, the outcome is None, and a follower leads
            core.flights.end(place, mine, outcome)
        if outcome is not None:
            return outcome


async def _fly(
    core: Core, key: str, loader: Loader, policy: Policy, token: Token, until: float, aim: Aim
) -> Outcome | None:
    """Look into L2, else load, under a lease if there is one; None: another instance loads, and there is news of it."""
    grant: Granted | None = None
    ticket = os.urandom(16)
    if token.trusted:
        news = core.host.wake()
        core.waiters.add(key, news)  # before anything is sent, so that no news is missed
        try:
            found = await fetch_one(core, key, token, policy)
            if found.alive and aim is not Aim.REPLACE:
                return Outcome(found.value)
            if aim is not Aim.IMPATIENT:
                lease = await _lease(core, key, ticket, found.head, policy)
                left = until - core.host.monotonic()
                if isinstance(lease, Granted):
                    grant = lease
                elif not isinstance(lease, Held) and left > 0:
                    if isinstance(lease, Busy):
                        patience = min(lease.remaining, left)
                        await news.wait(patience if core.tier.synced else min(patience, POLL))
                    return None
        except RemoteFailed:
            pass  # Redis is away: load, without a fill
        finally:
            core.waiters.remove(key, news)
    if grant is None:
        return await _load_only(core, key, loader)
    return await _load_and_fill(core, key, loader, policy, token, ticket, grant)


async def _lease(core: Core, key: str, ticket: bytes, head: bytes, policy: Policy) -> Lease:
    """Ask for the lease. Without an answer it may be ours all the same, and is given back."""
    try:
        return await core.ask(core.remote.lease, key, ticket, head, max(1, int(policy.lease * 1000)), policy.tags)
    except NotSent:
        raise
    except RemoteFailed:
        core.orphans.append((key, ticket))
        raise
    except BaseException:
        await core.host.settle(_abort(core, key, ticket))
        raise


async def _load_and_fill(
    core: Core, key: str, loader: Loader, policy: Policy, token: Token, ticket: bytes, grant: Granted
) -> Outcome:
    """Load under a lease, and fill both tiers unless a write came between."""
    kept = settled = False
    try:
        outcome = await _load(core, loader)
        encoded = _encode(core, key, outcome.value, policy) if outcome.error is None else None
        if encoded is not None:
            kept = await _fill(core, encoded, policy, token, ticket, grant)
            settled = True
    finally:
        if not settled:
            await core.host.settle(_abort(core, key, ticket))
    if outcome.error is None and not kept:
        core.tier.passed_by(key, core.host.monotonic())
    return outcome


async def _fill(core: Core, encoded: Encoded, policy: Policy, token: Token, ticket: bytes, grant: Granted) -> bool:
    """Offer a loaded value to L2, and put it into L1 if L2 took it; whether it did."""
    try:
        written = await core.ask(core.remote.fill, encoded, ticket, grant, policy.tags)
    except RemoteFailed:
        core.orphans.append((encoded.key, ticket))
        return False
    if written is None:
        core.counters.fills_refused += 1
        return False
    fresh_until = written.created + encoded.ttl_ms * 1000
    entry = core.entry(encoded.key, encoded.value, encoded.payload, written.version, fresh_until, policy)
    if not core.tier.put(encoded.key, entry, token):
        core.counters.fills_refused += 1
    return True


async def _load_only(core: Core, key: str, loader: Loader) -> Outcome:
    """Load without keeping the value anywhere."""
    outcome = await _load(core, loader)
    if outcome.error is None:
        core.tier.passed_by(key, core.host.monotonic())
    return outcome


async def _load(core: Core, loader: Loader) -> Outcome:
    """Call the loader, and count."""
    core.counters.misses += 1
    core.counters.loads += 1
    outcome = await core.host.load(loader)
    if outcome.error is not None:
        core.counters.load_errors += 1
    return outcome


def _encode(core: Core, key: str, value: object, policy: Policy) -> Encoded | None:
    """A loaded value as it can be stored; one that can't be is the caller's all the same, uncached."""
    try:
        return core.encode(key, value, policy)
    except Exception as error:  # noqa: BLE001  # the codec, ttl and condition may be the user's
        core.counters.uncached += 1
        core.emit_once(LoadFailed(key, f"loaded, but not cached: {error}"))
        return None


async def _abort(core: Core, key: str, ticket: bytes) -> None:
    """Give a lease back, so that others need not wait for its end."""
    core.orphans.append((key, ticket))
    await give_back(core)


async def give_back(core: Core) -> None:
    """Give back the leases that nobody uses; what Redis does not answer now is tried again after the next proof."""
    for _ in range(len(core.orphans)):
        try:
            key, ticket = core.orphans.popleft()
        except IndexError:  # another thread was quicker
            return
        try:
            await core.ask(core.remote.abort, key, ticket)
        except RemoteFailed:
            core.orphans.append((key, ticket))
            return
