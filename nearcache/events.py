"""Rare facts about a cache, as frozen objects; what a callback given to ``on_event`` hears.

No dataclasses: what is generated for each adds up to a twentieth of the time that the import takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

if TYPE_CHECKING:
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

    __match_args__: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.__match_args__ = tuple(cls.__annotations__)  # type: ignore[misc]  # each class has its own

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be assigned")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} can't be deleted")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Connected(Event):
    """The bus is up and L1 is proven; ``kept``: the entries that survived the proof."""

    kept: int

    def __init__(self, kept: int) -> None:
        vars(self).update(kept=kept)


class Disconnected(Event):
    """The bus is lost; L1 serves until its proof runs out."""

    reason: str

    def __init__(self, reason: str) -> None:
        vars(self).update(reason=reason)


class Flushed(Event):
    """L1 dropped ``entries`` entries because messages may have been missed.

    Bad messages, of which there may be any number, are told once, until none has come for a minute.
    """

    reason: str
    entries: int

    def __init__(self, reason: str, entries: int) -> None:
        vars(self).update(reason=reason, entries=entries)


class BreakerOpened(Event):
    """Redis is left alone for a while."""

    reason: str

    def __init__(self, reason: str) -> None:
        vars(self).update(reason=reason)


class BreakerClosed(Event):
    """Redis is asked again."""


class Refused(Event):
    """Redis is there, but refuses some operations: its memory is full, it takes no writes, a right is missing.

    Told once, until everything is accepted again. ``operation``: the first that was refused.
    """

    operation: str
    reason: str

    def __init__(self, operation: str, reason: str) -> None:
        vars(self).update(operation=operation, reason=reason)


class Accepted(Event):
    """Redis does again what it refused."""


class Journalled(Event):
    """A write was not acknowledged: its keys are misses here until it has been replayed as a delete.

    ``keys``: how many; 0 for a clear or an invalidation of tags.
    """

    keys: int
    reason: str

    def __init__(self, keys: int, reason: str) -> None:
        vars(self).update(keys=keys, reason=reason)


class Drained(Event):
    """Journalled writes were replayed as deletes; ``left``: what has to wait still."""

    replayed: int
    left: int

    def __init__(self, replayed: int, left: int) -> None:
        vars(self).update(replayed=replayed, left=left)


class LoadFailed(Event):
    """A load went wrong in a way that its caller does not see.

    A loaded value could not be cached: told once per function. A loader asked for its own key: told once per key. A
    stale value served in place of the loader's error, or a refresh in the background failed: told each time, with the
    ``error``; it is ``repeated`` within a second after another one, and then not logged.
    """

    key: str
    reason: str
    error: Exception | None
    repeated: bool

    def __init__(self, key: str, reason: str, error: Exception | None = None, repeated: bool = False) -> None:
        vars(self).update(key=key, reason=reason, error=error, repeated=repeated)


class CorruptValue(Event):
    """A record in Redis could not be read: a miss, overwritten by the next load; told once per key."""

    key: str
    reason: str

    def __init__(self, key: str, reason: str) -> None:
        vars(self).update(key=key, reason=reason)


class UnknownType(Event):
    """A record in Redis is of a type that is not registered here, or has other fields here, as during a deployment.

    A miss, overwritten by the next load; told once per type, with the first ``key``.
    """

    key: str
    type: str
    reason: str

    def __init__(self, key: str, type: str, reason: str) -> None:  # noqa: A002  # as its name in the log
        vars(self).update(key=key, type=type, reason=reason)


class StaleFound(Event):
    """The audit found an entry of L1 that is older than ``max_staleness`` allows; it was dropped. Told once per key.

    ``age``: seconds for which it was stale, as far as is known. ``explanation``: as ``explain`` gives it.
    """

    key: str
    reason: str
    age: float
    explanation: Explanation

    def __init__(self, key: str, reason: str, age: float, explanation: Explanation) -> None:
        vars(self).update(key=key, reason=reason, age=age, explanation=explanation)


class CoherenceFailed(Event):
    """L1 can't be kept coherent with this server; ``reason`` says what to mend."""

    reason: str

    def __init__(self, reason: str) -> None:
        vars(self).update(reason=reason)


Listener: TypeAlias = Callable[[Event], object]

E = TypeVar("E", bound=Event)


def changed(event: E, **values: Any) -> E:
    """A copy of the event with other values."""
    return type(event)(**vars(event) | values)
