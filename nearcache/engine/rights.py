"""The rights of the user that this process has on the server: who lacks one that writes need never writes."""

from __future__ import annotations

from nearcache.engine.breaker import REFUSES_WRITES, SERVES_NOBODY
from nearcache.engine.core import Core
from nearcache.engine.ports import BusRefused, RemoteFailed
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
        elif requests.denied is None:
            requests.denied = f"the user lacks a right that the cache needs: {failure}"
            requests.refuse(Operation.SET, failure)
        return False
    requests.answered(Operation.PROBE, None)
    requests.denied = None
    return True
