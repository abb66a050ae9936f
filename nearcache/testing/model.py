"""A model of the server in plain Python: the effects of the scripts, and the messages in the order of their numbers."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nearcache.engine.ports import TooLate
from nearcache.protocol.answers import (
    Beat,
    BusItem,
    Busy,
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
        identity: its process and data set, as a real server tells them by INFO.
    """

    def __init__(self, clock: Callable[[], int], identity: str = "one") -> None:
        self.clock = clock
        self.identity = identity
        self.number: int | None = None
        self.floor = 0
        self.values: dict[str, tuple[bytes, int]] = {}
        self.leases: dict[str, Holder] = {}
        self.tags: dict[str, int] = {}
        self.lines: list[Line] = []

    # ------------------------------------------------------------------------------------------------------ the state

    def counters(self) -> tuple[int, int]:
        """Number and floor; they start from the clock when they were lost."""
        if self.number is None:
            self.number = self.floor = self.clock()
        return self.number, self.floor

    def lose_counters(self) -> None:
        """Evict the hash ``m``."""
        self.number = None

    def bump(self) -> int:
        """Count one write, and return its number."""
        if self.number is None:
            return self.counters()[0]
        self.number += 1
        return self.number

    def raw(self, key: str) -> bytes | None:
        """The record of a key that has not expired."""
        record, ends = self.values.get(key, (b"", 0))
        return record if ends > self.clock() else None

    def holder(self, key: str) -> Holder | None:
        """The lease of a key, if it has not ended."""
        holder = self.leases.get(key)
        return holder if holder is not None and holder.ends > self.clock() else None

    def living(self, key: str) -> bytes | None:
        """The payload of a key as a reader that knows every floor sees it."""
        raw = self.raw(key)
        if raw is None or self.number is None:
            return None
        record = unpack(raw)
        number = struct.unpack_from(">Q", raw, 1)[0]
        if (
            not record.fresh_until
            or number < self.floor
            or any(number < self.tags.get(tag, NO_FLOOR) for tag in record.tags)
        ):
            return None
        return record.payload

    def store(self, item: Item, number: int, created: int) -> None:
        """Store a value behind the head that a script writes."""
        fresh_until = created + item.ttl_ms * 1000
        head = struct.pack(">BQQQ", MAGIC, number, created, fresh_until)
        self.values[item.key] = (head + item.tail, fresh_until + item.stale_ms * 1000)

    def publish(self, message: bytes) -> None:
        """Send a message to every subscriber."""
        for line in self.lines:
            line.push(message)

    def tell(self, kind: bytes, number: int, names: Sequence[str] = ()) -> None:
        """Send a numbered message to every subscriber."""
        self.publish(struct.pack(">BcQ", 1, kind, number) + pack_names(names))

    # ---------------------------------------------------------------------------------------------------- the scripts

    def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """MGET, and then the floor."""
        floor = (NO_FLOOR if self.number is None else self.floor) if with_floor else None
        return Reading([self.raw(key) for key in keys], floor)

    def tag_floors(self, tags: Sequence[str]) -> Sequence[int | None]:
        """MGET of the floors of tags."""
        return [self.tags.get(tag) for tag in tags]

    def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        """set.lua."""
        if self.late(deadline):
            self.delete([item.key for item in items])
            raise TooLate("after the deadline")
        created, number = self.clock(), self.bump()
        for item in items:
            self.store(item, number, created)
            self.void(item.key)
        for tag in tags:
            self.tags.setdefault(tag, number)
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

    def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
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
        created, number = self.clock(), self.bump()
        self.tell(b"I", number, keys)
        return Written(number, created)

    def mark_stale(self, keys: Sequence[str]) -> Written:
        """stale.lua."""
        for key in keys:
            record, ends = self.values.get(key, (b"", 0))
            if record:
                self.values[key] = (record[:17] + bytes(8) + record[25:], ends)
            self.void(key)
        created, number = self.clock(), self.bump()
        self.tell(b"I", number, keys)
        return Written(number, created)

    def lease(self, key: str, lease_id: bytes, dead: bytes, lease_ms: int, tags: Sequence[str]) -> Lease:
        """lease.lua."""
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
        number, floor = self.counters()
        return Granted(number, floor, tuple(self.tags.setdefault(tag, number) for tag in tags))

    def fill(self, item: Item, lease_id: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """fill.lua."""
        answer = None
        if self.may_fill(item.key, lease_id, grant, tags):
            answer = Written(self.counters()[0], self.clock())
            self.store(item, answer.number, answer.created)
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

    def abort(self, key: str, lease_id: bytes) -> None:
        """abort.lua."""
        self.release(key, lease_id)

    def release(self, key: str, lease_id: bytes) -> None:
        """End a lease, and publish the end if another instance waits for it."""
        holder = self.holder(key)
        if holder is not None and holder.lease_id == lease_id:
            del self.leases[key]
            if holder.waited_for:
                self.publish(b"\x01F" + pack_names([key]))

    def clear(self, *, not_before: int = 0) -> Written | None:
        """clear.lua without tags."""
        if self.too_early(not_before):
            return None
        created, number = self.clock(), self.bump()
        self.floor = number
        self.tell(b"C", number)
        return Written(number, created)

    def invalidate_tags(self, tags: Sequence[str]) -> Written:
        """clear.lua with tags."""
        created, number = self.clock(), self.bump()
        for tag in tags:
            if tag in self.tags:
                self.tags[tag] = number
        self.tell(b"T", number, tags)
        return Written(number, created)

    def probe(self, nonce: str) -> None:
        """PUBLISH of a probe."""
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
            line.push(Greeting(self.identity, *self.counters(), self.clock()))
        elif self.number is None:
            line.push(Beat(None, None, self.clock(), master=True))
        else:
            line.push(Beat(self.number, self.floor, self.clock(), master=True))
