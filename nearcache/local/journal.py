"""The journal: writes of unknown outcome, to be replayed as deletes when Redis answers again.

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
    """One entry of the journal."""

    number: int
    not_before: int = 0
    """The server's time (µs) until which the write may still be executed: a replay before it would be too early (E)."""
    hold_ms: int = 0
    """The hold of the delete: for how long no instance may fill the key."""


class Batch(NamedTuple):
    """The content of one replay: keys, tags or everything, with the numbers under which the journal had them."""

    names: Sequence[str]
    numbers: Sequence[int]
    kind: str
    not_before: int = 0
    hold_ms: int = 0


KEYS, TAGS, ALL = "keys", "tags", "all"


class Journal:
    """The writes to be replayed; changed under the tier's lock.

    Args:
        most: keys and tags that are kept; more of them become one clear. 0: no Redis, so nothing is kept.
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
        """Whether the value of a key in L2 may be older than an own write."""
        return key in self.keys or bool(self.tags) or self.clear is not None

    def note(self, keys: Sequence[str], not_before: int, hold_ms: int) -> None:
        """Add writes of these keys; the longer hold and the later deadline of an earlier entry stay."""
        for key in keys:
            before = self.keys.pop(key, None) or Pending(0)
            self.keys[key] = Pending(
                next(self._numbers), max(before.not_before, not_before), max(before.hold_ms, hold_ms)
            )
        self._bound()

    def note_tags(self, tags: Sequence[str]) -> None:
        """Add an invalidation of these tags."""
        for tag in tags:
            self.tags[tag] = Pending(next(self._numbers))
        self._bound()

    def note_clear(self, not_before: int = 0) -> None:
        """Add a clear."""
        before = self.clear.not_before if self.clear is not None else 0
        if self._most:
            self.clear = Pending(next(self._numbers), max(before, not_before))

    def next(self, server_now: int, most: int = BATCH) -> Batch | None:
        """The next batch to replay, of entries whose deadline has passed, ``most`` at once; None: there is none."""
        if self.clear is not None:
            return (
                Batch((), (self.clear.number,), ALL, self.clear.not_before)
                if self.clear.not_before <= server_now
                else None
            )
        if self.tags:
            tags = tuple(islice(self.tags.items(), most))
            return Batch([tag for tag, _ in tags], [pending.number for _, pending in tags], TAGS)
        due = {key: pending for key, pending in self.keys.items() if pending.not_before <= server_now}
        if not due:
            return None
        first = next(iter(due.values()))
        batch = tuple(islice((pair for pair in due.items() if pair[1].hold_ms == first.hold_ms), most))
        return Batch(
            [key for key, _ in batch],
            [pending.number for _, pending in batch],
            KEYS,
            max(pending.not_before for _, pending in batch),
            first.hold_ms,
        )

    def replayed(self, batch: Batch) -> None:
        """End the entries of an acknowledged replay, except those that were journalled again meanwhile (F)."""
        if batch.kind == ALL:
            if self.clear is not None and self.clear.number == batch.numbers[0]:
                self.clear = None
            return
        entries = self.keys if batch.kind == KEYS else self.tags
        for name, number in zip(batch.names, batch.numbers, strict=True):
            if name in entries and entries[name].number == number:
                del entries[name]

    def postpone(self, batch: Batch) -> None:
        """A replay was refused: its entries go behind the others, which may be accepted."""
        entries = self.keys if batch.kind == KEYS else self.tags
        for name in batch.names:
            if name in entries:
                entries[name] = entries.pop(name)

    def forget_clock(self) -> None:
        """Drop the deadlines: the server is another one, which a set that was sent to the old one can't reach."""
        self.keys = {key: pending._replace(not_before=0) for key, pending in self.keys.items()}
        if self.clear is not None:
            self.clear = self.clear._replace(not_before=0)

    def _bound(self) -> None:
        """Replace too many entries by one clear, after the last of their deadlines. Their holds are lost."""
        if len(self.keys) + len(self.tags) > self._most:
            self.note_clear(max((pending.not_before for pending in self.keys.values()), default=0))
            self.tags.clear()
            self.keys.clear()
