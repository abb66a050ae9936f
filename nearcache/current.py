"""What a loader may ask about its load, and say about the value that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple

from nearcache.errors import ConfigError


class StaleValue(NamedTuple):
    """The old value of a key that is loaded anew."""

    value: Any
    age: float
    """Seconds since it was stored, by the server's clock."""


class Load:
    """The load that a loader makes."""

    __slots__ = ("_old", "_tags", "key", "skipped", "ttl")

    def __init__(self, key: str, tags: Iterable[str], old: Callable[[], StaleValue | None]) -> None:
        self.key: str = key
        self.ttl: float | timedelta | None = None
        """Set it to store the value for this time; None: the ttl of the call or of the settings."""
        self._tags = set(tags)
        self.skipped: bool = False
        """Whether the value is not to be stored."""
        self._old: Callable[[], StaleValue | None] | None = old

    @property
    def tags(self) -> set[str]:
        """The tags of the call; add others to it: ``load.tags |= {"users"}``. Those of the call stay in any case."""
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise ConfigError(f"load.tags={tags!r}: must be a set of strings, as in load.tags |= {{'users'}}")
        self._tags = set(tags)

    @property
    def keys(self) -> Sequence[str]:
        """The keys that this call of the loader loads."""
        return (self.key,)

    def __getitem__(self, key: str) -> Load:
        """The load of one of the keys."""
        if key not in self.keys:
            raise KeyError(key)
        return self

    @property
    def stale(self) -> StaleValue | None:
        """The value that the new one is to replace, as for a conditional request to an origin; None: there is none.

        It is past its end (Redis keeps it for the longest stale window, as ``stale_if_error``), marked stale, or about
        to be refreshed. What was deleted, cleared or invalidated, as far as this process has heard, is not given.
        """
        return None if self._old is None else self._old()

    @property
    def ended(self) -> bool:
        """Whether the loader has returned: what is said now comes too late."""
        return self._old is None

    def end(self) -> None:
        """The loader has returned; nothing of what its load refers to is kept."""
        self._old = None

    def skip(self) -> None:
        """Return the value to its callers and do not store it; as with ``condition``, an old value is deleted."""
        self.skipped = True


class Loads(Load):
    """The loads of one call of ``load_many``: what is said of them together counts for each key."""

    __slots__ = ("_each",)

    def __init__(self, each: Mapping[str, Load]) -> None:
        super().__init__("", set[str]().union(*(load.tags for load in each.values())), self._refuse)
        del self.key  # it has several: asking for it is an AttributeError
        self._each = each

    @property
    def keys(self) -> Sequence[str]:
        """The keys that this call of the loader loads."""
        return tuple(self._each)

    def __getitem__(self, key: str) -> Load:
        return self._each[key]

    def end(self) -> None:
        """The loader has returned: tell the load of each key what was said of all."""
        for load in self._each.values():
            load.ttl = self.ttl if load.ttl is None else load.ttl
            load.tags |= self.tags
            load.skipped |= self.skipped
            load.end()
        super().end()

    def _refuse(self) -> None:
        """Each key has an old value of its own."""
        raise RuntimeError("this call loads several keys, each with an old value of its own: ask load[key].stale")


CURRENT: ContextVar[Load | None] = ContextVar("nearcache-current-load", default=None)


def current_load() -> Load:
    """The innermost load that the present code runs inside.

    A loader asks it for its key and for the old value, and says by it how the new one is stored:

    >>> from nearcache import NearCache
    >>> def quote():
    ...     load = current_load()
    ...     load.ttl = 5
    ...     return load.key
    >>> with NearCache.from_url("memory://") as cache:
    ...     cache.get_or_set("quote:7", quote)
    'quote:7'

    Raises:
        RuntimeError: no loader runs here, or it has returned already. A thread that a loader starts has no load of its
            own; one that runs in a copy of the loader's context, as by ``asyncio.to_thread``, has the loader's.
    """
    load = CURRENT.get()
    if load is None or load.ended:
        raise RuntimeError("current_load() was called outside a loader: only code that a loader runs has a load")
    return load
