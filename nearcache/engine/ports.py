"""What the engine needs from the world: Redis (Remote), its messages (Bus), and threads or tasks (Runtime).

Nothing here does anything. Adapters in ``nearcache.transport`` and ``nearcache.runtime`` implement the ports. The
threaded ones never suspend, the asyncio ones do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from nearcache.local.loads import Permits
from nearcache.local.singleflight import Outcome
from nearcache.local.waiters import Latch
from nearcache.protocol.answers import (
    Absent,
    Ask,
    BusItem,
    Claim,
    Counted,
    Deleted,
    Fill,
    Held,
    Item,
    Lease,
    OutOfRange,
    Peer,
    Present,
    Reading,
    TagFloor,
    Written,
)

T = TypeVar("T")


class Missing(Enum):
    """A value that no user can have stored."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


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
    """Whether the breaker need not count it: it says nothing about Redis."""


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


class Remote(Protocol):
    """L2 as the protocol needs it. Every method may raise RemoteFailed, and nothing else."""

    on_connected: Callable[[Peer], None]
    """Called with the server behind each new connection; a RemoteFailed that it raises closes that connection."""
    seen: Callable[[], int]
    """The highest write number that this client has seen; a server that gives out a lower one begins anew (U)."""
    may_repeat: Callable[[], bool]
    """Asked before a failed connection, or a failed read, is tried once more."""

    def read(self, keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Coroutine[Any, Any, Reading]:
        """The records of some keys.

        Args:
            keys: at most BATCH.
            with_bounds: whether counter and floor are read too, after the records.
            waited: seconds that the callers have waited already; the request has so much less.
        """
        ...

    def read_each(
        self, asks: Sequence[tuple[Remote, Sequence[str]]]
    ) -> Awaitable[Sequence[Sequence[bytes | None] | RemoteFailed]]:
        """As ``read`` for keys of several buckets of this remote's server, by one request: what stands there for each.

        A failure among it says that this bucket has to be asked by itself, as one that has moved.
        """
        ...

    def tag_floors(self, tags: Sequence[str]) -> Coroutine[Any, Any, Sequence[TagFloor | None]]:
        """The floors of some tags; None where there is none."""
        ...

    def now(self) -> int:
        """The server's time in µs; 0: its clock is not known yet."""
        ...

    async def connect(self) -> None:
        """Connect if need be, so that the server's clock is known."""
        ...

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        """Store some values under one number, and publish it.

        Raises:
            TooLate: the server's clock has passed the deadline.
        """
        ...

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        """Delete some keys under one number, and publish it.

        Args:
            keys: at most BATCH.
            hold_ms: for so long no instance may fill them; a longer hold stays.
            not_before: the server's time (µs) until which nothing is done and None answered.
        """
        ...

    # None of the next three is ever repeated or replayed (AA). Each raises TooLate, and has done nothing, if the
    # server's clock has passed the deadline.

    async def add(self, item: Item, dead: bytes, tags: Sequence[str], deadline: int) -> Written | Present | Held:
        """Store a value unless a hold, or another record than the one that begins with ``dead``, is there."""
        ...

    async def touch(self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int) -> Written | Present:
        """Give the record that begins with ``head``, and carries these tags, a new ttl from now on."""
        ...

    async def incr(
        self, key: str, delta: int, initial: int | None, ttl_ms: int, head: bytes, deadline: int, was: int | None = None
    ) -> Counted | Present | Absent | OutOfRange:
        """Add to a counter, which begins at ``initial`` with this ttl; Present: the key has a value of another type.

        Args:
            key: the key.
            delta: what is added.
            initial: where it begins if there is none; None: nowhere.
            ttl_ms: of a counter that begins.
            head: how a record of another type begins that was judged.
            deadline: the server's time (µs).
            was: the number in that record, which becomes a counter; None: it is dead.
        """
        ...

    async def delete_existing(self, key: str) -> Deleted:
        """As ``delete`` for one key, and answer how its record began."""
        ...

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        """Make some values dead under one number, and publish it; they stay for readers that accept stale ones."""
        ...

    # Each of the next three sends its scripts in one request, at most BATCH; other clients may come in between.

    async def lease(self, asks: Sequence[Ask], lease_ms: int, tags: Sequence[str], deadline: int) -> Sequence[Lease]:
        """Ask for the right to fill some keys, each of which is absent or was judged dead.

        Raises:
            TooLate: the server's clock has passed the deadline.
        """
        ...

    async def fill(self, fills: Sequence[Fill]) -> Sequence[Written | None]:
        """Store loaded values, each if its lease still holds and no floor rose; None: refused."""
        ...

    async def abort(self, leases: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        """Give leases back, each by key and id; whether it was held to the end: nothing was written since the grant."""
        ...

    def claim(self, key: str) -> Coroutine[Any, Any, Claim | None]:
        """What stands at a key's lease; None: nothing."""
        ...

    async def greet(self) -> None:
        """Introduce this client anew: a counter below ``seen`` begins anew above it."""
        ...

    async def clear(self, *, not_before: int = 0) -> Written | None:
        """Raise the floor of the namespace, and publish it; None: it is not yet ``not_before``, as in delete."""
        ...

    async def invalidate_tags(self, tags: Sequence[str], *, stale: bool = False) -> Written:
        """Raise the floors of some tags, and publish it; ``stale``: not those below which values are dead."""
        ...

    async def l1_share(self) -> float:
        """The part of the keys that the L1 of any instance may hold."""
        ...

    async def limit_l1(self, share: float) -> None:
        """Set this part; heartbeats bring it to every instance. It is lost with the counter, and then it is all."""
        ...

    async def announce(self, place: int, owner: bytes, document: bytes, life_ms: int) -> bool:
        """Keep a document, which begins with its owner, at one of PLACES; False: another owner has that place."""
        ...

    async def announced(self) -> Sequence[bytes]:
        """The documents of all places."""
        ...

    async def probe(self, nonce: str) -> None:
        """Try every right that writes need, and publish a message that changes nothing."""
        ...

    def discard_idle(self) -> None:
        """Use the present connections no more: the server behind them may have gone. Requests in flight may end."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


# ------------------------------------------------------------------------------------------------------------- the bus


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


News: TypeAlias = BusItem | RemoteFailed
"""What comes on one of several channels: a failure ends it."""


class SharedBus(Protocol):
    """One connection for the channels of several buckets. Every method may raise RemoteFailed, and nothing else."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def join(self, bucket: int) -> Bus:
        """Subscribe to the channel of a bucket; what is returned asks its questions, which may be done at once."""
        ...

    async def leave(self, channel: Bus) -> None:
        """End the subscription of a channel."""
        ...

    async def receive(self, timeout: float) -> Sequence[tuple[Bus, Sequence[News]]]:
        """What has come for each channel, in order; empty when nothing came within ``timeout`` seconds."""
        ...

    def interrupt(self) -> None:
        """Close the connection now, from any thread; a ``receive`` that waits elsewhere ends."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class Places(Protocol):
    """Which server has which bucket."""

    trouble: Callable[[], None]
    """Called when a server says that it does not have a bucket, from any thread."""

    async def owners(self) -> Sequence[Hashable | None]:
        """The place of each bucket now, as far as it is known; RemoteFailed: nobody says so."""
        ...

    def new_bus(self, place: Hashable) -> SharedBus:
        """An unconnected bus to a place."""
        ...


# --------------------------------------------------------------------------------------------------------- the runtime


class Background(Protocol):
    """Work in a thread or task of its own."""

    def cancel(self, after: float) -> None:
        """No caller waits for it any more: a task is cancelled ``after`` so many seconds, a thread can't be."""
        ...


class Runtime(Protocol):
    """Threads or tasks: the one thing that differs between the two classes."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def callers(self) -> tuple[object, ...]:
        """The thread or task that runs this, last; before it, those for which the surrounding loaders were called.

        Two tasks that one loader has started differ in the last one only: they are two readers.
        """
        ...

    def latch(self) -> Latch:
        """A new Latch."""
        ...

    def permits(self, count: int) -> Permits:
        """So many permits."""
        ...

    async def spawn(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> Background | None:
        """Run something in a thread or task of its own.

        Args:
            work: runs in the caller's context.
            owner: stands for it among the callers, so that a loader that asks for its own key is recognised; None: no
                loader runs in it.
            timeout: seconds to wait for a thread, where their number is bounded.

        Returns:
            None if no thread came free; then nothing of it was run.
        """
        ...

    async def together(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several pieces of work to their ends, so that what they ask of one server goes in one request.

        Each asks buckets of its own. What the first of them raises is raised when all have ended.
        """
        ...

    def start(self, work: Coroutine[Any, Any, object], name: str) -> Background | None:
        """Run something for as long as the cache is open; None: there is no thread for it."""
        ...

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        """Call a loader; what is no Exception (a cancellation, KeyboardInterrupt) goes through."""
        ...

    async def give_way(self) -> None:
        """Let other tasks run, in the middle of a long piece of work; other threads do so anyway."""
        ...

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do a short piece of work to its end, even though the caller is being cancelled, and may be again."""
        ...
