"""Connect to the primary that Sentinels name.

redis-py's ``SentinelManagedConnection`` makes the connections, and asks the endpoint for the address each time. Each
Sentinel has its part of ``redis_connect_timeout`` to answer.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.sentinel

from nearcache.engine.ports import Bus, RemoteFailed, SharedBus
from nearcache.errors import ConfigError
from nearcache.settings import Settings
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sentinel_search import Opinion, Search, Sentinels, name_of
from nearcache.transport.sentinel_watch import WatchedBus, WatchedSharedBus
from nearcache.transport.urls import redact

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
