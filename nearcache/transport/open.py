"""From a URL or a client to what a cache stands on: a Remote, a maker of buses, and the server if it is ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import redis
import redis.asyncio

from nearcache.engine.ports import Bus, Remote
from nearcache.errors import ConfigError
from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.transport.async_transport import TaskBus, TaskWire
from nearcache.transport.batching import Read, Reads, TaskReads, ThreadReads
from nearcache.transport.client import RedisRemote, Wire
from nearcache.transport.endpoint import Endpoint, redact, scheme_of
from nearcache.transport.memory import MemoryRemote
from nearcache.transport.sync_transport import ThreadBus, ThreadWire

if TYPE_CHECKING:
    from nearcache.transport.embedded import EmbeddedServer

Client: TypeAlias = redis.Redis
AsyncClient: TypeAlias = redis.asyncio.Redis


class Backend(NamedTuple):
    """What a cache stands on."""

    remote: Remote
    new_bus: Callable[[], Bus] | None
    """None: there is nobody to be coherent with."""
    shown: str
    """The address, without user and password."""
    again: Callable[[], Backend]
    """The same once more, with connections of its own; a server of ours is then another's to stop."""
    server: EmbeddedServer | None = None
    """Started here, and to be stopped with the cache."""


def open_url(url: str, settings: Settings, *, asynchronous: bool) -> Backend:
    """What the URL names. No connection is made, but ``embedded://`` starts its server.

    Raises:
        ConfigError: the URL can never work.
    """
    scheme = scheme_of(url)
    if scheme in ("memory", "embedded") and url != f"{scheme}://":
        raise ConfigError(f"{redact(url)}: nothing may follow {scheme}://")
    if scheme == "memory":
        return Backend(MemoryRemote(), None, url, partial(open_url, url, settings, asynchronous=asynchronous))
    if scheme == "embedded":
        from nearcache.transport.embedded import EmbeddedServer  # noqa: PLC0415  # few need it

        server = EmbeddedServer().start()
        endpoint = Endpoint.from_url(server.url, settings, asynchronous=asynchronous)
        return _redis(endpoint, settings, asynchronous, server)
    return _redis(Endpoint.from_url(url, settings, asynchronous=asynchronous), settings, asynchronous)


def open_client(client: object, settings: Settings, *, asynchronous: bool) -> Backend:
    """What a user's client is connected to; the client itself is left alone.

    Raises:
        ConfigError: it is no client of redis-py for this class of cache.
    """
    return _redis(Endpoint.from_client(client, settings, asynchronous=asynchronous), settings, asynchronous)


def _redis(endpoint: Endpoint, settings: Settings, asynchronous: bool, server: EmbeddedServer | None = None) -> Backend:
    names = Names(settings.namespace)
    timeout = settings.redis_timeout
    wire: Wire
    reads: Callable[[Read], Reads]
    if asynchronous:
        wire, reads = TaskWire(endpoint, timeout), TaskReads
    else:
        wire = ThreadWire(endpoint, timeout, settings.max_connections)
        reads = partial(ThreadReads, patience=timeout + settings.redis_connect_timeout)
    bus = TaskBus if asynchronous else ThreadBus
    again = partial(_redis, endpoint, settings, asynchronous)
    remote = RedisRemote(wire, names, retries=settings.retries, redis_timeout=timeout, reads=reads)
    return Backend(remote, lambda: bus(endpoint, timeout, names), endpoint.shown, again, server)
