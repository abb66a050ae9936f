"""A model of the server in plain Python: the effects of the scripts, and the messages in the order of their numbers."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nearcache.engine.ports import TooLate
from nearcache.protocol.answers import (
    ABSENT,
    Beat,
    Bounds,
    BusItem,
    Busy,
    Claim,
    Granted,
    Greeting,
    Held,
    Item,
    Lease,
    Present,
    Reading,
    Written,
)
from nearcache.protocol.messages import pack_probe
from nearcache.protocol.records import HEAD_BYTES, MAGIC, pack_names, unpack
from nearcache.protocol.versions import NO_FLOOR

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


class Server:
    """One Redis. Each method is one atomic step.

    Args:
        clock: the server's time in µs.
        identity: its process and data set, as a real server tells them by INFO; None: it does not.
    """

    def __init__(self, clock: Callable[[], int], identity: str | None = "one") -> None:
        self.clock = clock
        self.identity = identity
        self.number: int | None = None
        self.floor = 0
        self.history: str | None = None
        """Who counts: the identity of the server that adopted the counter; lost with it."""
        self.values: dict[str, tuple[bytes, int]] = {}
        self.leases: dict[str, Holder] = {}
        self.tags: dict[str, int] = {}
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

    def floor_of(self, tag: str) -> int | None:
        """The floor of a tag; None: absent, or above the counter, as of another history."""
        floor = self.tags.get(tag)
        return None if floor is None or floor > self.counters()[0] else floor

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
            or any(number < self.tags.get(tag, NO_FLOOR) for tag in record.tags)
        ):
            return None
        return record.payload

    def store(self, item: Item, number: int, created: int, load_ms: int = 0) -> None:
        """Store a value behind the head that a script writes."""
        fresh_until = created + item.ttl_ms * 1000
        head = struct.pack(">BQQQI", MAGIC, number, created, fresh_until, load_ms)
        self.values[item.key] = (head + item.tail, fresh_until + item.stale_ms * 1000)

    def publish(self, message: bytes) -> None:
        """Send a message to every subscriber."""
        for line in self.lines:
            line.push(message)

    def tell(self, kind: bytes, number: int, names: Sequence[str] = ()) -> None:
        """Send a numbered message to every subscriber."""
        self.publish(struct.pack(">BcQ", 1, kind, number) + pack_names(names))

    # ---------------------------------------------------------------------------------------------------- the scripts

    def read(self, keys: Sequence[str], *, with_bounds: bool) -> Reading:
        """MGET, and then counter and floor."""
        bounds = ABSENT if self.number is None else Bounds(self.number, self.floor)
        return Reading([self.raw(key) for key in keys], bounds if with_bounds else None)

    def tag_floors(self, tags: Sequence[str]) -> Sequence[int | None]:
        """MGET of the floors of tags."""
        return [self.tags.get(tag) for tag in tags]

    def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int, seen: int = 0) -> Written:
        """set.lua."""
        if self.late(deadline):
            self.delete([item.key for item in items], seen=seen)
            raise TooLate("after the deadline")
        self.counters(seen)
        for tag in tags:
            if self.floor_of(tag) is None:
                self.tags[tag] = self.counters()[0]
        created, number = self.clock(), self.bump(seen)
        for item in items:
            self.store(item, number, created)
            self.void(item.key)
        self.tell(b"I", number, [item.key for item in items])
        return Written(number, created)

    def late(self, deadline: int) -> bool:
        """Whether a set comes after its deadline."""
        return self.clock() > deadline

    def void(self, key: str) -> None:
        """End the lease of a key that is written; a hold stays."""
        holder = self.leases.get(key)
        if holder is not None and holder.lease_id:
            del self.leases[key]

    def too_early(self, not_before: int) -> bool:
        """Whether a set that is still on its way could undo a replayed write."""
        return self.clock() <= not_before

    def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0, seen: int = 0) -> Written | None:
        """delete.lua."""
        if self.too_early(not_before):
            return None
        for key in keys:
            self.values.pop(key, None)
            self.void(key)
            holder = self.holder(key)
            ends = self.clock() + hold_ms * 1000
            if hold_ms and (holder is None or holder.ends < ends):
                self.leases[key] = Holder(b"", ends)
        created, number = self.clock(), self.bump(seen)
        self.tell(b"I", number, keys)
        return Written(number, created)

    def mark_stale(self, keys: Sequence[str], seen: int = 0) -> Written:
        """mark_stale.lua."""
        for key in keys:
            record, ends = self.values.get(key, (b"", 0))
            if record:
                self.values[key] = (record[:17] + bytes(8) + record[25:], ends)
            self.void(key)
        created, number = self.clock(), self.bump(seen)
        self.tell(b"I", number, keys)
        return Written(number, created)

    def lease(
        self,
        key: str,
        lease_id: bytes,
        dead: bytes,
        lease_ms: int,
        tags: Sequence[str],
        deadline: int = 1 << 62,
        seen: int = 0,
    ) -> Lease:
        """lease.lua."""
        if self.late(deadline):
            raise TooLate("after the deadline")
        raw = self.raw(key)
        if raw is not None and (not dead or raw[:HEAD_BYTES] != dead):
            return Present()
        holder = self.holder(key)
        if holder is not None:
            if not holder.lease_id:
                return Held()
            holder.waited_for = True
            return Busy(max(holder.ends - self.clock(), 1000) / 1e6)
        self.leases[key] = Holder(lease_id, self.clock() + lease_ms * 1000)
        number, floor = self.counters(seen)
        for tag in tags:
            if self.floor_of(tag) is None:
                self.tags[tag] = number
        return Granted(number, floor, tuple(self.tags[tag] for tag in tags), lease_ms)

    def fill(self, item: Item, lease_id: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """fill.lua."""
        answer = None
        if self.may_fill(item.key, lease_id, grant, tags):
            answer = Written(self.counters()[0], self.clock())
            holder = self.holder(item.key)
            left = (holder.ends - self.clock()) // 1000 if holder is not None else 0
            self.store(item, answer.number, answer.created, max(grant.lease_ms - left + 1, 1))
        self.release(item.key, lease_id)
        return answer

    def may_fill(self, key: str, lease_id: bytes, grant: Granted, tags: Sequence[str]) -> bool:
        """Whether the lease holds, and no floor was lost or has risen."""
        return self.lease_holds(key, lease_id) and self.floors_hold(grant, tags)

    def lease_holds(self, key: str, lease_id: bytes) -> bool:
        """Whether the lease of a key is this one."""
        holder = self.holder(key)
        return holder is not None and holder.lease_id == lease_id

    def floors_hold(self, grant: Granted, tags: Sequence[str]) -> bool:
        """Whether no floor was lost or has risen since the grant."""
        if self.number is None or self.floor > grant.floor:
            return False
        return all(self.tags.get(tag, NO_FLOOR) <= floor for tag, floor in zip(tags, grant.tag_floors, strict=True))

    def abort(self, key: str, lease_id: bytes) -> bool:
        """abort.lua."""
        return self.release(key, lease_id)

    def release(self, key: str, lease_id: bytes) -> bool:
        """End a lease, and publish the end if another instance waits for it; whether it was this one."""
        holder = self.holder(key)
        if holder is None or holder.lease_id != lease_id:
            return False
        del self.leases[key]
        if holder.waited_for:
            self.publish(b"\x01F" + pack_names([key]))
        return True

    def clear(self, *, not_before: int = 0, seen: int = 0) -> Written | None:
        """clear.lua without tags."""
        if self.too_early(not_before):
            return None
        created, number = self.clock(), self.bump(seen)
        self.floor = number
        self.tell(b"C", number)
        return Written(number, created)

    def invalidate_tags(self, tags: Sequence[str], seen: int = 0) -> Written:
        """clear.lua with tags."""
        created, number = self.clock(), self.bump(seen)
        for tag in tags:
            if tag in self.tags:
                self.tags[tag] = number
        self.tell(b"T", number, tags)
        return Written(number, created)

    def probe(self, nonce: str) -> None:
        """probe.lua."""
        self.publish(pack_probe(nonce))

    # -------------------------------------------------------------------------------------------------------- the bus

    def subscribe(self, line: Line) -> None:
        """SUBSCRIBE on a connection."""
        self.lines.append(line)

    def drop(self, line: Line) -> None:
        """End a connection; questions and items on their way are lost."""
        if line in self.lines:
            self.lines.remove(line)
        line.items.clear()
        line.questions.clear()

    def answer(self, line: Line) -> None:
        """Answer the oldest question of a connection."""
        question = line.questions.popleft()
        if question == "greeting":
            self.greet(line.seen())
            line.push(Greeting(self.identity, *self.counters(), self.clock(), history=self.history))
        elif self.number is None:
            line.push(Beat(None, None, self.clock(), master=True))
        else:
            line.push(Beat(self.number, self.floor, self.clock(), master=True, history=self.history))
