"""Rare facts about a cache, as frozen objects; what a callback given to ``on_event`` hears.

Without slots, and with the base's comparing and showing: what a dataclass generates for each class adds up to much of
the time that the import takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nearcache.explanation import Explanation


class Event:
    """Base of all events: equal if they are of one kind and say the same.

    >>> from nearcache import Flushed, Journalled
    >>> from nearcache.testing import FakeServer
    >>> server, events = FakeServer(), []
    >>> with server.cache(namespace="shop") as cache:
    ...     unsubscribe = cache.on_event(events.append)
    ...     with server.away():
    ...         cache.set("user:7", "Ada")
    False
    >>> [event.keys for event in events if isinstance(event, Journalled)]
    [1]
    """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@dataclass(frozen=True, eq=False, repr=False)
class Connected(Event):
    """The bus is up and L1 is proven; ``kept``: the entries that survived the proof."""

    kept: int


@dataclass(frozen=True, eq=False, repr=False)
class Disconnected(Event):
    """The bus is lost; L1 serves until its proof runs out."""

    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Flushed(Event):
    """L1 dropped ``entries`` entries because messages may have been missed.

    Bad messages, of which there may be any number, are told once, until none has come for a minute.
    """

    reason: str
    entries: int


@dataclass(frozen=True, eq=False, repr=False)
class BreakerOpened(Event):
    """Redis is left alone for a while."""

    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class BreakerClosed(Event):
    """Redis is asked again."""


@dataclass(frozen=True, eq=False, repr=False)
class Refused(Event):
    """Redis is there, but refuses some operations: its memory is full, it takes no writes, a right is missing.

    Told once, until everything is accepted again. ``operation``: the first that was refused.
    """

    operation: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Accepted(Event):
    """Redis does again what it refused."""


@dataclass(frozen=True, eq=False, repr=False)
class Journalled(Event):
    """A write was not acknowledged: its keys are misses here until it has been replayed as a delete.

    ``keys``: how many; 0 for a clear or an invalidation of tags.
    """

    keys: int
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Drained(Event):
    """Journalled writes were replayed as deletes; ``left``: what has to wait still."""

    replayed: int
    left: int


@dataclass(frozen=True, eq=False, repr=False)
class LoadFailed(Event):
    """A load went wrong in a way that its caller does not see.

    A loaded value could not be cached: told once per function. A loader asked for its own key: told once per key. A
    stale value served in place of the loader's error, or a refresh in the background failed: told each time, with the
    ``error``; it is ``repeated`` within a second after another one, and then not logged.
    """

    key: str
    reason: str
    error: Exception | None = None
    repeated: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class CorruptValue(Event):
    """A record in Redis could not be read: a miss, overwritten by the next load; told once per key."""

    key: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class UnknownType(Event):
    """A record in Redis is of a type that is not registered here, or has other fields here, as during a deployment.

    A miss, overwritten by the next load; told once per type, with the first ``key``.
    """

    key: str
    type: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class StaleFound(Event):
    """The audit found an entry of L1 that is older than ``max_staleness`` allows; it was dropped. Told once per key.

    ``age``: seconds for which it was stale, as far as is known. ``explanation``: as ``explain`` gives it.
    """

    key: str
    reason: str
    age: float
    explanation: Explanation


@dataclass(frozen=True, eq=False, repr=False)
class CoherenceFailed(Event):
    """L1 can't be kept coherent with this server; ``reason`` says what to mend."""

    reason: str


Listener: TypeAlias = Callable[[Event], object]
