"""Unused leases are given back, so that other instances need not wait for their end."""

from __future__ import annotations

from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation


async def abort(core: Core, key: str, lease_id: bytes) -> bool:
    """Give a lease back now, or after the next proof if Redis does not answer; whether it was held to the end."""
    try:
        return await core.requests.ask(Operation.ABORT, core.remote.abort, key, lease_id)
    except BaseException as failure:
        core.unused_leases.append((key, lease_id))
        if not isinstance(failure, RemoteFailed):
            raise
        return False


async def give_back(core: Core) -> None:
    """Give back the unused leases, up to the first that Redis does not answer; it is tried after the next proof."""
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
