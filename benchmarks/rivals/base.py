"""What an adapter of a peer is: the kinds of work, the keys, values and loaders that all peers share.

An adapter is a ``Rival``: an asynchronous context manager over a ``Stage`` that gives one statement per kind of work
that the peer can do, and functions that fill an empty cache of the peer, for the section memory. Packages of peers are
imported inside these functions: a peer that is not installed, or that raises NotRun, is named with the reason, and the
others are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.timing import Case
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer

HIT, DECORATED, LOAD, SET = "hit", "decorated", "load", "set"
"""A value in the process is read by get; the same by a decorated function of one str; a key that was never there is
missed, loaded and put into a full cache, from which another entry leaves; a key that is there gets a value."""
WIRE_GET, WIRE_LOAD, WIRE_SET = "get over a server", "load over a server", "set over a server"
"""The same work with a server."""
HIT_LRU, DECORATED_INT, COPIES, COPIES_LRU = "hit, no ttl", "decorated, int", "decorated, copies", "copies, no ttl"
"""Variants for the section hits: no ttl; a decorated function of one int; a decorator that copies what it returns."""
ROOM = 10_000
"""Entries that a cache may hold."""
TTL = 3600
"""Seconds: nothing expires during a run."""
VALUE = {"id": 8, "name": "Grace"}
Cases = Mapping[str, Case]
Fill = Callable[[Sequence[str], Sequence[Any]], Awaitable[object]]
"""Puts values into an empty cache that has room for all of them, and returns the cache."""


class NotRun(Exception):
    """A peer can not be run here; ``excused`` if a server refuses what the peer asks for."""

    def __init__(self, reason: str, *, excused: bool = False) -> None:
        super().__init__(reason)
        self.excused = excused


@dataclass(frozen=True)
class Stage:
    """What every peer is given: a server, and the same keys and values."""

    server: EmbeddedServer | FaultProxy
    values: Mapping[str, Any]

    def once(self) -> Callable[[str], Any]:
        """A function to be cached; a second call with the same key raises, since it was no hit."""
        seen: set[str] = set()

        def user(key: str) -> Any:
            if key in seen:
                raise RuntimeError(f"{key} was loaded twice: that was no hit")
            seen.add(key)
            return self.values[key]

        return user


@dataclass(frozen=True)
class Rival:
    """A peer: its name, its package, whose version is printed, and what it can do."""

    name: str
    package: str
    cases: Callable[[Stage], AbstractAsyncContextManager[Cases]]
    fills: Mapping[str, Fill] = field(default_factory=dict)
    """By the name of a cache of this peer."""

    async def enter(self, stack: AsyncExitStack, stage: Stage) -> Cases:
        """The statements of this peer, until the stack is left.

        Raises:
            NotRun: it can not be run here.
        """
        try:
            return await stack.enter_async_context(self.cases(stage))
        except NotRun:
            raise
        except ImportError as error:
            raise NotRun(f"not installed ({error}); make bench installs the extra `bench`") from error
        except Exception as error:  # whatever it is, it is printed, and the other peers are measured
            raise NotRun(f"{type(error).__name__}: {error}") from error


def number_of(key: str) -> int:
    """The number in a key such as user:7."""
    return int(key.removeprefix("user:"))


def new_keys() -> Callable[[], str]:
    """A function that gives a new key with each call; its own cost, 0.1 µs, is the same in every case."""
    return map("new:{}".format, itertools.count()).__next__


def load(_key: str = "") -> dict[str, Any]:
    """The loader of a miss: it costs next to nothing, so that the cache is what is measured."""
    return {"id": 7, "name": "Ada"}


async def load_async(_key: str = "") -> dict[str, Any]:
    """The same loader, awaited."""
    return {"id": 7, "name": "Ada"}


def case(label: str, statement: str, **names: Any) -> Case:
    """A statement with its names as keywords."""
    return Case(label, statement, names)


async def fill_mapping(cache: Any, keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill a cache that is a mapping."""
    for key, value in zip(keys, values, strict=True):
        cache[key] = value
    return cache
