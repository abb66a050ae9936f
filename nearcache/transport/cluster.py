"""A namespace on a cluster: which primary has which bucket, and the connections to each.

The names of a bucket lie in one slot. Where it is, CLUSTER SLOTS tells, which any node answers; and a node that does
not have it says so, which ``cluster_bucket`` follows.

redis-py's cluster client is not used for requests: it has a connection pool and a command path of its own, and its
pub/sub ignores a server's unasked end of a subscription.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, cast

import redis
import redis.asyncio
from redis.crc import key_slot

from nearcache.engine.ports import NotSent, RemoteFailed, RemoteMisconfigured, SharedBus
from nearcache.errors import ConfigError
from nearcache.local.interrupts import make_lock
from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.transport import resp
from nearcache.transport.claims import Claims
from nearcache.transport.client import RedisRemote
from nearcache.transport.cluster_bucket import BucketTransport
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import SharedHandshake
from nearcache.transport.interpreting import interprets
from nearcache.transport.port import Transport
from nearcache.transport.shared_bus import AsyncSharedBus, SyncSharedBus
from nearcache.transport.urls import redact, scheme_of

BUCKETS = 16
"""Where the settings say nothing."""
PATIENCE = 0.2
"""Seconds for which a failed look-up of the places is not repeated by requests."""
_CLIENTS_OWN = {"connection_class", "response_callbacks"}
"""Arguments that redis-py's asynchronous client keeps among those of its connections."""
_TOLD = re.compile(r"^[A-Z]+ \d+ (.*):(\d+)")
_SLOTS = resp.pack((b"CLUSTER", b"SLOTS"))


class Node:
    """One primary: its address, its connections for commands, and the buckets that these serve."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.buckets: set[int] = set()


class Cluster:
    """The nodes of a cluster as far as a namespace needs them, and the remotes of its buckets.

    Args:
        seeds: addresses of nodes, of which one at least answers.
        settings: those of the cache.
        make: makes the connections for commands to a node.
        asynchronous: whether it is for asyncio.
    """

    def __init__(
        self,
        seeds: Sequence[Endpoint],
        settings: Settings,
        make: Callable[[Endpoint], Transport],
        *,
        asynchronous: bool,
    ) -> None:
        self._seeds, self._make = seeds, make
        self._timeout = settings.redis_timeout
        self.blocks = not asynchronous
        """Whether requests block their thread."""
        self._kind = AsyncSharedBus if asynchronous else SyncSharedBus
        count = settings.buckets or BUCKETS
        names = [Names(settings.namespace, 0, bucket, count, sharded=True) for bucket in range(count)]
        self._slots = [key_slot(one.counters) for one in names]
        self.owner: list[Node | None] = [None] * count
        self._nodes: dict[tuple[str, int], Node] = {}
        self.any_transport = make(seeds[0])
        retries, timeout, self.claims = settings.retries, settings.redis_timeout, Claims(count)
        self.remotes = [
            RedisRemote(BucketTransport(self, bucket), one, retries=retries, redis_timeout=timeout, claims=self.claims)
            for bucket, one in enumerate(names)
        ]
        self.trouble: Callable[[], None] = lambda: None
        self._failed_at = float("-inf")
        self._lock = make_lock()
        self._closed = False

    # ------------------------------------------------------------------------------------------------------ the places

    async def owners(self) -> Sequence[Hashable | None]:
        unanswered = await self._look_up()
        if unanswered:
            failure = RemoteFailed("no node is known")
            for endpoint, told in unanswered.items():
                failure = await self._explained(endpoint, told)  # for a request it takes too long
                if isinstance(failure, RemoteMisconfigured):
                    whose = f"{endpoint.shown.partition('://')[2]}: " if len(unanswered) > 1 else ""
                    raise RemoteMisconfigured(f"{whose}{failure}")
            raise failure
        return [None if node is None else _address(node.endpoint) for node in self.owner]

    async def _look_up(self) -> dict[Endpoint, RemoteFailed]:
        """Ask the nodes in turn which of them has what; why each of them did not answer, if none did."""
        failures: dict[Endpoint, RemoteFailed] = {}
        nodes = [node.endpoint for node in self._nodes.values()]
        random.shuffle(nodes)
        for endpoint in (*nodes, *self._seeds):
            asking = self._make(endpoint)
            try:
                (reply,) = await asking.execute(_SLOTS, repeatable=True)
                if isinstance(reply, RemoteFailed):
                    raise reply.unless_final() if isinstance(reply, resp.ServerError) else reply
                places = _places(endpoint, reply)
            except RemoteFailed as failure:
                failures[endpoint] = failure
                continue
            finally:
                await asking.close()
            endpoint.connected()
            for bucket, slot in enumerate(self._slots):
                place = next((place for first, last, place in places if first <= slot <= last), None)
                self._assign(bucket, place)
            return {}
        return failures

    async def _explained(self, endpoint: Endpoint, failure: RemoteFailed) -> RemoteFailed:
        if self.blocks or not endpoint.probes:
            return endpoint.explain(failure)
        return await asyncio.to_thread(endpoint.explain, failure)

    def new_bus(self, place: Hashable) -> SharedBus:
        node = self._node(cast("tuple[str, int]", place))
        return cast("SharedBus", self._kind(node.endpoint, self._timeout, self.remotes))

    async def find(self, bucket: int) -> Node:
        """The node of a bucket whose place is not known.

        Raises:
            NotSent: nobody knows it.
        """
        if self._closed:
            raise NotSent("closed")
        if monotonic() > self._failed_at + PATIENCE:
            failures = tuple((await self._look_up()).values())
            if failures:
                self._failed_at = monotonic()
                raise NotSent(f"nobody knows which node has the bucket: {failures[-1]}")
        node = self.owner[bucket]
        if node is None:
            self._failed_at = monotonic()
            raise NotSent("no node of the cluster has the bucket")
        return node

    def follow(self, bucket: int, asked: Node, refusal: resp.ServerError) -> Node | None:
        """The node that another has named instead of an answer, if it did; after MOVED it is the bucket's."""
        told = _TOLD.match(refusal.moved_to)
        if told is None:
            return None
        place = told[1] or str(asked.endpoint.arguments["host"]), int(told[2])
        if refusal.code == "ASK":
            with self._lock:
                return self._node(place)
        if self.owner[bucket] is asked:
            self._assign(bucket, place)
        node = self.owner[bucket]
        return None if node is asked else node

    # ------------------------------------------------------------------------------------------------------- the nodes

    def _assign(self, bucket: int, place: tuple[str, int] | None) -> None:
        """From now on the bucket's requests go to the node at this place.

        Its present connections have not introduced the client to the bucket, and are used no more (U).
        """
        with self._lock:
            before = self.owner[bucket]
            node = None if place is None else self._node(place)
            if node is before:
                return
            if before is not None:
                before.buckets.discard(bucket)
            if node is not None:
                node.buckets.add(bucket)
                members = [self.remotes[one].handshake for one in sorted(node.buckets)]
                node.transport.handshake = SharedHandshake(members)
                node.transport.discard_idle()
            self.owner[bucket] = node

    def _node(self, place: tuple[str, int]) -> Node:
        node = self._nodes.get(place)
        if node is None:
            host, port = place
            first = self._seeds[0]
            endpoint = replace(
                first,
                arguments={**first.arguments, "host": host, "port": port},
                shown=_shown(scheme_of(first.shown), host, port),
            )
            node = self._nodes[place] = Node(endpoint, self._make(endpoint))
        return node

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        for node in tuple(self._nodes.values()):
            await node.transport.close()
        await self.any_transport.close()


