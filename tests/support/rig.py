"""One namespace of a server from inside: the remote under test, a bus that hears it, and a client beside both."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis

from nearcache.protocol import messages, records
from nearcache.protocol.answers import Ask, Beat, Fill, Granted, Greeting, Item, Written
from nearcache.protocol.messages import Message
from nearcache.protocol.names import Names
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.transport.client import RedisRemote
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sync_transport import SyncBus, SyncTransport

T = TypeVar("T")


TTL = 60_000


LEASE = 10_000


TIMEOUT = 5.0


TOKEN = b"0123456789abcdef"


OTHER = b"fedcba9876543210"


FOREVER = 1 << 52
"""A time (µs) that no server's clock has reached."""


@dataclass
class Rig:
    """One namespace of a server: the remote under test, a bus that hears it, and a client beside both."""

    server: EmbeddedServer
    names: Names
    remote: RedisRemote
    bus: SyncBus
    client: Any
    heard: list[Message] = field(default_factory=list)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of a port."""
        return run_sync(work)

    def messages(self) -> list[Message]:
        """What was published since the last call."""
        self.do(self.bus.ask_beat())
        told: list[Message] = []
        while True:
            for item in self.do(self.bus.receive(TIMEOUT)):
                if isinstance(item, Beat):
                    return told
                assert isinstance(item, bytes)
                told.append(messages.unpack(item))

    def counter(self) -> tuple[int, int]:
        """Number and floor as they stand."""
        number, floor = self.client.hmget(self.names.counters, "s", "f")
        return int(number), int(floor)

    # ------------------------------------------------------------ the scripts in short

    def set(
        self, key: str, tail: bytes = records.pack_tail(b"new"), tags: tuple[str, ...] = (), ttl: int = TTL
    ) -> Written:
        """Set one."""
        return self.do(self.remote.set([Item(key, tail, ttl)], tags, FOREVER))

    def delete(self, *keys: str, hold_ms: int = 0) -> Written:
        """Delete some."""
        written = self.do(self.remote.delete(keys, hold_ms=hold_ms))
        assert written is not None
        return written

    def lease(self, key: str, lease_id: bytes = TOKEN, dead: bytes = b"", tags: tuple[str, ...] = ()) -> Any:
        """Ask for a lease."""
        return self.do(self.remote.lease([Ask(key, lease_id, dead)], LEASE, tags, FOREVER))[0]

    def granted(self, key: str, lease_id: bytes = TOKEN, tags: tuple[str, ...] = ()) -> Granted:
        """Ask for one that is given."""
        lease = self.lease(key, lease_id, tags=tags)
        assert isinstance(lease, Granted)
        return lease

    def fill(self, key: str, grant: Granted, lease_id: bytes = TOKEN, tags: tuple[str, ...] = ()) -> Written | None:
        """Fill."""
        item = Item(key, records.pack_tail(b"loaded"), TTL)
        return self.do(self.remote.fill([Fill(item, lease_id, grant, tags)]))[0]

    def abort(self, key: str, lease_id: bytes = TOKEN) -> bool:
        """Give back."""
        return self.do(self.remote.abort([(key, lease_id)]))[0]

    def clear(self) -> Written:
        """Clear."""
        written = self.do(self.remote.clear())
        assert written is not None
        return written

    def tag(self, *tags: str, stale: bool = False) -> Written:
        """Invalidate some tags."""
        return self.do(self.remote.invalidate_tags(tags, stale=stale))

    def raw(self, key: str) -> bytes | None:
        """The record."""
        record: bytes | None = self.client.get(self.names.value(key))
        return record

    def record(self, key: str) -> records.Record:
        """The record, taken apart."""
        raw = self.raw(key)
        assert raw is not None
        return records.unpack(raw)

    def holder(self, key: str) -> bytes | None:
        """Who may fill."""
        holder: bytes | None = self.client.get(self.names.lease(key))
        return holder

    def tag_floor(self, tag: str) -> int | None:
        """The floor of a tag that nobody has made stale."""
        (floor,) = self.do(self.remote.tag_floors([tag]))
        assert floor is None or floor.number == floor.dead
        return None if floor is None else floor.number


def make_rig(server: EmbeddedServer, namespace: str) -> Rig:
    """Connected, and greeted."""
    endpoint = Endpoint.from_url(server.url, Settings(redis_timeout=2.0), asynchronous=False)
    names = Names(namespace)
    transport = SyncTransport(endpoint, TIMEOUT, 4)
    bus = SyncBus(endpoint, TIMEOUT, names)
    remote = RedisRemote(transport, names, retries=0, redis_timeout=TIMEOUT)
    run_sync(bus.open())
    return Rig(server, names, remote, bus, redis.Redis(port=server.port, protocol=2))


def close(rig: Rig) -> None:
    """Close all connections."""
    run_sync(rig.bus.close())
    run_sync(rig.remote.close())
    rig.client.close()


def greet(rig: Rig) -> Greeting:
    """The server's answer to a new bus."""
    rig.do(rig.bus.ask_greeting())
    while True:
        for item in rig.do(rig.bus.receive(TIMEOUT)):
            if isinstance(item, Greeting):
                return item
