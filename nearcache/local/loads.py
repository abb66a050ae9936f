"""The loads of one cache: how many may be under way, which keys are refreshed, which loads failed lately."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from nearcache.local.interrupts import make_lock
from nearcache.local.snapshot import Snapshot

FAILED_MAX = 1000


def name_of(function: object) -> str:
    """A function as messages name it."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"


STALL = 0.5
"""Seconds without a load that begins or ends, after which one more may begin."""


class Permits(Protocol):
    """A bounded number of permits."""

    async def acquire(self, timeout: float) -> object | None:
        """Take one, waiting up to ``timeout`` seconds for it; None: there was none."""
        ...

    def release(self, permit: Any) -> None:
        """Give one back."""
        ...

    def more(self) -> object:
        """One beyond the bound."""
        ...

    def retire(self, permit: Any) -> None:
        """Give one back for good."""
        ...


FUNCTIONS_MAX = 1000


@dataclass(slots=True, eq=False, repr=False)
class Loaded:
    """What was loaded by one function."""

    name: str
    loads: int = 0
    seconds: float = 0.0
    kept: int = 0
    """Values that could be stored, and were not turned down."""


@dataclass(slots=True, eq=False, repr=False)
class Loads:
    """The loads of one cache.

    While Redis is away, or just back empty, nothing else stands before the database, and each load takes a permit. That
    is a brake, and must not be a deadlock: loaders that hold all permits may wait for inner loads, in threads that do
    not know the callers. So when no permit has been taken or given back for STALL seconds, one more load begins; its
    permit goes from hand to hand until no reader waits for one.
    """

    permits: Permits
    lock: Any = field(default_factory=make_lock)
    waiting: int = 0
    """Readers that wait for a permit."""
    extra: int = 0
    """Permits beyond the bound."""
    moves: int = 0
    """Changes whenever a permit is taken or given back."""
    refills_until: float = float("-inf")
    """Until when (monotonic) Redis counts as just back empty."""
    permitted: set[object] = field(default_factory=set)
    """The callers that have a permit."""
    refreshing: set[str] = field(default_factory=set)
    """The keys that are refreshed in the background."""
    hidden: str | None = None
    """The newest error of a loader that no caller got."""
    hidden_at: float = float("-inf")
    """When one was logged the last time (monotonic)."""
    failed: dict[str, tuple[float, Snapshot]] = field(default_factory=dict)
    functions: dict[object, Loaded] = field(default_factory=dict)
    """The first FUNCTIONS_MAX functions that were loaders, by their code, which is the same in each closure."""

    def of(self, loader: object) -> Loaded:
        """What this loader's function has loaded."""
        function = getattr(loader, "func", loader)  # a decorated function's loader is a partial of it
        code = getattr(function, "__code__", type(function))
        known = self.functions.get(code)
        if known is None:
            known = Loaded(name_of(function))
            if len(self.functions) < FUNCTIONS_MAX:
                self.functions[code] = known
        return known

    async def acquire(self, patience: float) -> object | None:
        """Take a permit, waiting up to ``patience`` seconds for it; None: there was none."""
        with self.lock:
            self.waiting += 1
        try:
            while True:
                wait, before = max(0.0, min(patience, STALL)), self.moves
                permit = await self.permits.acquire(wait)
                if permit is not None:
                    self.moves += 1
                    return permit
                with self.lock:
                    if wait == STALL and self.moves == before:
                        # An interrupt behind it leaves one too many; in the other order it would leave one too few.
                        permit = self.permits.more()
                        self.extra += 1
                        self.moves += 1
                        return permit
                patience -= wait
                if patience <= 0:
                    return None
        finally:
            with self.lock:
                self.waiting -= 1

    def release(self, permit: object) -> None:
        """Give a permit back."""
        with self.lock:
            self.moves += 1
            if self.extra and not self.waiting:
                self.extra -= 1
                self.permits.retire(permit)
                return
        self.permits.release(permit)

    def limited(self, now: float, *, away: bool) -> bool:
        """Whether a load needs a permit."""
        return away or now < self.refills_until

    def note_failure(self, key: str, until: float, snapshot: Snapshot) -> None:
        """A load failed: until then it is not tried again while a stale value serves, unless something is written."""
        if len(self.failed) >= FAILED_MAX:
            self.failed.clear()
        self.failed[key] = until, snapshot

    def backing_off(self, key: str, now: float, snapshot: Snapshot) -> bool:
        """Whether a load of this key has failed lately, and nothing was written since."""
        until, then = self.failed.get(key, (now, snapshot))
        return now < until and then == snapshot
