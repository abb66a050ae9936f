"""What is wrong with a cache now, by its events."""

from __future__ import annotations

from contextlib import suppress

from nearcache.errors import NearCacheWarning, warn
from nearcache.events import (
    Accepted,
    BreakerClosed,
    BreakerOpened,
    CoherenceFailed,
    Connected,
    Disconnected,
    Drained,
    Event,
    Journalled,
    Refused,
)


class Troubles:
    """What is wrong with a cache now, by its events; and a NearCacheWarning for what only the user can mend.

    Args:
        shown: the cache in a message.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._reasons: dict[str, str] = {}
        self._withheld: str | None = None
        self.advised: set[str] = set()
        """The kinds of findings that were logged."""
        self.opening: bool = False
        """Whether ``with`` waits for the first attempt, and may raise what would be a warning else."""

    @property
    def reason(self) -> str:
        """The gravest trouble."""
        return next((self._reasons[what] for what in _GRAVEST if what in self._reasons), "connecting")

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        kind = type(event)
        if kind in _BEGIN:
            self._reasons[_BEGIN[kind]] = event.reason  # type: ignore[attr-defined]  # as each of these has
        elif kind in _END and not getattr(event, "left", 0):
            self._reasons.pop(_END[kind], None)
        if isinstance(event, CoherenceFailed):
            if self.opening:
                self._withheld = event.reason
            else:
                warn(f"{self._shown}: {event.reason}")

    def opened(self, *, raised: bool) -> None:
        """``with`` has waited; ``raised``: it raises what was wrong."""
        self.opening = False
        withheld, self._withheld = self._withheld, None
        if withheld is not None and not raised:
            with suppress(NearCacheWarning):  # as an event's listener: no warning ends a cache that works
                warn(f"{self._shown}: {withheld}")

    def begin_anew(self) -> None:
        """The cache begins anew; what it has not replayed it keeps."""
        self._reasons = {what: why for what, why in self._reasons.items() if what == "journal"}


_BEGIN: dict[type[Event], str] = {
    CoherenceFailed: "bus",
    Disconnected: "bus",
    BreakerOpened: "breaker",
    Refused: "refused",
    Journalled: "journal",
}
_END: dict[type[Event], str] = {Connected: "bus", BreakerClosed: "breaker", Accepted: "refused", Drained: "journal"}
_GRAVEST = ("bus", "breaker", "refused", "journal")
