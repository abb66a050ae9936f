"""No server: L1 alone behind the same API (``memory://``). Numbers come from here, time from the monotonic clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from nearcache.protocol.answers import Granted, Item, Lease, Peer, Reading, Take, Written

T = TypeVar("T")


class MemoryRemote:
    """An L2 that keeps nothing: every read is a miss, every write is acknowledged."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._number = 1
        self.on_connected: Callable[[Peer], None] = lambda _: None
        self.may_repeat: Callable[[], bool] = lambda: True

    def now(self) -> int:
        """The monotonic clock."""
        return int(monotonic() * 1e6)

    async def connect(self) -> None:
        """There is nobody to meet."""

    def _next(self) -> Written:
        with self._lock:
            self._number += 1
            return Written(self._number, self.now())

    async def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """Nothing."""
        return Reading([None] * len(keys), 0 if with_floor else None)

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """By itself."""
        (record,), floor = await self.read([key], with_floor=with_floor)
        return take(record, floor)

    async def tag_floors(self, tags: Sequence[str]) -> Sequence[int | None]:
        """Nothing."""
        return [None] * len(tags)

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        """The next number."""
        del items, tags, deadline
        return self._next()

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        """The next number."""
        del keys, hold_ms, not_before
        return self._next()

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        """The next number."""
        del keys
        return self._next()

    async def lease(self, key: str, lease_id: bytes, dead: bytes, lease_ms: int, tags: Sequence[str]) -> Lease:
        """Always granted: the flight is the only reader here."""
        del key, lease_id, dead, lease_ms
        return Granted(self._number, 0, (0,) * len(tags))

    async def fill(self, item: Item, lease_id: bytes, grant: Granted, tags: Sequence[str]) -> Written | None:
        """The number of the lease: the put rule then refuses what a write came before."""
        del item, lease_id, tags
        return Written(grant.number, self.now())

    async def abort(self, key: str, lease_id: bytes) -> None:
        """Nothing to give back."""

    async def clear(self, *, not_before: int = 0) -> Written | None:
        """The next number."""
        del not_before
        return self._next()

    async def invalidate_tags(self, tags: Sequence[str]) -> Written:
        """The next number."""
        del tags
        return self._next()

    async def probe(self, nonce: str) -> None:
        """Nobody hears it."""

    def discard_idle(self) -> None:
        """Nothing to drop."""

    async def close(self) -> None:
        """Nothing to close."""
