"""Leases that nobody uses any more are given back, so that others need not wait for their end."""

from __future__ import annotations

from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation


async def abort(core: Core, key: str, lease_id: bytes) -> None:
    """Give a lease back, so that others need not wait for its end."""
    core.unused_leases.append((key, lease_id))
    await give_back(core)


async def give_back(core: Core) -> None:
    """Give back the leases that nobody uses; what Redis does not answer now is tried again after the next proof."""
    for _ in range(len(core.unused_leases)):
        try:
            key, lease_id = core.unused_leases.popleft()
        except IndexError:  # another thread was quicker
            return
        try:
            await core.requests.ask(Operation.ABORT, core.remote.abort, key, lease_id)
        except RemoteFailed:
            core.unused_leases.append((key, lease_id))
            return