def _shown(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _address(endpoint: Endpoint) -> tuple[str, int]:
    return str(endpoint.arguments["host"]), int(endpoint.arguments["port"])


@interprets
def _places(asked: Endpoint, reply: Any) -> list[tuple[int, int, tuple[str, int]]]:
    """Ranges of slots with the address of their primary, by an answer to CLUSTER SLOTS."""
    places = []
    for first, last, (host, port, *_), *_ in reply:
        known = host.decode() if host not in (None, b"", b"?") else str(asked.arguments["host"])
        places.append((int(first), int(last), (known, int(port))))
    return places


def seeds_of(url: str, settings: Settings, *, asynchronous: bool) -> list[Endpoint]:
    """The nodes that a URL names: ``redis+cluster://user:password@host:port,host:port/?options``.

    Raises:
        ConfigError: the URL can never work.
    """
    scheme, _, rest = url.partition("://")
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = netloc.rpartition("@")
    urls = [f"{scheme.partition('+')[0]}://{user}{at}{host}{rest[len(netloc) :]}" for host in hosts.split(",")]
    shown = redact(url)
    seeds = _checked([Endpoint.from_url(one, settings, asynchronous=asynchronous, shown=shown) for one in urls])
    for seed in seeds:  # attempts to connect that hang are counted for each address
        host, port = seed.arguments.get("host", "localhost"), seed.arguments.get("port", 6379)
        seed.arguments = {**seed.arguments, "host": host, "port": port}
        seed.shown = _shown(scheme, host, port)
    return seeds


def seeds_of_client(client: Any, settings: Settings, *, asynchronous: bool) -> list[Endpoint]:
    """The nodes that a redis-py client for a cluster knows, with its connection settings.

    Raises:
        ConfigError: the settings can never work.
    """
    manager = client.nodes_manager
    nodes = list(manager.nodes_cache.values()) or list(manager.startup_nodes.values())
    if asynchronous:
        given = {name: value for name, value in client.connection_kwargs.items() if name not in _CLIENTS_OWN}
        chosen = client.connection_kwargs["connection_class"]
    else:
        pool: Any = client.get_redis_connection(nodes[0]).connection_pool
        given, chosen = dict(pool.connection_kwargs), pool.connection_class
    scheme = f"redis{'s' * issubclass(chosen, redis.SSLConnection | redis.asyncio.SSLConnection)}+cluster"
    seeds = []
    for node in nodes:
        shown = _shown(scheme, node.host, int(node.port))
        seeds.append(Endpoint.of(chosen, {**given, "host": node.host, "port": int(node.port)}, settings, shown))
    return _checked(seeds)


def _checked(seeds: list[Endpoint]) -> list[Endpoint]:
    for seed in seeds:
        if int(seed.arguments.get("db") or 0):
            raise ConfigError(f"{seed.shown}: a cluster has one database, which is number 0; name no other")
    return seeds
