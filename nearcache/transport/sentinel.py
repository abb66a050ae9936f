"""Connect to the primary that Sentinels name, and watch whether they still name the same one.

redis-py's ``SentinelManagedConnection`` makes the connections, and asks the endpoint for the address each time. Each
Sentinel has its part of ``redis_connect_timeout`` to answer.

Sentinel leaves a primary that it has replaced by hand, or that comes back, writable for 8 s or longer, and ends its
connections only then. So with each heartbeat the bus asks one of the Sentinels, in turn, who is the primary.
"""

from __future__ import annotations

import _thread
import asyncio
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, unquote, urlencode

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.sentinel

from nearcache.engine.ports import Bus, News, RemoteFailed, SharedBus
from nearcache.errors import ConfigError
from nearcache.protocol.answers import BusItem, Greeting
from nearcache.settings import Settings
from nearcache.transport.endpoint import Endpoint, redact
from nearcache.transport.sentinel_search import Opinion, Search, Sentinels, name_of, shown

if TYPE_CHECKING:
    from nearcache.transport.shared_bus import Channel

PORT = 26379
_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://((?P<user>[^/?#@]*)@)?(?P<hosts>[^/?#@]+)/(?P<service>[^/?#]+)"
    r"(/(?P<db>\d*))?(\?(?P<options>[^#]*))?"
)
_HOST = re.compile(r"(?P<host>[^:\[\]]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?")
_FORM = "the URL must be like redis+sentinel://host:26379,host:26379/service/0, with special characters quoted"


@dataclass(slots=True, eq=False)
class SentinelEndpoint(Endpoint):
    """The primary of a service, wherever it is: the address is asked for at each connect.

    It is what a ``SentinelManagedConnection`` takes for its pool.
    """

    sentinels: Sentinels = field(default_factory=lambda: Sentinels("", [], 0.0))
    opinion: Opinion | None = None
    """The one by which the last connection was made; None: there was none."""
    origin: SentinelEndpoint | None = None
    """The one that this is a copy of, for one bus: it counts how often a port was asked whether it speaks TLS."""
    asynchronous: bool = False
    is_master: bool = True
    check_connection: bool = False

    @property
    def service_name(self) -> str:
        """As a pool of redis-py has it, for the repr of its connections."""
        return self.sentinels.service

    def _make(self) -> Any:
        return self.connection_class(**{**self.arguments, "protocol": self.protocol, "connection_pool": self})

    def _place(self) -> tuple[str, int]:
        if self.opinion is not None:
            return self.opinion.address
        first = self.sentinels.places[0].arguments
        return first["host"], first["port"]

    def get_master_address(self) -> Any:
        """The address of the primary, or for asyncio its awaitable.

        Raises:
            RemoteFailed: there is none.
        """
        self.opinion = None
        return self._find_on_loop() if self.asynchronous else self._found(self.find())

    def find(self) -> Opinion:
        """What the Sentinels say, from a thread that may wait."""
        search = Search(self.sentinels)
        for place in self.sentinels.places:
            try:
                opinion = search.take(self.sentinels.ask(place))
            except RemoteFailed as failure:
                search.failed(place, failure)
            else:
                if opinion is not None:
                    return opinion
        return search.end()

    async def _find_on_loop(self) -> tuple[str, int]:
        search = Search(self.sentinels)
        for place in self.sentinels.places:
            try:
                opinion = search.take(await self.sentinels.ask_on_loop(place))
            except RemoteFailed as failure:
                search.failed(place, failure)
            else:
                if opinion is not None:
                    return self._found(opinion)
        return self._found(search.end())

    def _found(self, opinion: Opinion) -> tuple[str, int]:
        self.opinion = opinion
        return opinion.address

    def explain(self, failure: RemoteFailed) -> RemoteFailed:
        if self.origin is None:
            return Endpoint.explain(self, failure)
        self.origin.opinion = self.opinion
        return self.origin.explain(failure)

    def connected(self) -> None:
        Endpoint.connected(self.origin or self)

    @property
    def primary(self) -> str | None:
        return self.sentinels.primary

    def watched(self, make: Callable[[Endpoint], Bus]) -> Bus:
        own = copy.copy(self)  # its opinion is that of the bus alone
        own.origin = self
        return WatchedBus(make(own), own)

    def watched_shared(self, make: Callable[[Endpoint], SharedBus]) -> SharedBus:
        own = copy.copy(self)
        own.origin = self
        return WatchedSharedBus(make(own), own)


