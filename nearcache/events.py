"""Rare facts about a cache, as frozen objects; what a callback given to ``on_event`` hears.

Without slots: a dataclass is made twice for them, which all these would add to the time of the import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Connected(Event):
    """The bus is up and L1 is proven; ``kept``: the entries that survived the proof."""

    kept: int


@dataclass(frozen=True)
class Disconnected(Event):
    """The bus is lost; L1 serves until its proof runs out."""

    reason: str


@dataclass(frozen=True)
class Flushed(Event):
    """L1 dropped ``entries`` entries because messages may have been missed."""

    reason: str
    entries: int


@dataclass(frozen=True)
class BreakerOpened(Event):
    """Redis is left alone for a while."""

    reason: str


@dataclass(frozen=True)
class BreakerClosed(Event):
    """Redis is asked again."""


@dataclass(frozen=True)
class Refused(Event):
    """Redis is there, but refuses some operations: its memory is full, it takes no writes, a right is missing.

    Told once, until everything is accepted again. ``operation``: the first that was refused.
    """

    operation: str
    reason: str


@dataclass(frozen=True)
class Accepted(Event):
    """Redis does again what it refused."""


@dataclass(frozen=True)
class Journalled(Event):
    """A write was not acknowledged: its keys are misses here until it has been replayed as a delete.

    ``keys``: how many; 0 for a clear or an invalidation of tags.
    """

    keys: int
    reason: str


@dataclass(frozen=True)
class Drained(Event):
    """Journalled writes were replayed as deletes; ``left``: what has to wait still."""

    replayed: int
    left: int


@dataclass(frozen=True)
class LoadFailed(Event):
    """A loaded value could not be cached, or a loader asked for its own key; told once per key."""

    key: str
    reason: str


@dataclass(frozen=True)
class CorruptValue(Event):
    """A record in Redis could not be read: a miss, overwritten by the next load; told once per key."""

    key: str
    reason: str


@dataclass(frozen=True)
class CoherenceFailed(Event):
    """L1 can't be kept coherent with this server; ``reason`` says what to mend."""

    reason: str


Listener: TypeAlias = Callable[[Event], object]
