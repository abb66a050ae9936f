"""From a URL or a client to a Backend: the remote, a factory of buses, and the server if it was started here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

from nearcache.engine.core import Core
from nearcache.engine.plain import LoneReads, read_all
from nearcache.engine.ports import Bus, RemoteFailed
from nearcache.errors import ConfigError, warn
from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.transport.async_transport import AsyncBus, AsyncTransport
from nearcache.transport.backend import Backend, Buckets
from nearcache.transport.batching import TaskReads, ThreadReads
from nearcache.transport.client import RedisRemote
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.memory import MemoryRemote
from nearcache.transport.port import Transport
from nearcache.transport.resp import SILENCES
from nearcache.transport.sync_transport import SyncBus, SyncTransport
from nearcache.transport.urls import CLUSTERS, redact, scheme_of

if TYPE_CHECKING:
    from nearcache.transport.embedded import EmbeddedServer


def open_url(url: str, settings: Settings, *, asynchronous: bool) -> Backend:
    """The Backend that a URL names. It connects at the first use, but ``embedded://`` starts its server now.

    Raises:
        ConfigError: the URL can never work.
    """
    scheme = scheme_of(url)
    if scheme in ("memory", "null", "embedded") and url != f"{scheme}://":
        raise ConfigError(f"nothing may follow {scheme}:// in a URL")
    if scheme in ("memory", "null"):
        again = partial(open_url, url, settings, asynchronous=asynchronous)
        return Backend(MemoryRemote(), None, url, again, keeps=scheme == "memory")
    if scheme == "embedded":
        from nearcache.transport.embedded import EmbeddedServer  # noqa: PLC0415  # few need it

        if _is_spawned():
            warn(
                "embedded:// in a process that multiprocessing has spawned starts a server of its own, which no other "
                "process shares; hand cache.url of the first process on, and give it to from_url here"
            )
        return _open_embedded(EmbeddedServer(tcp=False), settings, asynchronous)
    if scheme in CLUSTERS:
        from nearcache.transport.cluster import seeds_of  # noqa: PLC0415  # few need it, and it takes its time to import

        seeds = seeds_of(url, settings, asynchronous=asynchronous)
        return _open_cluster(seeds, redact(url), settings, asynchronous)
    return _open(Endpoint.from_url(url, settings, asynchronous=asynchronous), settings, asynchronous)


def open_client(client: object, settings: Settings, *, asynchronous: bool) -> Backend:
    """A Backend of the server that a client of the user is connected to; the client itself is not used.

    Raises:
        ConfigError: it is no client of redis-py for this class of cache.
    """
    if isinstance(client, redis.asyncio.RedisCluster if asynchronous else redis.RedisCluster):
        from nearcache.transport.cluster import seeds_of_client  # noqa: PLC0415  # few need it, and it takes its time to import

        seeds = seeds_of_client(client, settings, asynchronous=asynchronous)
        hosts = ",".join(seed.shown.partition("://")[2] for seed in seeds)
        return _open_cluster(seeds, f"{scheme_of(seeds[0].shown)}://{hosts}", settings, asynchronous)
    return _open(Endpoint.from_client(client, settings, asynchronous=asynchronous), settings, asynchronous)


def _is_spawned() -> bool:
    """Whether another process of multiprocessing has started this one, which may have imported the same module."""
    program = sys.modules.get("__mp_main__")  # also a name of the first process's __main__
    if getattr(program, "__name__", "") == "__mp_main__":  # it is imported now, and there is no parent_process yet
        return True
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _open_embedded(server: EmbeddedServer, settings: Settings, asynchronous: bool) -> Backend:
    """A Backend of this server, which is started unless it runs. A forked process shares it, and never ends it."""
    endpoint = Endpoint.from_url(server.start().url, settings, asynchronous=asynchronous)
    again = partial(_open_embedded, server, settings, asynchronous)
    return _open(endpoint, settings, asynchronous)._replace(again=again, server=server)


def no_bus() -> Bus:
    """Stand for the bus of a cache of several buckets, which ``Places`` makes."""
    raise RemoteFailed("the buckets have a bus of their own")


def _transport(endpoint: Endpoint, settings: Settings, asynchronous: bool) -> Transport:
    if asynchronous:
        return AsyncTransport(endpoint, settings.redis_timeout)
    return SyncTransport(endpoint, settings.redis_timeout, settings.max_connections)


def _reads(settings: Settings, asynchronous: bool) -> Callable[[Core], LoneReads]:
    if asynchronous:
        return TaskReads
    longest = settings.redis_connect_timeout + SILENCES * settings.redis_timeout
    turn = settings.redis_timeout / 10
    return lambda core: ThreadReads(partial(read_all, core), turn=turn, patience=longest)


def _open_cluster(seeds: list[Endpoint], shown: str, settings: Settings, asynchronous: bool) -> Backend:
    from nearcache.transport.cluster import Cluster  # noqa: PLC0415  # few need it, and it takes its time to import

    make = partial(_transport, settings=settings, asynchronous=asynchronous)
    cluster = Cluster(seeds, settings, make, asynchronous=asynchronous)
    again = partial(_open_cluster, seeds, shown, settings, asynchronous)
    buckets = Buckets(cluster.remotes, cluster)
    return Backend(cluster.remotes[0], no_bus, shown, again, reads=_reads(settings, asynchronous), buckets=buckets)


def _open(endpoint: Endpoint, settings: Settings, asynchronous: bool) -> Backend:
    names = Names(settings.namespace, int(endpoint.arguments.get("db") or 0))
    timeout = settings.redis_timeout
    transport, reads = _transport(endpoint, settings, asynchronous), _reads(settings, asynchronous)
    bus = AsyncBus if asynchronous else SyncBus
    again = partial(_open, endpoint, settings, asynchronous)
    buckets = settings.buckets or 1
    if buckets > 1:
        from nearcache.transport.divided import divide  # noqa: PLC0415  # few need it, and it takes its time to import

        one = divide(endpoint, settings, transport, names.database, asynchronous=asynchronous)
        both = Buckets(one.remotes, one)
        primary = lambda: endpoint.primary  # noqa: E731
        return Backend(one.remotes[0], no_bus, endpoint.shown, again, reads=reads, primary=primary, buckets=both)
    remote = RedisRemote(transport, names, retries=settings.retries, redis_timeout=timeout)

    def new_bus() -> Bus:
        seen = lambda: remote.seen()  # noqa: E731, PLW0108  # it is set later
        return endpoint.watched(lambda own: bus(own, timeout, names, seen))

    return Backend(remote, new_bus, endpoint.shown, again, reads=reads, primary=lambda: endpoint.primary)
