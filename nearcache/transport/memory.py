"""The Remote of ``memory://`` and ``null://``: no server. It counts the writes; its clock is the monotonic one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from nearcache.engine.ports import Remote
from nearcache.local.interrupts import make_lock
from nearcache.protocol.answers import (
    Absent,
    Ask,
    Bounds,
    Claim,
    Counted,
    Deleted,
    Fill,
    Granted,
    Held,
    Item,
    Lease,
    OutOfRange,
    Peer,
    Present,
    Reading,
    TagFloor,
    Written,
)


class MemoryRemote:
    """An L2 that keeps nothing: every read is a miss, every write is acknowledged."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._number = 1
        self.on_connected: Callable[[Peer], None] = lambda _: None
        self.seen: Callable[[], int] = lambda: 0
        self.may_repeat: Callable[[], bool] = lambda: True

    def now(self) -> int:
        return int(monotonic() * 1e6)

    async def connect(self) -> None:
        pass

    def _next(self) -> Written:
        with self._lock:
            self._number += 1
            return Written(self._number, self.now())

    async def read(self, keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Reading:
        return Reading([None] * len(keys), Bounds(self._number, 0) if with_bounds else None)

    async def read_each(self, asks: Sequence[tuple[Remote, Sequence[str]]]) -> Sequence[Sequence[bytes | None]]:
        return [[None] * len(keys) for _, keys in asks]

    async def tag_floors(self, tags: Sequence[str]) -> Sequence[TagFloor | None]:
        return [None] * len(tags)

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        return self._next()

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        return self._next()

    async def add(self, item: Item, dead: bytes, tags: Sequence[str], deadline: int) -> Written | Present | Held:
        return self._next()

    async def touch(self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int) -> Written | Present:
        return self._next()

    async def incr(
        self, key: str, delta: int, initial: int | None, ttl_ms: int, head: bytes, deadline: int, was: int | None = None
    ) -> Counted | Present | Absent | OutOfRange:
        return Absent()  # what L1 alone keeps is counted there

    async def delete_existing(self, key: str) -> Deleted:
        return Deleted(self._next(), b"")

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        return self._next()

    async def lease(self, asks: Sequence[Ask], lease_ms: int, tags: Sequence[str], deadline: int) -> Sequence[Lease]:
        # Granted always: the single flight of this process is the only one that loads.
        return [Granted(self._number, 0, (0,) * len(tags))] * len(asks)

    async def fill(self, fills: Sequence[Fill]) -> Sequence[Written | None]:
        # The number of the lease, so that the put rule refuses the value if a write came after the lease.
        return [Written(one.grant.number, self.now()) for one in fills]

    async def abort(self, leases: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        return [True] * len(leases)

    async def claim(self, key: str) -> Claim | None:
        return None

    async def greet(self) -> None:
        pass

    async def clear(self, *, not_before: int = 0) -> Written | None:
        return self._next()

    async def invalidate_tags(self, tags: Sequence[str], *, stale: bool = False) -> Written:
        return self._next()

    async def l1_share(self) -> float:
        return 1.0

    async def limit_l1(self, share: float) -> None:
        pass

    async def announce(self, place: int, owner: bytes, document: bytes, life_ms: int) -> bool:
        return True

    async def announced(self) -> Sequence[bytes]:
        return ()

    async def probe(self, nonce: str) -> None:
        pass

    def discard_idle(self) -> None:
        pass

    async def close(self) -> None:
        pass
