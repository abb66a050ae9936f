"""Permits of loads: the one beyond the bound that a stall gives goes again, and one that is lost comes back."""

from __future__ import annotations

from nearcache.local.loads import Loads
from nearcache.runtime.latches import ThreadPermits
from nearcache.runtime.run_sync import run_sync


def test_the_permit_beyond_the_bound_is_given_back_for_good() -> None:
    """Else each stall would raise the bound."""
    permits = ThreadPermits(1)
    loads = Loads(permits)
    first, beyond = run_sync(loads.acquire(0)), run_sync(loads.acquire(5))
    assert first is not None
    assert beyond is not None
    loads.release(first)
    del first
    loads.release(beyond)
    del beyond
    assert permits._free.qsize() == 1
    assert not loads.extra


def test_a_permit_that_is_lost_comes_back() -> None:
    """As by an interrupt before it was noted anywhere."""
    permits = ThreadPermits(2)
    permit = run_sync(permits.acquire(0))
    assert permits._free.qsize() == 1
    del permit
    assert permits._free.qsize() == 2
