"""What the server is asked to store, and what it answers, as data: to reads, to writes, to leases, on the bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from nearcache.protocol.versions import Version, version_of

T = TypeVar("T")

BATCH = 500
"""Keys that one call to a Remote may have: Redis answers nobody else meanwhile."""


class Written(NamedTuple):
    """What a script answers to a write: its number, and the server's time in µs."""

    number: int
    created: int
    stored: bool = True
    """False: Redis' memory is full, and what was to be set was deleted instead."""

    @property
    def version(self) -> Version:
        """Number and time as one version."""
        return version_of(self.number, self.created)


class Peer(NamedTuple):
    """Who answered on a new connection: its identity (None: it would not say), and its clock."""

    identity: str | None
    offset: float
    """The server's clock minus ours (monotonic), in seconds."""


@dataclass(slots=True)  # not frozen: that makes each three times as dear
class Item:
    """One value to be stored: the encoded tail of its record, its freshness in ms, and how long it is kept beyond."""

    key: str
    tail: bytes
    ttl_ms: int
    stale_ms: int = 0


class Reading(NamedTuple):
    """Raw records as they stand in Redis, and floors as far as they were asked for (None: not asked, or absent)."""

    records: Sequence[bytes | None]
    floor: int | None = None


Take: TypeAlias = Callable[[bytes | None, int | None], T]
"""What is made of a raw record, and of the floor if it was asked for."""


class Granted(NamedTuple):
    """The lease is ours: fill under these floors."""

    number: int
    floor: int
    tag_floors: tuple[int, ...]


class Busy(NamedTuple):
    """Another instance loads; its lease ends in ``remaining`` seconds."""

    remaining: float


class _Sign:
    """An answer that says nothing more: one is as good as another."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Held(_Sign):
    """Nobody may fill for now: a delete asked for a hold."""


class Present(_Sign):
    """Somebody filled it meanwhile: read again."""


Lease: TypeAlias = Granted | Busy | Held | Present


class Greeting(NamedTuple):
    """A server's answer to a new bus: who it is (None: it would not say), where its counter stands, its time in µs."""

    identity: str | None
    number: int
    floor: int
    server_time: int
    master: bool = True


class Beat(NamedTuple):
    """A server's answer to a heartbeat, ordered after every message that it sent before."""

    number: int | None
    floor: int | None
    server_time: int
    master: bool


BusItem: TypeAlias = bytes | Greeting | Beat
"""What a bus brings, in the order the server sent it: messages as bytes, and its answers."""
