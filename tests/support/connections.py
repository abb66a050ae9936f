"""Transports and buses of both kinds with short timeouts, and what tests say to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.transport import resp
from nearcache.transport.async_transport import AsyncBus, AsyncTransport
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sync_transport import SyncBus, SyncTransport
from tests.support.waiting import until

TIMEOUT = 0.3
"""Seconds an operation may take."""


SLACK = 1.5
"""Seconds more that a busy machine may take to notice."""


PING = resp.pack((b"PING",))


@dataclass
class Make:
    """Transports and buses of one kind; all are closed after the test."""

    mode: str
    namespace: str
    made: list[Any] = field(default_factory=list)

    def endpoint(self, url: str) -> Endpoint:
        """With short timeouts."""
        settings = Settings(redis_timeout=TIMEOUT, redis_connect_timeout=TIMEOUT)
        return Endpoint.from_url(url, settings, asynchronous=self.mode == "aio")

    def transport(self, url: str, timeout: float = TIMEOUT, max_connections: int = 4) -> Any:
        """A transport."""
        factory = self.endpoint(url)
        transport: Any = (
            AsyncTransport(factory, timeout) if self.mode == "aio" else SyncTransport(factory, timeout, max_connections)
        )
        self.made.append(transport)
        return transport

    def bus(self, url: str) -> Any:
        """A bus, not open yet."""
        kind: Any = AsyncBus if self.mode == "aio" else SyncBus
        bus = kind(self.endpoint(url), TIMEOUT, Names(self.namespace))
        self.made.append(bus)
        return bus


def echo(text: str) -> bytes:
    """A command whose reply is known."""
    return resp.pack((b"ECHO", text))


async def idle_is_dead(transport: Any) -> None:
    """Wait until the end of the transport's idle connection has arrived."""
    if isinstance(transport, AsyncTransport):
        await until(lambda: transport._pipeline is not None and transport._pipeline.stream.closing)
    else:
        await until(lambda: transport._idle[-1].readable(0))
