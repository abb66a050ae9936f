"""What becomes of loaded values: offered to L2 under their leases, turned down, or returned without a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from nearcache.engine import write
from nearcache.engine.core import Core, chunks
from nearcache.engine.entries import Encoded
from nearcache.engine.leases import abort
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.local.marks import Mark
from nearcache.protocol.answers import BATCH, Fill

if TYPE_CHECKING:
    from nearcache.engine.attempt import Attempt

A = TypeVar("A", bound="Attempt")


async def fill(core: Core, loaded: Sequence[tuple[A, Encoded]]) -> set[A]:
    """Offer loaded values to L2, BATCH of them by one request, and put those into L1 that L2 took; which these are.

    Args:
        core: the cache.
        loaded: attempts that have a lease, and their values. Afterwards they have none.
    """
    kept: set[A] = set()
    if core.parts:
        by_key = {one.key: (one, value) for one, value in loaded}
        for bucket, keys in core.split(by_key):
            kept |= await fill(bucket, [by_key[key] for key in keys])
        return kept
    for part in chunks(loaded, BATCH):
        fills = [Fill(value, one.lease_id, one.grant, one.policy.tags) for one, value in part if one.grant is not None]
        try:
            answers = await core.requests.ask(Operation.FILL, core.remote.fill, fills)
        except RemoteFailed:
            core.unused_leases.extend((one.key, one.lease_id) for one, _ in part)
            answers = [None] * len(part)
        else:
            core.counters.fills_refused += answers.count(None)
        for (one, value), written in zip(part, answers, strict=True):
            one.grant = None
            if written is not None:
                kept.add(one)
                entry = core.entries.of_write(value, written, one.policy)
                core.counters.fills_refused += not core.tier.put(one.key, entry, one.flight.snapshot)
    return kept


async def turn_down(core: Core, attempts: Sequence[A]) -> set[A]:
    """Remove what L2 has of keys whose loaded value is not to be stored; those where nothing older can be there now.

    What was there is not what the loader means any more, and would be served stale. Where nothing was there, the lease
    alone is given back: if it was held to the end, nothing was written since.

    Args:
        core: the cache.
        attempts: they have a lease. Afterwards they have none.
    """
    dead, absent = [one for one in attempts if one.dead], [one for one in attempts if not one.dead]
    sure: set[A] = set()
    if dead and await write.remove(core, [one.key for one in dead]):
        sure.update(dead)
    held = await abort(core, [(one.key, one.lease_id) for one in absent])
    sure.update(one for one, was_held in zip(absent, held, strict=True) if was_held)
    for one in attempts:
        one.grant = None
    return sure


def return_unversioned(attempt: Attempt, encoded: Encoded | None, began: float, *, sure: bool) -> None:
    """Note that a loaded value is returned without a version.

    Kept aside it serves while Redis is away, or after an error of a later load.

    Args:
        attempt: the attempt that has loaded it.
        encoded: the value; None: it can't be stored, or is not to be.
        began: when the load began (monotonic).
        sure: whether nothing older can be in L2.
    """
    core, policy, entry = attempt.core, attempt.policy, None
    if encoded is not None and (attempt.away or policy.stale_if_error):
        entry = core.entries.of_outage(encoded, began if attempt.away else None, policy)
    mark = None if sure else end_of(attempt)
    core.tier.returned_unversioned(attempt.key, mark, attempt.flight.snapshot, entry)


def end_of(attempt: Attempt) -> Mark:
    """The time at which the load has ended."""
    return Mark(attempt.ended, attempt.offset)
