"""What the model of the server keeps: records, leases, floors, the counter, and the connections of subscribers."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nearcache.protocol.answers import BusItem, Claim, Item, TagFloor, Written
from nearcache.protocol.records import COUNTER, HEAD_BYTES, MAGIC, pack_count, pack_names, unpack

Question = Literal["greeting", "beat"]


@dataclass(eq=False)
class Line:
    """The two directions of a subscribed connection."""

    questions: deque[Question] = field(default_factory=deque)
    """Sent to the server and not answered yet."""
    items: deque[BusItem] = field(default_factory=deque)
    """Sent to the client and not received yet."""
    seen: Callable[[], int] = field(default=lambda: 0)
    """The highest number that the client has seen, which a greeting carries."""
    wake: Callable[[], None] = field(default=lambda: None)
    """Called when an item has been sent."""

    def push(self, item: BusItem) -> None:
        """Send an item to the client."""
        self.items.append(item)
        self.wake()


@dataclass
class Holder:
    """The lease of a key: its owner, and when it ends (server µs). An empty ``lease_id`` is a hold."""

    lease_id: bytes
    ends: int
    waited_for: bool = False


class State:
    """What a Redis keeps of one namespace, and the steps that scripts consist of.

    Args:
        clock: the server's time in µs.
        identity: its process and data set, as a real server tells them by INFO; None: it does not.
    """

    def __init__(self, clock: Callable[[], int], identity: str | None = "one") -> None:
        self.clock = clock
        self.identity = identity
        self.number: int | None = None
        self.floor: int = 0
        self.l1_share: float = 1.0
        """A field of the counter's hash."""
        self.history: str | None = None
        """Who counts: the identity of the server that adopted the counter; lost with it."""
        self.places: dict[int, tuple[bytes, int]] = {}
        """What instances say of themselves, and until when (server µs)."""
        self.values: dict[str, tuple[bytes, int]] = {}
        self.leases: dict[str, Holder] = {}
        self.tags: dict[str, TagFloor] = {}
        self.lines: list[Line] = []

    # ------------------------------------------------------------------------------------------------------ the state

    def counters(self, seen: int = 0) -> tuple[int, int]:
        """Number and floor; they start above the clock and all numbers seen when they were lost."""
        number = self.begin(seen) if self.number is None else self.number
        return number, self.floor

    def begin(self, seen: int) -> int:
        """Begin the namespace anew, above every number that was ever given out."""
        self.number = self.floor = max(self.clock(), seen + 1)
        return self.number

    def lose_counters(self) -> None:
        """Evict the hash ``m``."""
        self.number = self.history = None
        self.l1_share = 1.0

    def bump(self, seen: int = 0) -> int:
        """Count one write, and return its number; a number that was given out before begins the namespace anew."""
        number = self.counters(seen)[0] + 1
        self.number = number
        return self.begin(seen) if self.given_out(number, seen) else number

    def given_out(self, number: int, seen: int) -> bool:
        """Whether a client has seen this number, or one above it, before it was given out."""
        return number <= seen

    def greet(self, seen: int = 0) -> None:
        """greet.lua."""
        number, _ = self.counters(seen)
        if self.history is not None and self.another():
            self.number = number = max(number + 1, self.clock())
        if self.given_out(number + 1, seen):
            self.begin(seen)
        self.history = self.identity or self.history

    def another(self) -> bool:
        """Whether the counter was adopted by another server, as after a copy or a failover."""
        return self.identity is not None and self.identity != self.history

    def raw(self, key: str) -> bytes | None:
        """The record of a key that has not expired."""
        record, ends = self.values.get(key, (b"", 0))
        return record if ends > self.clock() else None

    def holder(self, key: str) -> Holder | None:
        """The lease of a key, if it has not ended."""
        holder = self.leases.get(key)
        return holder if holder is not None and holder.ends > self.clock() else None

    def claim(self, key: str) -> Claim | None:
        """GET and PTTL of a key's lease."""
        holder = self.holder(key)
        return None if holder is None else Claim(not holder.lease_id, (holder.ends - self.clock()) / 1e6)

    def announce(self, place: int, owner: bytes, document: bytes, life_ms: int) -> bool:
        """GET and SET of a place."""
        there, ends = self.places.get(place, (b"", 0))
        if ends > self.clock() and not there.startswith(owner):
            return False
        self.places[place] = document, self.clock() + life_ms * 1000
        return True

    def announced(self) -> Sequence[bytes]:
        """MGET of all places."""
        return [document for document, ends in self.places.values() if ends > self.clock()]

    def floor_of(self, tag: str) -> TagFloor | None:
        """The floor of a tag; None: absent, or above the counter, as of another history."""
        floor = self.tags.get(tag)
        return None if floor is None or floor.number > self.counters()[0] else floor

    def living(self, key: str) -> bytes | None:
        """The payload of a key as a reader that knows every floor sees it."""
        raw = self.raw(key)
        if raw is None or self.number is None:
            return None
        record = unpack(raw)
        number = struct.unpack_from(">Q", raw, 1)[0]
        if (
            not record.fresh_until
            or not self.floor <= number <= self.number
            or any(tag not in self.tags or number < self.tags[tag].number for tag in record.tags)
        ):
            return None
        return record.payload

    def store(self, item: Item, number: int, created: int, load_ms: int = 0) -> None:
        """Store a value behind the head that a script writes."""
        fresh_until = created + item.ttl_ms * 1000
        head = struct.pack(">BQQQI", MAGIC, number, created, fresh_until, load_ms)
        self.values[item.key] = (head + item.tail, fresh_until + item.stale_ms * 1000)

    def store_count(self, key: str, count: int, written: Written, fresh_until: int) -> None:
        """Store a counter."""
        head = struct.pack(">BQQQIB", COUNTER, written.number, written.created, fresh_until, 0, 0)
        self.values[key] = (head + pack_count(count), fresh_until)

    def is_other(self, raw: bytes | None, dead: bytes) -> bool:
        """Whether there is another record than the one that begins as its client judged dead."""
        return raw is not None and (not dead or raw[:HEAD_BYTES] != dead)

    def raise_tags(self, tags: Sequence[str]) -> None:
        """Give tags without a floor the counter as it stands."""
        for tag in tags:
            if self.floor_of(tag) is None:
                self.tags[tag] = TagFloor.at(self.counters()[0])

    def publish(self, message: bytes) -> None:
        """Send a message to every subscriber."""
        for line in self.lines:
            line.push(message)

    def tell(self, kind: bytes, number: int, names: Sequence[str] = ()) -> None:
        """Send a numbered message to every subscriber."""
        self.publish(struct.pack(">BcQ", 1, kind, number) + pack_names(names))
