"""A model of the server in plain Python: the effects of the scripts, and the messages in the order of their numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from nearcache.engine.ports import TooLate
from nearcache.protocol.answers import (
    ABSENT,
    Absent,
    Beat,
    Bounds,
    Busy,
    Counted,
    Deleted,
    Granted,
    Greeting,
    Held,
    Item,
    Lease,
    OutOfRange,
    Present,
    Reading,
    TagFloor,
    Written,
)
from nearcache.protocol.messages import pack_probe
from nearcache.protocol.records import COUNTER, HEAD_BYTES, NUMBER_MAX, count_of, fresh_until_of, pack_names
from nearcache.testing.state import Holder, Line, State

__all__ = ["Holder", "Line", "Server"]


class Server(State):
    """One Redis. Each method is one atomic step.

    Args:
        clock: the server's time in µs.
        identity: its process and data set, as a real server tells them by INFO; None: it does not.
    """

    # ---------------------------------------------------------------------------------------------------- the scripts

    def read(self, keys: Sequence[str], *, with_bounds: bool) -> Reading:
        """MGET, and then counter and floor."""
        bounds = ABSENT if self.number is None else Bounds(self.number, self.floor)
        return Reading([self.raw(key) for key in keys], bounds if with_bounds else None)

    def tag_floors(self, tags: Sequence[str]) -> Sequence[TagFloor | None]:
        """MGET of the floors of tags."""
        return [self.tags.get(tag) for tag in tags]

    def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int, seen: int = 0) -> Written:
        """set.lua."""
        if self.late(deadline):
            self.delete([item.key for item in items], seen=seen)
            raise TooLate("after the deadline")
        self.counters(seen)
        self.raise_tags(tags)
        created, number = self.clock(), self.bump(seen)
        for item in items:
            self.store(item, number, created)
            self.void(item.key)
        self.tell(b"I", number, [item.key for item in items])
        return Written(number, created)

    def add(
        self, item: Item, dead: bytes, tags: Sequence[str], deadline: int, seen: int = 0
    ) -> Written | Present | Held:
        """add.lua."""
        self.refuse_late(deadline)
        holder = self.holder(item.key)
        if holder is not None and not holder.lease_id:
            return Held()
        raw = self.raw(item.key)
        ended = raw is not None and len(raw) >= HEAD_BYTES and fresh_until_of(raw[:HEAD_BYTES]) <= self.clock()
        if self.is_other(raw, dead) and not ended:
            return Present()
        return self.set([item], tags, deadline, seen)

    def touch(
        self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int, seen: int = 0
    ) -> Written | Present:
        """touch.lua; tags live for ever here."""
        del tags
        self.refuse_late(deadline)
        raw, fresh_until = self.raw(key), fresh_until_of(head)
        if raw is None or raw[:HEAD_BYTES] != head or fresh_until <= self.clock():
            return Present()
        self.counters(seen)
        created, number = self.clock(), self.bump(seen)
        window = self.values[key][1] - fresh_until
        fresh_until = created + ttl_ms * 1000
        self.values[key] = (raw[:17] + struct.pack(">Q", fresh_until) + raw[25:], fresh_until + window)
        self.tell(b"I", number, [key])
        return Written(number, created)

    def incr(
        self,
        key: str,
        delta: int,
        initial: int | None,
        ttl_ms: int,
        head: bytes,
        deadline: int,
        was: int | None = None,
        seen: int = 0,
    ) -> Counted | Present | Absent | OutOfRange:
        """incr.lua."""
        self.refuse_late(deadline)
        raw = self.raw(key)
        if raw is not None and raw[0] == COUNTER:
            was = count_of(raw[HEAD_BYTES + 1 :])
        elif self.is_other(raw, head):
            return Present()
        before, fresh_until = initial, self.clock() + ttl_ms * 1000
        if raw is not None and was is not None and self.counts_on(raw, seen):
            before, fresh_until = was, fresh_until_of(raw[:HEAD_BYTES])
        if before is None:
            return Absent()
        if abs(before + delta) >= NUMBER_MAX:
            return OutOfRange()
        self.counters(seen)
        self.void(key)
        created, number = self.clock(), self.bump(seen)
        written = Written(number, created)
        self.store_count(key, before + delta, written, fresh_until)
        self.tell(b"I", number, [key])
        return Counted(written, before + delta)

    def counts_on(self, raw: bytes, seen: int) -> bool:
        """Whether a counter, or a number that was set, is alive; it has no tags."""
        number = int.from_bytes(raw[1:9])
        known = self.number is not None and self.floor <= number <= self.number and seen <= self.number
        return known and fresh_until_of(raw[:HEAD_BYTES]) > self.clock()

    def refuse_late(self, deadline: int) -> None:
        """Do nothing after the deadline."""
        if self.late(deadline):
            raise TooLate("after the deadline")

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

    def delete_existing(self, key: str, seen: int = 0) -> Deleted:
        """delete.lua for one key, which answers the head."""
        raw = self.raw(key)
        written = self.delete([key], seen=seen)
        assert written is not None  # noqa: S101  # it is never too early
        return Deleted(written, (raw or b"")[:HEAD_BYTES])

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
        if self.is_other(raw, dead):
            return Present()
        holder = self.holder(key)
        if holder is not None:
            if not holder.lease_id:
                return Held()
            holder.waited_for = True
            return Busy(max(holder.ends - self.clock(), 1000) / 1e6)
        self.leases[key] = Holder(lease_id, self.clock() + lease_ms * 1000)
        number, floor = self.counters(seen)
        self.raise_tags(tags)
        return Granted(number, floor, tuple(self.tags[tag].number for tag in tags), lease_ms)

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
        floors = zip(tags, grant.tag_floors, strict=True)
        holds = [self.floor_holds(tag, floor) if floor else self.added(tag, grant) for tag, floor in floors]
        return all(holds)  # after every added tag was given a floor

    def floor_holds(self, tag: str, floor: int) -> bool:
        """Whether the floor of a tag is there, and at or below this one."""
        there = self.floor_of(tag)
        return there is not None and there.number <= floor

    def added(self, tag: str, grant: Granted) -> bool:
        """Whether a tag that the loader has added was not invalidated since the grant, as far as can be told."""
        self.raise_tags([tag])
        return self.floor_holds(tag, grant.number)

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

    def invalidate_tags(self, tags: Sequence[str], *, stale: bool = False, seen: int = 0) -> Written:
        """clear.lua with tags."""
        created, number = self.clock(), self.bump(seen)
        for tag in tags:
            if tag in self.tags:
                self.tags[tag] = self.invalidated(tag, number, stale=stale)
        self.tell(b"S" if stale else b"T", number, tags)
        return Written(number, created)

    def invalidated(self, tag: str, number: int, *, stale: bool) -> TagFloor:
        """The new floor of a tag that has one."""
        before = self.floor_of(tag)
        return TagFloor(number, before.dead) if stale and before is not None else TagFloor.at(number)

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
            line.push(
                Greeting(self.identity, *self.counters(), self.clock(), history=self.history, l1_share=self.l1_share)
            )
        elif self.number is None:
            line.push(Beat(None, None, self.clock(), master=True))
        else:
            told = self.number, self.floor
            line.push(Beat(*told, self.clock(), master=True, history=self.history, l1_share=self.l1_share))
