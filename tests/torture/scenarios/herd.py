"""A process of the stampede: its threads or tasks ask for one key at one moment, each in the way that it is told."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import redis

from nearcache import AsyncNearCache, NearCache
from tests.support.processes import Cache, connected, done, serve

CALLERS = {"threads": 50, "tasks": 200}
"""In each process."""
LOADER = 0.2
"""Seconds that a load takes."""
LEASE = 0.5
"""Seconds of the lease whose holder is killed."""
PATIENCE = 10.0
"""Seconds that the others wait for a load, however short the lease is, and that a load hangs which is to be killed."""


@dataclass(frozen=True)
class Post:
    """What a process is told at its start."""

    number: int
    url: str
    kind: str


@dataclass
class Answers:
    """What the callers of a process got, and after how many ns."""

    took: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)


def loads_of(moment: int) -> str:
    """Where the loads of a round are noted."""
    return f"loads:{moment}"


def attend(post: Post, pipe: Connection) -> None:
    """A process from beginning to end."""
    asyncio.run(_attend(post, pipe))


async def _attend(post: Post, pipe: Connection) -> None:
    make = NearCache if post.kind == "threads" else AsyncNearCache
    with redis.Redis.from_url(post.url) as client:
        client.ping()
        async with connected(make, post.url, namespace="stampede", ttl=60) as cache:
            await serve(pipe, Caller(cache, client))


class Caller:
    """One process's part."""

    def __init__(self, cache: Cache, client: Any) -> None:
        self._cache, self._client = cache, client

    async def together(self, moment: int) -> Answers:
        """Everybody asks by get_or_set."""
        return await self._ask(moment)

    async def killed(self, moment: int) -> Answers:
        """The same, with a lease that ends soon."""
        return await self._ask(moment, PATIENCE, lease=LEASE)

    async def _ask(self, moment: int, first: float = LOADER, **options: Any) -> Answers:
        key = f"key:{moment}"
        cache = self._cache
        if isinstance(cache, NearCache):
            return self._in_threads(moment, lambda: cache.get_or_set(key, lambda: self._load(moment, first), **options))
        return await self._in_tasks(
            moment, lambda: cache.get_or_set(key, lambda: self._load_async(moment, first), **options)
        )

    async def naive(self, moment: int) -> Answers:
        """Everybody asks by get, loads if there is nothing, and sets."""
        key = f"key:{moment}"
        if isinstance(self._cache, NearCache):
            return self._in_threads(moment, lambda: self._naively(key, moment))
        return await self._in_tasks(moment, lambda: self._naively_async(key, moment))

    async def bare(self, moment: int) -> Answers:
        """Everybody sleeps."""
        if isinstance(self._cache, NearCache):
            return self._in_threads(moment, lambda: time.sleep(LOADER))
        return await self._in_tasks(moment, lambda: asyncio.sleep(LOADER))

    def _naively(self, key: str, moment: int) -> Any:
        value = self._cache.get(key)
        if value is None:
            value = self._load(moment)
            self._cache.set(key, value)
        return value

    async def _naively_async(self, key: str, moment: int) -> Any:
        value = await done(self._cache.get(key))
        if value is None:
            value = await self._load_async(moment)
            await done(self._cache.set(key, value))
        return value

    def _load(self, moment: int, first: float = LOADER) -> int:
        time.sleep(first if self._note(moment) == 1 else LOADER)
        return os.getpid()

    async def _load_async(self, moment: int, first: float = LOADER) -> int:
        await asyncio.sleep(first if self._note(moment) == 1 else LOADER)
        return os.getpid()

    def _note(self, moment: int) -> int:
        """Tell who loads, and when it began; which of all loads it is."""
        number: int = self._client.rpush(loads_of(moment), f"{os.getpid()} {time.monotonic_ns()}")
        return number

    def _in_threads(self, moment: int, call: Callable[[], Any]) -> Answers:
        answers = Answers()

        def ask() -> None:
            time.sleep(max(0.0, (moment - time.monotonic_ns()) / 1e9))
            try:
                answers.values.append(call())
            except Exception as error:  # counted, and fails the run
                answers.raised.append(repr(error))
            answers.took.append(time.monotonic_ns() - moment)

        threads = [threading.Thread(target=ask, name=f"caller-{number}") for number in range(CALLERS["threads"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    async def _in_tasks(self, moment: int, call: Callable[[], Any]) -> Answers:
        answers = Answers()

        async def ask() -> None:
            await asyncio.sleep(max(0.0, (moment - time.monotonic_ns()) / 1e9))
            try:
                answers.values.append(await call())
            except Exception as error:  # as above
                answers.raised.append(repr(error))
            answers.took.append(time.monotonic_ns() - moment)

        await asyncio.gather(*(ask() for _ in range(CALLERS["tasks"])))
        return answers
