"""The address of Redis and how to connect there, from a URL or from a client of the user.

Only the connection settings of a client are used; the client itself is never used and never closed. Decoding and
redis-py's own retries are off, timeouts are ours, maintenance notifications are off where the keyword exists. The
protocol is RESP3, or RESP2 where the server refuses RESP3 or the URL says ``?protocol=2``.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import parse_qs, quote

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.connection
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from nearcache.engine.ports import Bus, RemoteFailed, RemoteMisconfigured, RemoteTimeout, SharedBus
from nearcache.errors import ConfigError
from nearcache.settings import Settings
from nearcache.transport.diagnosis import problem_of_client, problem_of_scheme
from nearcache.transport.urls import SENTINELS, check_scheme, parts_of, redact, scheme_of

PROBES = 3
"""Times that a port is asked whether it speaks TLS: a busy machine may take longer than a time limit to say so."""
RESP2 = 2
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
# Arguments of a pool, or that it gives its connections for its own purposes.
_POOLS_OWN = re.compile(
    "max_connections$|timeout$|maint|orig_|oss_cluster|event_dispatcher|himport|connection_pool|cache|parser_class|command_packer|connection_class"
)
# Answers to HELLO 3 of servers that speak RESP2 alone: ERR unknown command, NOPROTO, texts of their own; or NOAUTH, if
# they do not understand a password behind HELLO. (A server that does and got none: NOAUTH HELLO must be called ...)
_REFUSAL_OF_RESP3 = re.compile("unknown command|proto|hello", re.IGNORECASE)
_AUTH_NOT_UNDERSTOOD = re.compile("authentication required", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Endpoint:
    """A redis-py connection class and its arguments; the repr shows no secret."""

    connection_class: type[Any]
    arguments: Mapping[str, Any]
    shown: str
    """The address without user, password and options."""
    wanted: int = 3
    """The RESP version that the bus asks for."""
    protocol: int = 3
    """The RESP version of the next connection: the one that the server accepted last."""

    def __repr__(self) -> str:
        return f"Endpoint({self.shown})"

    probes: int = PROBES
    """How often the port may be asked yet whether it speaks TLS; 0: it has answered, or a connection was made."""
    problem: str | None = None
    """What the port answered, if the URL is for one of the other kind."""

    def connection(self) -> Any:
        """A new connection, not connected yet.

        Raises:
            RemoteMisconfigured: a file that it needs is not there.
        """
        for name in _FILES:
            path = self.arguments.get(name)
            if path and not os.access(path, os.R_OK):
                raise RemoteMisconfigured(f"{name}={path!r}: there is no such file, or it may not be read")
        return self._make()

    def _make(self) -> Any:
        return self.connection_class(**{**self.arguments, "protocol": self.protocol})

    def fall_back_to_resp2(self, connection: Any, error: Exception) -> bool:
        """Make the next connection with RESP2 if this one failed only because it asked for RESP3; whether it did."""
        match error:
            case AuthenticationError():
                refusal = _AUTH_NOT_UNDERSTOOD
            case ResponseError():
                refusal = _REFUSAL_OF_RESP3
            case _:
                return False
        if int(connection.protocol) == RESP2 or not refusal.search(str(error)):
            return False
        self.protocol = RESP2
        return True

    def explain(self, failure: RemoteFailed) -> RemoteFailed:
        """This failure of connecting, or RemoteMisconfigured if the URL is for a port with TLS and it has none.

        Also the reverse. The port is asked until it answers, a few times at most, from a thread that may wait.
        """
        host, port = self._place()
        if isinstance(failure, RemoteMisconfigured):
            return RemoteMisconfigured(self._by_scheme(str(failure)))
        if host is None or port is None or type(failure) not in (RemoteFailed, RemoteTimeout):
            return failure
        if self.probes:
            self.probes -= 1
            tls = self._tls
            with suppress(OSError):  # no connection, or no answer in time, says nothing
                timeout = self.arguments["socket_timeout"]
                self.problem = problem_of_scheme(host, port, tls=tls, timeout=timeout)
                if tls and self.problem is None:
                    self.problem = problem_of_client(host, port, self.arguments, timeout)
                self.probes = 0
        return failure if self.problem is None else RemoteMisconfigured(self._by_scheme(self.problem))

    def _by_scheme(self, problem: str) -> str:
        """What is said of the scheme of a URL, for this one, which may be of a cluster or of Sentinels."""
        plus = "".join(scheme_of(self.shown).partition("+")[1:])
        return re.sub(r"(TLS begins with rediss?)://", rf"\1{plus}://", problem)

    def _place(self) -> tuple[str | None, int | None]:
        return self.arguments.get("host"), self.arguments.get("port")

    def connected(self) -> None:
        """A connection was made: the URL is for a port of this kind, though a certificate may expire."""
        self.probes, self.problem = PROBES if self._tls else 0, None

    @property
    def _tls(self) -> bool:
        return issubclass(self.connection_class, redis.SSLConnection | redis.asyncio.SSLConnection)

    def ask_for_resp3(self) -> None:
        """Make the next connection with RESP3 again, unless the URL says RESP2: the server may be another one now."""
        self.protocol = self.wanted

    @property
    def primary(self) -> str | None:
        """Host and port that Sentinels have named last; None: none is asked."""
        return None

    def watched(self, make: Callable[[Endpoint], Bus]) -> Bus:
        """A bus on this endpoint; where the server may be replaced by another one, it ends then."""
        return make(self)

    def watched_shared(self, make: Callable[[Endpoint], SharedBus]) -> SharedBus:
        """As ``watched``, for the bus of several buckets."""
        return make(self)

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, asynchronous: bool, shown: str = "") -> Endpoint:
        """The endpoint of a URL, which may have redis-py's options behind the ``?``.

        Args:
            url: of one server, or of Sentinels.
            settings: the time limits.
            asynchronous: for which class.
            shown: the address in messages, if the URL was made of another one.

        Raises:
            ConfigError: the URL can never work; its password is not in the message.
        """
        if scheme_of(url) in SENTINELS:
            from nearcache.transport import sentinel  # noqa: PLC0415  # few need it, and it imports this module

            return sentinel.from_url(url, settings, asynchronous=asynchronous)
        shown = shown or redact(url)
        check_scheme(scheme_of(url), shown)
        if re.search(r"[?#].*@", url, flags=re.DOTALL):
            raise ConfigError(
                f"{shown}: an @ stands behind ? or #: special characters must be quoted in passwords and options "
                "(%40 for @, %3F for ?, %23 for #)"
            )
        parts = parts_of(url, shown)
        module: Any = redis.asyncio.connection if asynchronous else redis.connection
        given: dict[str, Any] = {}
        problem = ""
        try:
            given = dict(module.parse_url(url))
            if isinstance(given.get("ssl_min_version"), str):  # redis-py 6.0 leaves the text as it is
                given["ssl_min_version"] = _whole(given["ssl_min_version"], "ssl_min_version")
        except ValueError as error:
            problem = f"{shown}: {error}"
        if problem:  # raised here, as in parts_of
            raise ConfigError(problem)
        chosen = given.pop("connection_class", module.Connection)
        if parse_qs(parts.query).get("db"):  # it counts more than the path's
            number = given["db"]
            unix = parts.scheme == "unix"
            shown = f"{shown}?db={number}" if unix else re.sub(r"(/\d*)?$", f"/{number}", shown, count=1)
        endpoint = cls.of(chosen, given, settings, shown)
        if str(given.get("protocol")) == str(RESP2):
            endpoint.wanted = endpoint.protocol = RESP2
        return endpoint

    @classmethod
    def from_client(cls, client: object, settings: Settings, *, asynchronous: bool) -> Endpoint:
        """The endpoint that a client of the user is connected to, with the client's connection settings.

        Raises:
            ConfigError: it is no client of redis-py, or one for the other class.
        """
        wanted, other = (redis.asyncio, redis) if asynchronous else (redis, redis.asyncio)
        name = f"{type(client).__module__}.{type(client).__qualname__}"
        module, ours = ("redis.asyncio", "AsyncNearCache") if asynchronous else ("redis", "NearCache")
        if isinstance(client, other.Redis | other.RedisCluster):
            kind = "RedisCluster" if isinstance(client, other.RedisCluster) else "Redis"
            raise ConfigError(f"{ours} needs a {module}.{kind}, got {name}")
        if not isinstance(client, wanted.Redis):
            right = f"{module}.Redis or {module}.RedisCluster"
            raise ConfigError(f"{name} is no redis-py client for this; pass a {right}, or use from_url")
        pool: Any = cast("Any", client).connection_pool
        if not _connects(pool.connection_class):
            raise ConfigError(
                f"a {name} with {pool.connection_class.__qualname__} does not connect as redis-py does, and its "
                "connections cannot be used; in tests take nearcache.testing.FakeServer: FakeServer().behind(cache)"
            )
        if isinstance(pool, redis.sentinel.SentinelConnectionPool | redis.asyncio.sentinel.SentinelConnectionPool):
            from nearcache.transport import sentinel  # noqa: PLC0415  # as in from_url

            return sentinel.from_pool(pool, settings, asynchronous=asynchronous)
        return cls.of(pool.connection_class, pool.connection_kwargs, settings)

    @classmethod
    def of(cls, chosen: type[Any], given: Mapping[str, Any], settings: Settings, shown: str = "") -> Self:
        """The endpoint of connections of redis-py, by their class and its arguments.

        Raises:
            ConfigError: the class does not take them.
        """
        shown = shown or _address(chosen, given)
        arguments = {name: value for name, value in given.items() if not _POOLS_OWN.match(name)}
        arguments |= _our_arguments(chosen, settings)
        endpoint = cls(chosen, arguments, shown)
        problem = ""
        try:
            endpoint._make()
        except Exception as error:  # noqa: BLE001  # the constructor may be the user's and raise anything
            # Only a TypeError's text, which names the argument, is known to hold no value.
            problem = f"{error}" if isinstance(error, TypeError) else type(error).__name__
        if problem:  # raised here, as in parts_of
            raise ConfigError(f"{shown}: redis-py refuses these connection options: {problem}")
        return endpoint


def _connects(chosen: type[Any]) -> bool:
    """Whether a connection class reads a socket as redis-py's do; a fake's does not."""
    return getattr(getattr(chosen, "read_response", None), "__module__", "").startswith("redis.")


def _address(chosen: type[Any], given: Mapping[str, Any]) -> str:
    """The URL of a client's server, without user and password."""
    database = given.get("db") or 0
    if given.get("path"):
        return f"unix://{quote(given['path'])}?db={database}"
    tls = issubclass(chosen, redis.SSLConnection | redis.asyncio.SSLConnection)
    host = str(given.get("host") or "localhost")
    host = f"[{host}]" if ":" in host else host
    return f"redis{'s' * tls}://{host}:{given.get('port') or 6379}/{database}"


def _our_arguments(chosen: type[Any], settings: Settings) -> dict[str, Any]:
    asynchronous = issubclass(chosen, redis.asyncio.connection.AbstractConnection)
    retry: Any = AsyncRetry if asynchronous else Retry
    ours: dict[str, Any] = {
        "decode_responses": False,
        "protocol": 3,
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_connect_timeout,
        "health_check_interval": 0,
        "retry_on_timeout": False,
        "retry_on_error": [],
        "retry": retry(NoBackoff(), 0),
    }
    base = redis.asyncio.connection.AbstractConnection if asynchronous else redis.connection.AbstractConnection
    if "maint_notifications_config" in inspect.signature(base.__init__).parameters:
        from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415  # redis-py 7.1 and later

        ours["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return ours


def _whole(text: str, name: str) -> int:
    """A number of the URL; the error of ``int`` would quote the text."""
    if not text.isdecimal():
        raise ValueError(f"Invalid value for '{name}' in connection URL")
    return int(text)
