"""What a reader gets when its load is late or fails: an error, a stale value in its place, or another attempt."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from nearcache.engine import stale
from nearcache.engine.stale import Stale
from nearcache.errors import CodecError, LoaderTimeout
from nearcache.local.singleflight import Flight, Outcome, Purpose, again

if TYPE_CHECKING:
    from nearcache.engine.attempt import Attempt

NEVER = float("inf")


def next_limit(attempt: Attempt, checked: float) -> float:
    """When the next of the loader's time limits is over that was not when they were checked (monotonic)."""
    limits = (attempt.policy.loader_soft_timeout, attempt.policy.loader_hard_timeout)
    ends = (attempt.began + limit for limit in limits if limit is not None)
    return min((end for end in ends if end > checked), default=NEVER)


def timed_out(attempt: Attempt, now: float) -> Outcome | None:
    """The outcome when a time limit is over; None: no limit is over, or no value may serve."""
    soft, hard = attempt.policy.loader_soft_timeout, attempt.policy.loader_hard_timeout
    if hard is not None and now >= attempt.began + hard:
        error = LoaderTimeout(f"{attempt.key!r} was not loaded within loader_hard_timeout={hard}")
        return or_stale(attempt, Outcome(error=error))
    return stale_instead(attempt) if soft is not None and now >= attempt.began + soft else None


def outcome_of(attempt: Attempt, flight: Flight, *, follows: bool) -> Outcome | None:
    """The outcome of a flight, as this reader may have it; None: it has to look for itself."""
    core, outcome = attempt.core, flight.outcome
    if not follows or outcome is None:
        return outcome
    if outcome.stale:
        if flight.windows != attempt.flight.windows:  # it may be too old for this reader
            return None
        core.counters.stale_served += 1
    if outcome.absent and not attempt.may_be_absent:
        return None
    core.counters.misses += 1
    if flight.packed is not None:
        with suppress(CodecError):
            outcome = outcome._replace(value=core.entries.decode(flight.packed))
    outcome = or_stale(attempt, outcome)
    return outcome if outcome.error is None else Outcome(error=again(outcome.error, flight.trace))


async def wait_ended(attempt: Attempt) -> Outcome | None:
    """Act on a load of another instance, or of another reader, that takes too long."""
    if attempt.purpose is not Purpose.AFTER_WAIT:
        attempt.wait_is_over = True
        return None
    if not attempt.policy.timed:  # the second load hangs as well
        return await attempt.load()
    late = LoaderTimeout(f"{attempt.key!r} was not loaded: two loads of it hang, and wait_timeout is over")
    return or_stale(attempt, Outcome(error=late))


def stale_instead(attempt: Attempt) -> Outcome | None:
    """A stale value after an error or a time limit, if there is one and it may serve."""
    if attempt.purpose not in (Purpose.VALUE, Purpose.AFTER_WAIT):  # the new value is wanted, or none
        return None
    core, policy, found = attempt.core, attempt.policy, attempt.stale
    there = found if found is not None and found.if_error(policy) else None
    serves = there or stale.last_resort(core, attempt.key, policy, away=attempt.away)
    if serves is None:
        return None
    if serves is there:
        note_stale(attempt, serves)
    core.counters.stale_served += 1
    return Outcome(core.entries.value_of(serves.entry), stale=True)  # several readers may have this one


def or_stale(attempt: Attempt, outcome: Outcome) -> Outcome:
    """A stale value in place of an error."""
    if outcome.error is None:
        return outcome
    back_off(attempt)
    served = stale_instead(attempt)
    if served is not None:
        attempt.core.hide(attempt.key, outcome.error, "a stale value serves")
    return served or outcome


def back_off(attempt: Attempt) -> None:
    """Leave the loader alone for a while, as long as an old value can serve."""
    core = attempt.core
    until = core.runtime.monotonic() + attempt.policy.stale_backoff
    core.loads.note_failure(attempt.key, until, core.tier.snapshot(attempt.key))


def note_stale(attempt: Attempt, served: Stale) -> None:
    """Record the version of a stale value that is returned, so that no later read returns an older one (S)."""
    attempt.core.tier.returned_unkept(attempt.key, served.entry.version, attempt.flight.snapshot)
