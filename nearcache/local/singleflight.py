"""Single flight: readers of one process that miss the same key share one load."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

from nearcache.local.interrupts import make_lock
from nearcache.local.snapshot import Snapshot
from nearcache.local.waiters import Latch


class Outcome(NamedTuple):
    """What a loader did, as data, so that it may raise anything, StopIteration too."""

    value: Any = None
    error: Exception | None = None
    stale: bool = False
    """Whether it is a value past its end: only for readers that take such."""
    absent: bool = False
    """Whether the loader of several keys left this one out: only for readers of several keys."""

    def get(self) -> Any:
        """The value, or the loader's own exception raised."""
        if self.error is not None:
            raise self.error
        return self.value


def again(error: Exception, trace: TracebackType | None) -> Exception:
    """An exception like this one, for another caller: what one of them adds to its own, the others do not get.

    Args:
        error: the loader's.
        trace: its traceback when the load ended, without the frames of its callers.

    Returns:
        One of the same class, arguments, attributes, notes and cause; the same one where no other can be made.
    """
    kind = type(error)
    try:
        # An __init__ in Python may take other arguments than those that it hands on.
        copied = kind.__new__(kind, *error.args) if hasattr(kind.__init__, "__code__") else copy(error)
        copied.__dict__.update(error.__dict__)
        if error.__dict__.get("__notes__"):
            copied.__notes__ = list(error.__notes__)
        if (str(copied), copied.args) != (str(error), error.args):
            copied = error
    except Exception:  # noqa: BLE001  # the class is the user's
        copied = error
    if copied is not error:
        copied.__cause__, copied.__context__ = error.__cause__, error.__context__
        copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(trace)


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Flight:
    """One load under way, and its outcome. Woken without an outcome: the leader gave up, and another has to lead."""

    snapshot: Snapshot
    latch: Latch
    callers: tuple[object, ...]
    """The leader, last; before it, the callers of the loaders that it runs in, outermost first."""
    ends: float = float("inf")
    """Until when others join it (monotonic): a load that takes longer has lost its lease."""
    windows: tuple[float, float] = (0.0, 0.0)
    """For how long its leader takes a value past its end: while it is loaded anew, and after an error (seconds)."""
    outcome: Outcome | None = None
    trace: TracebackType | None = None
    """The traceback of an outcome's error when the load ended."""
    reserve: Any = None
    """A stale value that its leader has found, for followers that can't wait."""
    followed: bool = False
    """Whether another reader has joined it."""
    packed: bytes | None = None
    """The value as bytes, where each reader gets a copy of its own."""
    queues: bool = False
    """Whether its leader waits for a permit to load, which a follower may have."""
    behind: object = None
    """What the loader is called on behalf of, where that is no caller: the load runs in the background."""

    @property
    def owner(self) -> object:
        """The caller of the loader: requests of the loader are made on its behalf too."""
        return self.callers[-1] if self.behind is None else self.behind


class Purpose(Enum):
    """What a flight is for; readers join those of their own purpose."""

    VALUE = "a value, from L2 or loaded"
    REPLACE = "a value that is loaded now, whether there is one or not"
    REFRESH = "a newer value than the one that is served meanwhile, if it can be had without harm"
    AFTER_WAIT = "a value for readers whose wait for another's load is over"

    __hash__ = object.__hash__
    """In C, unlike Enum's: each flight asks for it three times."""


FlightKey: TypeAlias = tuple[str, Purpose]


class Flights:
    """The loads under way in this process, one per key and snapshot.

    Referred to weakly: a leader that was interrupted before it could end its flight takes it along.
    """

    def __init__(self) -> None:
        self._lock = make_lock()
        self._flights: dict[str, dict[Purpose, weakref.ref[Flight]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._flights.values()))

    def enter(self, key: FlightKey, mine: Flight, now: float = 0.0) -> Flight:
        """Join the flight of a key or begin one: the flight joined, or ``mine``.

        A flight is joined only under the snapshot it began with: a loader that started before a write must not answer a
        reader that came after it (docs/protocol.md, H). A thread's own flight is returned whatever its snapshot, and
        whether it replaces or not: its lease is ours. A reader that wants a value joins a refresh as well.
        """
        name, purpose = key
        with self._lock:
            flights = self._flights.setdefault(name, {})
            for reference in flights.values():
                own = reference()
                if own is not None and own.owner in mine.callers:
                    return own
            for place in (purpose, Purpose.REFRESH) if flights and purpose is Purpose.VALUE else (purpose,):
                flight = self._flying((name, place)) if flights else None
                if flight is not None and flight.snapshot == mine.snapshot and now < flight.ends:
                    flight.followed = True
                    return flight
            flights[purpose] = weakref.ref(mine)
            return mine

    def end(
        self,
        key: FlightKey,
        flight: Flight,
        outcome: Outcome | None,
        pack: Callable[[object], bytes | None] | None = None,
    ) -> None:
        """The load has ended, or its leader gave up: wake the followers.

        Args:
            key: where it was entered.
            flight: the flight.
            outcome: what it has brought; None: nothing.
            pack: makes bytes of a value, before its leader can change it, where each reader gets a copy of its own.
        """
        with self._lock:
            name, purpose = key
            flights = self._flights.get(name, {})
            reference = flights.get(purpose)
            if reference is not None and reference() in (flight, None):
                del flights[purpose]
            if not flights:
                self._flights.pop(name, None)
        try:
            if pack is not None and flight.followed and outcome is not None and outcome.error is None:
                flight.packed = pack(outcome.value)
        finally:
            if outcome is not None and outcome.error is not None:
                flight.trace = outcome.error.__traceback__
            flight.outcome = outcome
            flight.latch.set()

    def abandon(self, key: str, leader: object) -> None:
        """End the flights of a leader that an exception took out of the line that would have ended them."""
        for purpose in Purpose:
            flight = self._flying((key, purpose))
            if flight is not None and flight.owner == flight.callers[-1] == leader:
                self.end((key, purpose), flight, None)

    def has(self, key: str, purpose: Purpose) -> bool:
        """Whether a load of a key is under way."""
        return self._flying((key, purpose)) is not None

    def _flying(self, key: FlightKey) -> Flight | None:
        reference = self._flights.get(key[0], {}).get(key[1])
        return None if reference is None else reference()
