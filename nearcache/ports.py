"""What the flows need from the world, and the words both sides use: versions, readings, leases, bus items.

Nothing here does anything. A flow asks a Remote (Redis), a Bus (its messages) and a Host (threads or tasks); adapters
in ``nearcache.remote`` and ``nearcache.hosts`` answer. The threaded ones never suspend, the asyncio ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol, Self, TypeAlias, TypeVar

T = TypeVar("T")


class Missing(Enum):
    """The one value that no user can have stored."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

Version: TypeAlias = int
"""A write's number above the server's µs at which the value was made: one int, so that one comparison orders two."""

CREATED_BITS = 64


def version_of(number: int, created: int) -> Version:
    """The version of a value that was made at ``created`` (server µs) under the write number ``number``."""
    return number << CREATED_BITS | created


def created_of(version: Version) -> int:
    """The server's µs at which the value of this version was made."""
    return version & ((1 << CREATED_BITS) - 1)


def number_of(version: Version) -> int:
    """The write number of a version."""
    return version >> CREATED_BITS


NO_FLOOR = 1 << 63
"""Above every number: what has no floor counts as cleared."""


# ---------------------------------------------------------------------------------------------------------- the remote


class RemoteFailed(Exception):
    """Redis did not answer as it should; whether it did what was asked is unknown.

    Its text never holds a URL, a password or a value.
    """

    sent = True
    """Whether anything of what was asked may still be on its way."""
    answered = False
    """Whether Redis is there all the same: it answered that it refuses this one thing."""
    code = ""
    """The code of the error that Redis answered, such as OOM."""
    counted = False
    """Whether the breaker need not hear of it: it says nothing, or another who asked with the same request tells."""

    def again(self) -> Self:
        """The same for another one who asked with the same request."""
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        copy.counted = True
        return copy


class RemoteTimeout(RemoteFailed):
    """Redis did not answer in time."""


class RemoteMisconfigured(RemoteFailed):
    """Redis can never answer as set up: a wrong password, or a server that speaks something else."""


class BusRefused(RemoteFailed):
    """The server answers, but gives no messages: L2 can serve, L1 can't."""


class Incompatible(RemoteFailed):
    """The namespace is kept by another protocol: neither tier may be used."""


class TooLate(RemoteFailed):
    """A set came after its deadline, and became a delete: something newer may have been set meanwhile (E, Q)."""

    sent = False


class NotSent(RemoteFailed):
    """Nothing was sent: the breaker is open, or no connection came free. It says nothing new about Redis."""

    sent = False
    counted = True


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


class Met(NamedTuple):
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


BATCH = 500
"""Keys that one call to a Remote may have: Redis answers nobody else meanwhile."""


class Remote(Protocol):
    """L2 as the protocol needs it. Every method may raise RemoteFailed, and nothing else."""

    on_meeting: Callable[[Met], None]
    """Called with who answers on each new connection; a RemoteFailed that it raises closes that connection."""
    may_repeat: Callable[[], bool]
    """Asked before a failed connection, or a failed read, is tried once more."""

    async def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """The records of some keys; with the floor, read after them, when asked."""
        ...

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """What ``take`` makes of one record and the floor, asked for along with others', on any of their threads.

        Each ``take`` is called as soon as the reply is there. It may be called again if its call was interrupted.
        """
        ...

    async def tag_floors(self, tags: Sequence[str]) -> Sequence[int | None]:
        """The floors of some tags; None where there is none."""
        ...

    def now(self) -> int:
        """The server's time in µs; 0: its clock is not known yet."""
        ...

    async def meet(self) -> None:
        """Connect if need be, so that the server's clock is known."""
        ...

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        """Store some values under one number, and tell everybody.

        Raises:
            TooLate: the server's clock has passed the deadline.
        """
        ...

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        """Delete some keys under one number, and tell everybody.

        Args:
            keys: at most BATCH.
            hold_ms: for so long nobody may fill them; a longer hold stays.
            not_before: the server's time (µs) until which nothing is done and None answered.
        """
        ...

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        """Make some values dead, under one number, and tell everybody; they stay for who serves stale ones."""
        ...

    async def lease(self, key: str, token: bytes, dead: bytes, lease_ms: int, tags: Sequence[str]) -> Lease:
        """Ask for the right to fill a key whose record, beginning with ``dead``, was judged dead."""
        ...

    async def fill(self, item: Item, token: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """Store a loaded value if the lease still holds and no floor rose; None: refused."""
        ...

    async def abort(self, key: str, token: bytes) -> None:
        """Give a lease back."""
        ...

    async def clear(self, *, not_before: int = 0) -> Written | None:
        """Raise the floor of the namespace, and tell everybody; None: it is not yet ``not_before``, as in delete."""
        ...

    async def invalidate_tags(self, tags: Sequence[str]) -> Written:
        """Raise the floors of some tags, and tell everybody."""
        ...

    async def probe(self, nonce: str) -> None:
        """Publish a message that changes nothing."""
        ...

    def discard_idle(self) -> None:
        """Use no present connection any more: the server behind it may have gone. What is in flight may end."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


# ------------------------------------------------------------------------------------------------------------- the bus


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


class Bus(Protocol):
    """One subscribed connection. Every method may raise RemoteFailed, and nothing else."""

    async def open(self) -> None:
        """Connect, subscribe, and wait for the confirmation."""
        ...

    async def ask_greeting(self) -> None:
        """Ask for a Greeting."""
        ...

    async def ask_beat(self) -> None:
        """Ask for a Beat."""
        ...

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """What has come; empty when nothing came within ``timeout`` seconds."""
        ...

    def interrupt(self) -> None:
        """Close the connection now, from any thread; a ``receive`` that waits elsewhere ends."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
