"""A model of the server, and of the way to it, without one guard of the scripts."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from nearcache.engine.entries import Encoded
from nearcache.engine.ports import RemoteFailed, TooLate
from nearcache.protocol.answers import Granted, Item, Lease, Present, TagFloor, Written
from nearcache.protocol.records import HEAD_BYTES
from nearcache.testing.model import Server
from tests.support.stepper import ModelRemote

# -------------------------------------------------------------------------------------------------------------- server


class FillsWithoutLease(Server):
    """A fill does not look whose the lease is."""

    def lease_holds(self, key: str, snapshot: bytes) -> bool:
        """Yes."""
        return True


class FillsBelowFloors(Server):
    """A fill does not look at floors."""

    def floors_hold(self, grant: Granted, tags: Sequence[str]) -> bool:
        """Yes, if there is a counter at all."""
        self.counters()
        return True


class FillsWithoutCounter(Server):
    """A lost floor is no reason to refuse a fill."""

    def floors_hold(self, grant: Granted, tags: Sequence[str]) -> bool:
        """Begin the counter anew at the number of the lease."""
        if self.number is None:
            self.number, self.floor = grant.number, grant.floor
        return super().floors_hold(grant, tags)


class AddedTagsUnchecked(Server):
    """A tag that a loader has added is no reason to refuse a fill."""

    def added(self, tag: str, grant: Granted) -> bool:
        """Not invalidated."""
        super().added(tag, grant)
        return True


class AddedTagsCreated(Server):
    """A tag that a loader has added, and has no floor, gets one, and the fill is accepted."""

    def added(self, tag: str, grant: Granted) -> bool:
        """Whatever was written since the grant."""
        new = self.floor_of(tag) is None
        return super().added(tag, grant) or new


class FillsBelowStaleFloors(Server):
    """A fill looks at the floors below which values are dead alone."""

    def floor_holds(self, tag: str, floor: int) -> bool:
        """Whether nothing was invalidated, whatever was made stale."""
        there = self.floor_of(tag)
        return there is not None and there.dead <= floor


class StaleFloorsAlone(Server):
    """A tag that is made stale has one floor, as if it had never been invalidated."""

    def invalidated(self, tag: str, number: int, *, stale: bool) -> TagFloor:
        """Whatever stands there."""
        return TagFloor(number, 0) if stale else super().invalidated(tag, number, stale=stale)


class RefusesInSilence(Server):
    """A refused fill tells nobody."""

    def fill(self, item: Item, snapshot: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """Forget who waits before the lease is released."""
        holder = self.holder(item.key)
        if holder is not None and not self.may_fill(item.key, snapshot, grant, tags):
            holder.waited_for = False
        return super().fill(item, snapshot, grant, tags)


class FillsInSilence(Server):
    """No fill tells anybody."""

    def fill(self, item: Item, snapshot: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """Forget who waits."""
        if (holder := self.holder(item.key)) is not None:
            holder.waited_for = False
        return super().fill(item, snapshot, grant, tags)


class LeasesAtAnyTime(Server):
    """A request for a lease has no deadline."""

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
        """Give it, however late."""
        del deadline
        return super().lease(key, lease_id, dead, lease_ms, tags, seen=seen)


class LateSetsStored(Server):
    """A set has no deadline."""

    def late(self, deadline: int) -> bool:
        """Never."""
        del deadline
        return False


class LateSetsAcknowledged(Server):
    """A set that came too late is answered as any other."""

    def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int, seen: int = 0) -> Written:
        """Answer with the number of the delete."""
        try:
            return super().set(items, tags, deadline, seen)
        except TooLate:
            assert self.number is not None
            return Written(self.number, self.clock())


class SeenByNobody(Server):
    """The server does not ask what numbers its clients have seen."""

    def given_out(self, number: int, seen: int) -> bool:
        """No."""
        del number, seen
        return False

    def begin(self, seen: int) -> int:
        """At the time."""
        del seen
        return super().begin(0)


class CountsOn(SeenByNobody):
    """Nor does it look whose numbers it counts: a copied counter goes on where it stood."""

    def another(self) -> bool:
        """No."""
        return False


class _Marked(bytes):
    """A record with the id of the history that it was written in."""

    history: str | None


class HistoriesInRecords(CountsOn):
    """In place of adoption and "seen", a record carries the id of the counter's history, and others are dead.

    The id is made with the counter, and lies beside it in ``m``: a copy takes it along.
    """

    def greet(self, seen: int = 0) -> None:
        """Keep the id."""
        before = self.history
        super().greet(seen)
        self.history = before or self.history

    def store(self, item: Item, number: int, created: int, load_ms: int = 0) -> None:
        """Store it with the id."""
        super().store(item, number, created, load_ms)
        record, ends = self.values[item.key]
        marked = _Marked(record)
        marked.history = self.history
        self.values[item.key] = (marked, ends)

    def raw(self, key: str) -> bytes | None:
        """The record, if it is of this history."""
        raw = super().raw(key)
        return raw if isinstance(raw, _Marked) and raw.history == self.history else None


class FillsWithTheClientsTime(Server):
    """A filled record says how long its client's load took, in place of how old its lease was."""

    def store(self, item: Item, number: int, created: int, load_ms: int = 0) -> None:
        """Store it with the client's time."""
        super().store(item, number, created, item.load_ms if isinstance(item, Encoded) else load_ms)


