"""What the comparison with peers is made of: kinds of work, keys, values, loaders, and what a peer is.

Each peer is an asynchronous context manager over a Stage, which yields one statement per kind of work that it has.
What can't be run here raises NotRun, or fails to be imported: ``peers`` names it, with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Case
from nearcache.transport.embedded import EmbeddedServer

HIT, DECORATED, LOAD, SET = "hit", "decorated", "load", "set"
"""The value is in the process, read by get; the same by a decorated function of one str; a new key is missed, loaded
and put into a full cache, which another entry leaves; a key that is there gets a value."""
WIRE_GET, WIRE_LOAD, WIRE_SET = "get over a server", "load over a server", "set over a server"
"""The same work with a server in it."""
ROOM = 10_000
"""Entries that a cache may hold."""
TTL = 3600
"""Seconds: nothing expires during a run."""
Cases = Mapping[str, Case]


class NotRun(Exception):
    """A peer can't be run here; ``excused`` if it is the server that refuses."""

    def __init__(self, reason: str, *, excused: bool = False) -> None:
        super().__init__(reason)
        self.excused = excused


@dataclass(frozen=True)
class Stage:
    """What all are given: a server, and the same keys and values."""

    server: EmbeddedServer
    values: Mapping[str, Any]

    def once(self) -> Callable[[str], Any]:
        """A function to be cached; a second call with the same key was no hit, and raises."""
        seen: set[str] = set()

        def user(key: str) -> Any:
            if key in seen:
                raise RuntimeError(f"{key} was loaded twice: that was no hit")
            seen.add(key)
            return self.values[key]

        return user


def new_keys() -> Callable[[], str]:
    """A function that gives a key that was never there; its own cost, 0.1 µs, is in every case alike."""
    return map("new:{}".format, itertools.count()).__next__


def load(_key: str = "") -> dict[str, Any]:
    """The loader of a miss: it costs next to nothing, so that what is measured is the cache."""
    return {"id": 7, "name": "Ada"}


async def load_async(_key: str = "") -> dict[str, Any]:
    """The same, awaited."""
    return {"id": 7, "name": "Ada"}


VALUE = {"id": 8, "name": "Grace"}


def case(label: str, statement: str, **names: Any) -> Case:
    """A statement with its names as keywords."""
    return Case(label, statement, names)


@dataclass(frozen=True)
class Rival:
    """A peer by its name, and the package whose version is told."""

    name: str
    package: str
    cases: Callable[[Stage], AbstractAsyncContextManager[Cases]]
