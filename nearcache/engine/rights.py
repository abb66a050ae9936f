"""The rights of the user that this process has on the server: who lacks one that writes need never writes."""

from __future__ import annotations

from nearcache.engine.breaker import REFUSES_WRITES, SERVES_NOBODY
from nearcache.engine.core import Core
from nearcache.engine.ports import BusRefused, RemoteFailed
from nearcache.engine.replay import longer
from nearcache.engine.requests import Operation


async def try_rights(core: Core, nonce: str) -> bool:
    """Try every right that scripts and reads need, on a scratch name, and publish a probe; whether it was published.

    A write that is refused in its middle would take a number without a message, at which all other instances flush. So
    an instance that lacks a right writes nothing, journals nothing and asks for no lease; it reads L2, and keeps L1 if
    it hears messages (docs/protocol.md, V). A server that takes no writes for now says nothing about rights.
    """
    requests = core.requests
    try:
        requests.permit()
        await core.remote.probe(nonce)
    except RemoteFailed as failure:
        refused = failure.answered or isinstance(failure, BusRefused)  # the latter on the new connection already
        if not refused or failure.code in REFUSES_WRITES | SERVES_NOBODY:
            requests.failed(failure, Operation.PROBE)
        else:
            if requests.denied is None:
                requests.refuse(Operation.SET, failure)
            requests.denied = f"the user lacks a right that the cache needs: {failure}"
        return False
    requests.answered(Operation.PROBE if requests.denied is None else Operation.SET, None)
    requests.denied = None
    core.rights_pause = 0.0
    return True


async def try_lacking_rights(core: Core) -> None:
    """Where a right is lacking, try it again after pauses that double to a minute: it may have been granted."""
    now = core.runtime.monotonic()
    if core.requests.denied is not None and now >= core.rights_after:
        core.rights_pause = longer(core.rights_pause)
        core.rights_after = now + core.rights_pause
        await try_rights(core, "")