class TakesAnyHead(Server):
    """Nobody compares the record with the one that its client judged."""

    def is_other(self, raw: bytes | None, dead: bytes) -> bool:
        """No, if the client has judged any."""
        return raw is not None and not dead

    def touch(
        self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int, seen: int = 0
    ) -> Written | Present:
        """Whatever is there."""
        raw = self.raw(key)
        if raw is not None and raw[:HEAD_BYTES] != head:
            self.values[key] = (head + raw[HEAD_BYTES:], self.values[key][1])
        return super().touch(key, head, ttl_ms, tags, deadline, seen)


class TouchesMakeVersions(Server):
    """A touched value has the number of the touch."""

    def touch(
        self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int, seen: int = 0
    ) -> Written | Present:
        """Touch, and write number and time."""
        answer = super().touch(key, head, ttl_ms, tags, deadline, seen)
        if isinstance(answer, Written):
            record, ends = self.values[key]
            self.values[key] = (record[:1] + struct.pack(">QQ", answer.number, answer.created) + record[17:], ends)
        return answer


class CountsOnAnything(Server):
    """A counter goes on, whatever was cleared or marked stale."""

    def counts_on(self, raw: bytes, seen: int) -> bool:
        """Yes."""
        del raw, seen
        return True


class HoldsNothing(Server):
    """A delete's hold is not kept."""

    def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0, seen: int = 0) -> Written | None:
        """Delete."""
        del hold_ms
        return super().delete(keys, not_before=not_before, seen=seen)


class ReplaysValues(ModelRemote):
    """A set that failed is replayed with its value."""

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        ask = super().__getattr__(script)

        async def note(*args: Any, **options: Any) -> Any:
            if script == "delete" and vars(self).get("failed"):
                return await super(ReplaysValues, self).__getattr__("set")(*vars(self).pop("failed"))
            try:
                return await ask(*args, **options)
            except RemoteFailed:
                if script == "set":
                    vars(self)["failed"] = (*args[:2], 1 << 62)
                raise

        return note


class RepeatsLeases(ModelRemote):
    """A lease request is sent again, with its snapshot, when its connection broke."""

    REPEATED: ClassVar[frozenset[str]] = frozenset({"lease"})

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        ask = super().__getattr__(script)

        async def again(*args: Any, **options: Any) -> Any:
            try:
                return await ask(*args, **options)
            except RemoteFailed:
                if script not in self.REPEATED:
                    raise
                return await ask(*args, **options)

        return again


class RepeatsOperations(RepeatsLeases):
    """add, touch and incr are sent again when their connection broke."""

    REPEATED = frozenset({"add", "touch", "incr"})
