"""The loads of one cache: how many may be under way, which keys are refreshed, which loads failed lately."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from nearcache.local.snapshot import Snapshot

FAILED_MAX = 1000


class Permits(Protocol):
    """A bounded number of permits."""

    async def acquire(self, timeout: float) -> bool:
        """Take one, waiting up to ``timeout`` seconds for it; whether there was one."""
        ...

    def release(self) -> None:
        """Give one back."""
        ...


@dataclass(slots=True, eq=False)
class Loads:
    """The loads of one cache."""

    permits: Permits
    """One per load while Redis is away, or just back empty: then nothing else stands before the database."""
    refills_until: float = float("-inf")
    """Until when (monotonic) Redis counts as just back empty."""
    permitted: set[object] = field(default_factory=set)
    """The callers that have a permit."""
    refreshing: set[str] = field(default_factory=set)
    """The keys that are refreshed in the background."""
    failed: dict[str, tuple[float, Snapshot]] = field(default_factory=dict)

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
