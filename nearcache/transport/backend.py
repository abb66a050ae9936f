"""What a cache is given to work with: the connections to one server."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import redis
import redis.asyncio

from nearcache.engine.core import Core
from nearcache.engine.plain import LoneReads
from nearcache.engine.ports import Bus, Places, Remote

if TYPE_CHECKING:
    from nearcache.transport.embedded import EmbeddedServer

Client: TypeAlias = redis.Redis | redis.RedisCluster
AsyncClient: TypeAlias = redis.asyncio.Redis | redis.asyncio.RedisCluster


class Buckets(NamedTuple):
    """The connections of a cache of several buckets."""

    remotes: Sequence[Remote]
    """By the number of the bucket."""
    places: Places


class Backend(NamedTuple):
    """The connections of one cache to its server."""

    remote: Remote
    new_bus: Callable[[], Bus] | None
    """None: there is no other instance, so L1 needs no messages."""
    shown: str
    """The address without user and password."""
    again: Callable[[], "Backend"]
    """Makes a Backend of the same server with connections of its own."""
    server: "EmbeddedServer | None" = None
    """The server that was started here and is stopped with the cache."""
    reads: Callable[[Core], LoneReads] = LoneReads
    """How reads of single keys go as one request."""
    primary: Callable[[], str | None] = lambda: None
    """The primary that Sentinels named last."""
    keeps: bool = True
    """Whether anything is kept at all."""
    buckets: Buckets | None = None
    """What stands in place of the remote and the bus where there are several buckets."""
