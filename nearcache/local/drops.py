"""Why keys left L1 lately: a bounded memory, for ``explain``. It is written where an entry is dropped, not at hits."""

from __future__ import annotations

from collections import deque

DROPS_MAX = 2000

ANOTHER_WRITE = "a message came that its key was written"
OWN_WRITE = "its key was written here"
OLDER = "a newer value was about to be returned"
UNVERSIONED = "a loaded value that L2 could not take was about to be returned"
UNKNOWN_WRITE = "Redis did not acknowledge a write of its key, which is in the journal"
UNKNOWN_FLOOR = "Redis did not acknowledge a clear or an invalidation of tags, which is in the journal"
TAG = "one of its tags was invalidated"
CLEARED = "the namespace was cleared"
LOCAL = "clear_local dropped everything"
EVICTED = "it was evicted, for want of room"
SHARE = "the share of keys that L1 may hold was lowered"
AUDITED = "the audit found that Redis has another value"
DAMAGED = "its value could not be decoded"


class Drops:
    """The last DROPS_MAX drops of one process; a flush or a clear is one."""

    __slots__ = ("_drops", "note")

    def __init__(self) -> None:
        self._drops: deque[tuple[str | None, str]] = deque(maxlen=DROPS_MAX)
        self.note = self._drops.append
        """Note a pair of key and reason; the key None stands for all. A C method: messages drop many keys."""

    def of(self, key: str) -> str | None:
        """Why a key left L1 the last time; None: it was not here, or too much was dropped since. Under the lock."""
        for dropped, why in reversed(self._drops):
            if dropped is None or dropped == key:
                return why
        return None
