"""The journal: writes whose outcome is unknown, to be replayed as deletes when Redis answers again.

It holds keys and no values: replaying a set could bring an old value back (docs/protocol.md, D), a delete costs a miss
at most. Each journalling gives its entry a new number, and only a replay that read this number ends it: an acknowledged
write of the key may have been executed before the one that is journalled (F).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import NamedTuple

from nearcache.protocol.answers import BATCH


class Pending(NamedTuple):
    """One entry."""

    number: int
    not_before: int = 0
    """The server's time (µs) until which what was sent may still be executed: a replay before it would be too early."""
    hold_ms: int = 0
    """For how long the delete was to keep others from filling."""


class Batch(NamedTuple):
    """What one replay takes on: keys, or else tags, or else everything; with the numbers under which it read them."""

    names: Sequence[str]
    numbers: Sequence[int]
    kind: str
    not_before: int = 0
    hold_ms: int = 0


KEYS, TAGS, ALL = "keys", "tags", "all"


class Journal:
    """What has to be replayed; changed under the tier's lock.

    Args:
        most: keys and tags that are kept; more of them become one clear. 0: there is nobody to replay anything to.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = count(1)
        self.keys: dict[str, Pending] = {}
        self.tags: dict[str, Pending] = {}
        self.clear: Pending | None = None

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + (self.clear is not None)

    def covers(self, key: str) -> bool:
        """Whether what L2 has of a key may be older than an own write."""
        return key in self.keys or bool(self.tags) or self.clear is not None

    def note(self, keys: Sequence[str], not_before: int, hold_ms: int) -> None:
        """Writes of these keys have an unknown outcome. A longer hold of an earlier one stays, so does its deadline."""
        for key in keys:
            before = self.keys.pop(key, None) or Pending(0)
            self.keys[key] = Pending(
                next(self._numbers), max(before.not_before, not_before), max(before.hold_ms, hold_ms)
            )
        self._bound()

    def note_tags(self, tags: Sequence[str]) -> None:
        """An invalidation of these tags has an unknown outcome."""
        for tag in tags:
            self.tags[tag] = Pending(next(self._numbers))
        self._bound()

    def note_clear(self, not_before: int = 0) -> None:
        """A clear has an unknown outcome."""
        before = self.clear.not_before if self.clear is not None else 0
        if self._most:
            self.clear = Pending(next(self._numbers), max(before, not_before))

    def next(self, server_now: int) -> Batch | None:
        """What to replay next; what has a deadline that has not passed has to wait."""
        if self.clear is not None:
            return (
                Batch((), (self.clear.number,), ALL, self.clear.not_before)
                if self.clear.not_before <= server_now
                else None
            )
        if self.tags:
            tags = tuple(islice(self.tags.items(), BATCH))
            return Batch([tag for tag, _ in tags], [pending.number for _, pending in tags], TAGS)
        due = {key: pending for key, pending in self.keys.items() if pending.not_before <= server_now}
        if not due:
            return None
        first = next(iter(due.values()))
        batch = tuple(islice((pair for pair in due.items() if pair[1].hold_ms == first.hold_ms), BATCH))
        return Batch(
            [key for key, _ in batch],
            [pending.number for _, pending in batch],
            KEYS,
            max(pending.not_before for _, pending in batch),
            first.hold_ms,
        )

    def replayed(self, batch: Batch) -> None:
        """A replay was acknowledged: what has not been journalled again meanwhile is done."""
        if batch.kind == ALL:
            if self.clear is not None and self.clear.number == batch.numbers[0]:
                self.clear = None
            return
        entries = self.keys if batch.kind == KEYS else self.tags
        for name, number in zip(batch.names, batch.numbers, strict=True):
            if name in entries and entries[name].number == number:
                del entries[name]

    def forget_clock(self) -> None:
        """The server is another one: what was sent to the old one, under its clock, does not reach it."""
        self.keys = {key: pending._replace(not_before=0) for key, pending in self.keys.items()}
        if self.clear is not None:
            self.clear = self.clear._replace(not_before=0)

    def _bound(self) -> None:
        """Too many become one clear, once the last of them can't be executed any more. Their holds are lost."""
        if len(self.keys) + len(self.tags) > self._most:
            self.note_clear(max((pending.not_before for pending in self.keys.values()), default=0))
            self.tags.clear()
            self.keys.clear()
