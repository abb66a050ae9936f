"""Marks: values that were returned without a version, so that no later read of a key goes back to an older record.

A value that was loaded while Redis is away, or whose fill was refused, has no version that could be compared with
another's. Its key gets a mark instead: the time at which its load ended. A record that began before the mark may be
older, and is dead for this process; a record that began after it read the database after that load had ended
(docs/protocol.md, T).
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

MARKS_MAX = 65_536
ROUNDING = 1.0
"""µs by which a sum of clocks, as floats, may be too small."""


class Mark(NamedTuple):
    """When a load ended: monotonic seconds, and the server's clock minus ours at that time, as far as it was known."""

    at: float
    offset: float

    def refuses(self, began: int, offset: float) -> bool:
        """Whether a record may be older.

        Args:
            began: when it began to be made, server µs.
            offset: the server's clock minus ours now. The larger offset counts: each is at most too large, and a server
                whose clock was set back must not make a mark end early.
        """
        return began <= (self.at + max(self.offset, offset)) * 1e6 + ROUNDING


NO_MARK = Mark(float("-inf"), 0.0)


class Marks:
    """The marks of one process, changed under the tier's lock and read without it.

    There are at most MARKS_MAX. When there are too many, the oldest half leaves, and one mark for all keys rises to the
    youngest that left: records that began before it cost a load each.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._everything = NO_MARK
        self.used = False
        """Whether any key has ever had a mark."""

    def of(self, key: str) -> Mark:
        """The mark of a key, or NO_MARK."""
        mark = self._marks.get(key, NO_MARK)
        return mark if mark.at > self._everything.at else self._everything

    def note(self, key: str, mark: Mark) -> None:
        """A value that was loaded until then is returned without a version."""
        if mark.at < self.of(key).at:
            return
        self.used = True
        self._marks.pop(key, None)
        if len(self._marks) >= MARKS_MAX:
            leaving = list(islice(self._marks.items(), MARKS_MAX // 2))
            for other, _ in leaving:
                del self._marks[other]
            self._everything = max(self._everything, *(mark for _, mark in leaving))
        self._marks[key] = mark

    def end(self, key: str) -> None:
        """A value that was made after the mark is in L1."""
        self._marks.pop(key, None)
