"""A namespace of several buckets on one server: they share the connections for commands, and one for the bus."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import cast

from nearcache.engine.ports import SharedBus
from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.transport.claims import Claims
from nearcache.transport.client import RedisRemote
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import SharedHandshake
from nearcache.transport.port import Transport
from nearcache.transport.shared_bus import AsyncSharedBus, SyncSharedBus


class OneServer:
    """The places of buckets that are all on one server."""

    def __init__(
        self, endpoint: Endpoint, timeout: float, remotes: Sequence[RedisRemote], *, asynchronous: bool
    ) -> None:
        self._endpoint, self._timeout = endpoint, timeout
        self.remotes = remotes
        self.trouble: Callable[[], None] = lambda: None
        self._kind = AsyncSharedBus if asynchronous else SyncSharedBus

    async def owners(self) -> Sequence[Hashable | None]:
        return [self._endpoint.shown] * len(self.remotes)

    def new_bus(self, place: Hashable) -> SharedBus:
        del place
        make = lambda own: cast("SharedBus", self._kind(own, self._timeout, self.remotes))  # noqa: E731
        return self._endpoint.watched_shared(make)


def divide(
    endpoint: Endpoint, settings: Settings, transport: Transport, database: int, *, asynchronous: bool
) -> OneServer:
    """The buckets of a namespace on one server."""
    count, timeout = settings.buckets or 1, settings.redis_timeout
    names = [Names(settings.namespace, database, bucket, count) for bucket in range(count)]
    claims, retries = Claims(count), settings.retries
    remotes = [RedisRemote(transport, one, retries=retries, redis_timeout=timeout, claims=claims) for one in names]
    transport.handshake = SharedHandshake([remote.handshake for remote in remotes])
    return OneServer(endpoint, timeout, remotes, asynchronous=asynchronous)
