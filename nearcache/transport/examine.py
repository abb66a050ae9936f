"""Ask a server what it is and how it is set up: for `nearcache doctor`. A cache never calls this."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from nearcache.engine.ports import RemoteFailed
from nearcache.settings import Settings
from nearcache.transport import resp
from nearcache.transport.diagnosis import OLDEST, problem_of_server
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sentinel import SentinelEndpoint
from nearcache.transport.sentinel_search import name_of, shown
from nearcache.transport.sync_connection import SocketConnection

ROUNDS = 5
"""How often the round trip is measured."""
LIMITS = (
    "client-output-buffer-limit",
    "client-query-buffer-limit",
    "proto-max-bulk-len",
    "timeout",
    "tcp-keepalive",
    "cluster-require-full-coverage",
)


@dataclass(frozen=True)
class Watched:
    """What the Sentinels of a service say."""

    service: str
    answering: str
    """How many of the Sentinels answer."""
    primary: str | None
    """The one that was connected to."""
    problems: tuple[str, ...]
    """Those that do not answer, or say something else, or can't authorise a failover."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a server says of itself."""

    product: str
    version: str
    mode: str
    """``standalone``, ``cluster`` or ``sentinel``."""
    role: str
    protocol: int
    """The RESP version that it accepts."""
    problem: str | None
    """Why no such server can keep a cache: too old, or a Sentinel."""
    round_trip: float
    """Seconds, the median."""
    clock_offset: float
    """Its clock minus this machine's, in seconds."""
    info: Mapping[str, str] | None
    """The fields of INFO; None: denied."""
    config: Mapping[str, str] | None
    """Those of LIMITS; None: CONFIG GET is denied."""
    watched: Watched | None = None
    """What its Sentinels say; None: none were asked."""

    @property
    def too_old(self) -> bool:
        """Whether the release is older than OLDEST."""
        parts = tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())
        return len(parts) == len(OLDEST) and parts < OLDEST


def examine(url: str, settings: Settings) -> Server:
    """Connect once, and ask.

    Raises:
        ConfigError: the URL can never work.
        RemoteFailed: the server can't be reached, or refuses the connection; RemoteMisconfigured if it does for good.
    """
    endpoint = Endpoint.from_url(url, settings, asynchronous=False)
    return replace(examine_endpoint(endpoint, settings), watched=_watched(endpoint))


def examine_endpoint(endpoint: Endpoint, settings: Settings) -> Server:
    """As ``examine``, of one server."""
    try:
        connection = SocketConnection(endpoint, settings.redis_timeout)
    except RemoteFailed as failure:
        raise endpoint.explain(failure) from None
    try:
        return _ask(connection, endpoint.protocol)
    finally:
        connection.close()


def _watched(endpoint: Endpoint) -> Watched | None:
    if not isinstance(endpoint, SentinelEndpoint):
        return None
    sentinels, problems, silent = endpoint.sentinels, [], 0
    for place in sentinels.places:
        name = f"the Sentinel {name_of(place)}"
        try:
            opinion = sentinels.ask(place)
        except RemoteFailed as failure:
            silent += 1
            problems.append(f"{name}: {failure}")
            continue
        if opinion.no_quorum is not None:
            problems.append(f"{name}: {opinion.no_quorum}")
        if shown(opinion.address) != sentinels.primary:
            problems.append(f"{name} names {shown(opinion.address)}, others {sentinels.primary}")
    count = len(sentinels.places)
    return Watched(sentinels.service, f"{count - silent} of {count}", sentinels.primary, tuple(problems))


def _ask(connection: SocketConnection, protocol: int) -> Server:
    def ask(*command: bytes) -> Any:
        (reply,) = connection.execute(resp.pack(command), 1)
        return reply

    trips, offset = [], 0.0
    for _ in range(ROUNDS):
        began = time.monotonic()
        seconds, micros = ask(b"TIME")
        trips.append(time.monotonic() - began)
        offset = int(seconds) + int(micros) / 1e6 - time.time()
    hello = ask(b"HELLO")
    facts = hello if isinstance(hello, Mapping) else {}
    if isinstance(hello, list):
        facts = dict(zip(hello[::2], hello[1::2], strict=False))
    told = ask(b"INFO")
    info = _fields(told) if isinstance(told, bytes) else None
    product, version = "redis", _text(facts.get(b"version")) or (info or {}).get("redis_version", "")
    if info and "valkey_version" in info:
        product, version = "valkey", info["valkey_version"]
    return Server(
        product=product,
        version=version,
        mode=_text(facts.get(b"mode")) or (info or {}).get("redis_mode", ""),
        role=_text(facts.get(b"role")) or (info or {}).get("role", ""),
        protocol=protocol,
        problem=problem_of_server(hello),
        round_trip=median(trips),
        clock_offset=offset,
        info=info,
        config=_limits(ask(b"CONFIG", b"GET", *(name.encode() for name in LIMITS))),
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _fields(info: bytes) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):(.*?)\r?$", info.decode(errors="replace"), re.MULTILINE))


def _limits(reply: object) -> dict[str, str] | None:
    if isinstance(reply, Mapping):
        return {_text(name): _text(value) for name, value in reply.items()}
    if isinstance(reply, list):
        return {_text(name): _text(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
    return None
