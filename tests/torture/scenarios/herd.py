"""A process of the stampede: its threads or tasks ask for one key at one moment, each in the way that it is told."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import redis

from nearcache import AsyncNearCache, NearCache
from tests.support.processes import connected, done, loader_of, pause, serve, side_by_side

CALLERS = {"threads": 50, "tasks": 200}
"""In each process."""
LOADER = 0.2
"""Seconds that a load takes."""
LEASE = 0.5
"""Seconds of the lease whose holder is killed."""
PATIENCE = 10.0
"""Seconds that the others wait for a load, however short the lease is, and that a load hangs which is to be killed."""


@dataclass
class Answers:
    """What the callers of a process got, and after how many ns."""

    took: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)


def loads_of(moment: int) -> str:
    """Where the loads of a round are noted."""
    return f"loads:{moment}"


async def attend(url: str, kind: str, pipe: Connection) -> None:
    """A process from beginning to end."""
    make = NearCache if kind == "threads" else AsyncNearCache
    with redis.Redis.from_url(url) as client:
        client.ping()
        async with connected(make, url, namespace="stampede", ttl=60) as cache:
            await serve(pipe, Caller(cache, client, CALLERS[kind]))


class Caller:
    """One process's part."""

    def __init__(self, cache: Any, client: Any, callers: int) -> None:
        self._cache, self._client, self._callers = cache, client, callers

    async def together(self, moment: int) -> Answers:
        """Everybody asks by get_or_set."""
        return await self._get_or_set(moment, LOADER)

    async def killed(self, moment: int) -> Answers:
        """The same, with a lease that ends soon, and a first load that hangs."""
        return await self._get_or_set(moment, PATIENCE, lease=LEASE)

    async def _get_or_set(self, moment: int, first: float, **options: Any) -> Answers:
        load = self._loader(moment, first)
        return await self._answers(moment, lambda: done(self._cache.get_or_set(f"key:{moment}", load, **options)))

    async def naive(self, moment: int) -> Answers:
        """Everybody asks by get, loads if there is nothing, and sets."""
        key, load = f"key:{moment}", self._loader(moment, LOADER)

        async def ask() -> Any:
            value = await done(self._cache.get(key))
            if value is None:
                value = await done(load())
                await done(self._cache.set(key, value))
            return value

        return await self._answers(moment, ask)

    async def bare(self, moment: int) -> Answers:
        """Everybody sleeps."""
        return await self._answers(moment, lambda: pause(self._cache, LOADER))

    def _loader(self, moment: int, first: float) -> Callable[[], Any]:
        """It tells who loads, and when it began; the first load of a round takes its own time."""

        def begin() -> tuple[int, float]:
            number = self._client.rpush(loads_of(moment), f"{os.getpid()} {time.monotonic_ns()}")
            return os.getpid(), first if number == 1 else LOADER

        return loader_of(self._cache, begin)

    async def _answers(self, moment: int, ask: Callable[[], Awaitable[Any]]) -> Answers:
        answers = Answers()

        async def caller() -> None:
            await pause(self._cache, max(0.0, (moment - time.monotonic_ns()) / 1e9))
            try:
                answers.values.append(await ask())
            except Exception as error:  # counted, and fails the run
                answers.raised.append(repr(error))
            answers.took.append(time.monotonic_ns() - moment)

        await side_by_side(self._cache, [caller() for _ in range(self._callers)])
        return answers