class _Watched:
    """What ends a bus when a Sentinel names another primary than the server that it comes from."""

    def __init__(self, bus: Bus | SharedBus, endpoint: SentinelEndpoint) -> None:
        self._ended = bus
        self._endpoint = endpoint
        self._sentinels = endpoint.sentinels
        self._turn = 0
        self._moved: RemoteFailed | None = None
        self._asking: asyncio.Task[None] | bool = False
        """The question that is under way, in a task or in a thread."""
        self._links: dict[Endpoint, Any] = {}
        """A connection to each Sentinel that was asked."""
        self._closed = False
        self.open = bus.open

    def _ask(self) -> None:
        """Ask the next Sentinel, unless another one is being asked."""
        if self._asking:
            return
        places = sorted(self._sentinels.places, key=name_of)
        place = places[self._turn % len(places)]
        self._turn += 1
        if self._endpoint.asynchronous:
            self._asking = asyncio.get_running_loop().create_task(self._look_on_loop(place), name="nearcache-sentinel")
            return
        self._asking = True
        try:
            _thread.start_new_thread(self._look, (place,))
        except RuntimeError:  # there is no thread: the next heartbeat tries again
            self._asking = False

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Give the failure of a bus that was ended here its reason."""
        try:
            yield
        except RemoteFailed:
            if self._moved is not None:
                raise self._moved from None
            raise

    def _check(self, items: Sequence[News]) -> None:
        for item in items:
            if isinstance(item, Greeting) and not item.master and (known := self._endpoint.opinion):
                self._sentinels.rotate()
                where = f"{shown(known.address)}, which is no primary"
                raise RemoteFailed(f"the Sentinel {name_of(known.place)} names {where}; the next one is asked")

    def interrupt(self) -> None:
        self._end_links()
        self._ended.interrupt()

    async def close(self) -> None:
        if isinstance(self._asking, asyncio.Task):
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._end_links()
        await self._ended.close()

    def _look(self, place: Endpoint) -> None:
        try:
            self._compare(self._sentinels.ask(place, self._links))
        except RemoteFailed:
            pass  # the next heartbeat asks another one
        finally:
            self._asking = False
            if self._closed:  # meanwhile
                self._end_links()

    async def _look_on_loop(self, place: Endpoint) -> None:
        try:
            self._compare(await self._sentinels.ask_on_loop(place, self._links))
        except RemoteFailed:
            pass
        finally:
            self._asking = False

    def _end_links(self) -> None:
        self._closed = True
        with suppress(KeyError):  # it is empty; a question that ends just now does the same in its thread
            while True:
                _, link = self._links.popitem()
                (link.stream if self._endpoint.asynchronous else link).close()

    def _compare(self, opinion: Opinion) -> None:
        """End the bus if there was a failover since it was opened."""
        known = self._endpoint.opinion
        if known is None or opinion.epoch <= known.epoch or opinion.address == known.address:
            return
        self._sentinels.epoch = max(self._sentinels.epoch, opinion.epoch)
        self._moved = RemoteFailed(f"the Sentinels name another primary: {shown(opinion.address)}")
        self._ended.interrupt()


class WatchedBus(_Watched):
    """The bus of a namespace that is not divided."""

    def __init__(self, bus: Bus, endpoint: SentinelEndpoint) -> None:
        super().__init__(bus, endpoint)
        self._bus = bus
        self.ask_greeting = bus.ask_greeting

    async def ask_beat(self) -> None:
        await self._bus.ask_beat()
        self._ask()

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        with self._named():
            items = await self._bus.receive(timeout)
        self._check(items)
        return items


class WatchedSharedBus(_Watched):
    """The bus of all buckets of a namespace: the heartbeat of the first bucket asks a Sentinel."""

    def __init__(self, bus: SharedBus, endpoint: SentinelEndpoint) -> None:
        super().__init__(bus, endpoint)
        self._bus = bus
        self.leave = bus.leave

    async def join(self, bucket: int) -> Bus:
        channel = await self._bus.join(bucket)
        if bucket == 0:
            cast("Channel", channel).beside_beat = self._ask
        return channel

    async def receive(self, timeout: float) -> Sequence[tuple[Bus, Sequence[News]]]:
        with self._named():
            parts = await self._bus.receive(timeout)
        for _, news in parts:
            self._check(news)
        return parts


def from_url(url: str, settings: Settings, *, asynchronous: bool) -> SentinelEndpoint:
    """The endpoint of a URL such as ``redis+sentinel://user:password@host:26379,host:26379/service/0``.

    User and password are those of the servers; ``sentinel_username`` and ``sentinel_password`` behind the ``?`` those
    of the Sentinels. ``rediss+sentinel://`` connects to both by TLS.

    Raises:
        ConfigError: the URL can never work; no password is in the message.
    """
    clean = redact(url)
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ConfigError(f"{clean}: {_FORM}")
    options = parse_qs(parts["options"] or "", keep_blank_values=True)
    logins = [options.pop(f"sentinel_{name}", [""])[-1] for name in ("username", "password")]
    database = (options.pop("db", None) or [parts["db"] or "0"])[-1]
    service = unquote(parts["service"])
    hosts = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")]
    if not all(hosts):
        raise ConfigError(f"{clean}: {_FORM}")
    places = [f"{host['host']}:{host['port'] or PORT}" for host in hosts if host]
    scheme = f"redis{parts['tls']}"
    address = f"{scheme}+sentinel://{','.join(places)}/{parts['service']}/{database}"

    def plain(netloc: str, path: str, options: Mapping[str, Sequence[str]]) -> Endpoint:
        one = f"{scheme}://{netloc}/{path}?{urlencode(options, doseq=True)}"
        return Endpoint.from_url(one, settings, asynchronous=asynchronous, shown=address)

    user = f"{parts['user']}@" if parts["user"] is not None else ""
    servers = plain(f"{user}{places[0]}", database, options)
    login = f"{quote(logins[0], safe='')}:{quote(logins[1], safe='')}@" if any(logins) else ""
    tls = {name: values for name, values in options.items() if name.startswith("ssl_")}
    asked = [_asked(plain(f"{login}{place}", "0", tls), settings, len(places)) for place in places]
    arguments = {name: value for name, value in servers.arguments.items() if name not in ("host", "port")}
    managed = _managed(servers.connection_class)
    endpoint = SentinelEndpoint(managed, arguments, address, servers.wanted, servers.protocol)
    endpoint.sentinels = Sentinels(service, asked, _share(settings, len(asked)))
    endpoint.asynchronous = asynchronous
    return endpoint


def from_pool(pool: Any, settings: Settings, *, asynchronous: bool) -> SentinelEndpoint:
    """The endpoint of a client of the user that ``Sentinel.master_for`` has made: its settings and its Sentinels.

    Raises:
        ConfigError: it is one of ``slave_for``.
    """
    if not pool.is_master:
        raise ConfigError("a client of Sentinel.slave_for reads from replicas, which may be behind; use master_for")
    manager = pool.sentinel_manager
    given = [(one.connection_pool.connection_class, one.connection_pool.connection_kwargs) for one in manager.sentinels]
    asked = [_asked(Endpoint.of(*one, settings), settings, len(given)) for one in given]
    tls = issubclass(pool.connection_class, redis.SSLConnection | redis.asyncio.SSLConnection)
    database = pool.connection_kwargs.get("db") or 0
    places = ",".join(map(name_of, asked))
    address = f"redis{'s' * tls}+sentinel://{places}/{quote(pool.service_name, safe='')}/{database}"
    endpoint = SentinelEndpoint.of(pool.connection_class, pool.connection_kwargs, settings, address)
    share = _share(settings, len(asked))
    endpoint.sentinels = Sentinels(pool.service_name, asked, share, int(manager.min_other_sentinels))
    endpoint.asynchronous = asynchronous
    return endpoint


def _asked(endpoint: Endpoint, settings: Settings, count: int) -> Endpoint:
    """The endpoint of a Sentinel, which gets its part of the time to connect: the primary gets one as well."""
    endpoint.arguments = {**endpoint.arguments, "socket_connect_timeout": _share(settings, count)}
    return endpoint


def _share(settings: Settings, count: int) -> float:
    return settings.redis_connect_timeout / (count + 1)


def _managed(chosen: type[Any]) -> type[Any]:
    """The class of redis-py that asks Sentinels, for one that does not."""
    module: Any = redis.sentinel
    if issubclass(chosen, redis.asyncio.connection.AbstractConnection):
        module = redis.asyncio.sentinel
    tls = issubclass(chosen, redis.SSLConnection | redis.asyncio.SSLConnection)
    found: type[Any] = module.SentinelManagedSSLConnection if tls else module.SentinelManagedConnection
    return found
