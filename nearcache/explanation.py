"""What ``explain`` tells of a key: a frozen object for the person who asks why a value is there, or is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where the value of a key stands, and what a read would do now, and why. It does not show the value itself.

    >>> from nearcache import NearCache
    >>> cache = NearCache.from_url("memory://", ttl=60)
    >>> cache.set("user:7", "Ada", tags=["users"])
    True
    >>> print(cache.explain("user:7"))  # doctest: +ELLIPSIS
    'user:7': a read would serve from L1: ...
      tags: users
      ...
    """

    key: str
    would: Literal["serve from L1", "serve from L2", "load"]
    """What ``get_or_set`` would do now; where it would load, ``get`` is a miss."""
    why: str
    """The reason, in a sentence; of each tier that does not serve."""
    tier: Literal["l1", "l2"] | None
    """Which tier would serve."""
    version: int | None = None
    """The write number of the value; of the newer one where both tiers have it."""
    age: float | None = None
    """Seconds since it was written, by the server's clock."""
    remaining: float | None = None
    """Seconds for which it is still fresh in L2; below 0: for how long it is stale."""
    l1_remaining: float | None = None
    """Seconds for which L1 may still serve it; None: it is not in L1."""
    tags: tuple[str, ...] = ()
    size: int | None = None
    """Bytes of the encoded value."""
    type: str | None = None
    """The name of the value's type."""
    in_flight: tuple[str, ...] = ()
    """What is under way for the key: loads, a lease or a hold, a write in the journal."""
    left_l1: str | None = None
    """Why the key left this L1 the last time, as far as that is remembered; it may have come back since.

    What dropped all of L1 is told of each key, also of one that was not there.
    """

    def __str__(self) -> str:
        lines = [f"{self.key!r}: a read would {self.would}: {self.why}"]
        shown = {
            "version": self.version,
            "age": _seconds(self.age),
            "fresh in L2 for": _seconds(self.remaining),
            "fresh in L1 for": _seconds(self.l1_remaining),
            "tags": ", ".join(self.tags) or None,
            "size": None if self.size is None else f"{self.size:,} bytes",
            "type": self.type,
            "in flight": "; ".join(self.in_flight) or None,
            "left L1" if self.l1_remaining is None else "left L1 before": self.left_l1,
        }
        return "\n".join(lines + [f"  {name}: {value}" for name, value in shown.items() if value is not None])


def _seconds(time: float | None) -> str | None:
    return None if time is None else f"{time:,.3f} s"
