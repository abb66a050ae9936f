"""The server's answers as data: to reads, writes and leases, and on the bus; and the item of a set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from nearcache.protocol.versions import NO_FLOOR, Version, version_of, whole

BATCH = 500
"""The most keys of one call to a Remote: Redis serves no other client while it executes it."""


class Written(NamedTuple):
    """The answer to a write: its number, and the server's time in µs."""

    number: int
    created: int
    stored: bool = True
    """False: Redis' memory is full, and the keys of the set were deleted instead."""

    @property
    def version(self) -> Version:
        """Number and time as one version."""
        return version_of(self.number, self.created)


class Deleted(NamedTuple):
    """The answer to a delete that tells what it deleted: how the record began; empty: there was none."""

    written: Written
    head: bytes


class Counted(NamedTuple):
    """The answer to an incr: the number of the write, and what the counter stands at."""

    written: Written
    total: int


class Peer(NamedTuple):
    """The server on a new connection: its identity (None: the user may not call INFO), and its clock."""

    identity: str | None
    offset: float
    """The server's clock minus ours (monotonic), in seconds."""


@dataclass(slots=True)  # not frozen: that makes an instance three times as expensive
class Item:
    """One value to store: the tail of its record, how long it is fresh, and how much longer it is kept (ms)."""

    key: str
    tail: bytes
    ttl_ms: int
    stale_ms: int = 0


class Bounds(NamedTuple):
    """Between which write numbers a record is alive: the counter and the namespace's floor, read behind it."""

    number: int
    floor: int


ABSENT = Bounds(0, NO_FLOOR)
"""The bounds where the counter is absent: it was evicted, and every floor with it."""


class Reading(NamedTuple):
    """Raw records as Redis keeps them, and the bounds if they were asked for."""

    records: Sequence[bytes | None]
    bounds: Bounds | None = None


class TagFloor(NamedTuple):
    """The floor of a tag: values that carry it are fresh from this number on."""

    number: int
    dead: int
    """Below it they were invalidated; between the two they were only made stale."""

    @classmethod
    def at(cls, number: int) -> "TagFloor":
        """The floor where all that is older was invalidated."""
        return cls(number, number)

    @classmethod
    def parse(cls, text: object) -> "TagFloor | None":
        """A floor as Redis keeps it: ``number`` or ``number dead``; None: absent or damaged."""
        first, _, second = text.partition(b" ") if isinstance(text, bytes) else (None, b"", b"")
        number = whole(first)
        return None if not number else cls(number, whole(second) or number)

    def raised(self, other: "TagFloor") -> "TagFloor":
        """The floor that both are known to be at least."""
        return TagFloor(max(self.number, other.number), max(self.dead, other.dead))


class Ask(NamedTuple):
    """A request for the right to fill a key."""

    key: str
    lease_id: bytes
    dead: bytes
    """How the record of the key begins that was judged dead; empty: there is none."""


class Granted(NamedTuple):
    """The lease was granted; a fill is valid while these floors hold."""

    number: int
    floor: int
    tag_floors: tuple[int, ...]
    """By tag of the lease; 0: the loader has added it, so that the lease gave no floor of it."""
    lease_ms: int = 0
    """How long it was granted for: a fill stores its age as the load time."""


class Fill(NamedTuple):
    """A loaded value, offered under a lease."""

    item: Item
    lease_id: bytes
    grant: Granted
    tags: Sequence[str]
    """Those of the lease."""


class Busy(NamedTuple):
    """Another instance has the lease, for ``remaining`` seconds more."""

    remaining: float


class Claim(NamedTuple):
    """What stands at a key's lease: a hold, or the lease of an instance, for ``remaining`` seconds more."""

    hold: bool
    remaining: float


class _Sign:
    """An answer without fields: all instances of a class are equal."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Held(_Sign):
    """A delete has set a hold: no instance may fill or add the key for now."""


class Present(_Sign):
    """There is another record than the one that was judged: read again, and judge that one."""


class Absent(_Sign):
    """There is no counter, and none was to be made."""


class OutOfRange(_Sign):
    """The counter would leave the range in which Lua's numbers are exact."""


Lease: TypeAlias = Granted | Busy | Held | Present


class Introduction(NamedTuple):
    """The answer of greet: where the counter stands, and whose numbers it counts."""

    number: int
    floor: int
    server_time: int
    """µs."""
    adopted: bool
    """False: the server refused a write that was due, so that nothing may rest on its numbers yet."""
    alternates: bool
    """Whether two servers answer by turns, as behind a proxy: then their histories tell nothing."""
    history: str | None
    """Who counts: master_replid and database, as the counter's hash keeps them."""


class Greeting(NamedTuple):
    """The answer to a new bus: identity (None: the user may not call INFO), number, floor, server time in µs."""

    identity: str | None
    number: int
    floor: int
    server_time: int
    master: bool = True
    history: str | None = None
    """Who counts, as the counter's hash keeps it; heartbeats compare it."""
    adopted: bool = True
    """False: the server refused a write that was due; it is asked again."""
    l1_share: float = 1.0
    """The part of the keys that the L1 of any instance may hold."""
    lone_node: bool = False
    """Whether the server is a node of a cluster, and the URL names it alone."""


class Beat(NamedTuple):
    """The answer to a heartbeat; it comes after every message that the server sent before it."""

    number: int | None
    floor: int | None
    server_time: int
    master: bool
    history: str | None = None
    l1_share: float = 1.0


class Empty(NamedTuple):
    """The answer to a new bus of a bucket that no protocol keeps, and that this instance may not take now (X)."""

    may: Callable[[], bool]
    """Whether it may by now, so that the greeting is to be asked again."""
    why: Callable[[], str]
    """Why it may not."""


BusItem: TypeAlias = bytes | Greeting | Empty | Beat
"""A message as bytes, or an answer; a bus gives them in the order in which the server sent them."""
