"""What a test needs beside a cache: waiting for a condition with a deadline, the events it told, its names in Redis."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import redis

from nearcache import Event

E = TypeVar("E", bound=Event)

PATIENCE = 10.0
"""Seconds; a test that waits this long has failed."""
PAUSE = 0.005


async def until(condition: Callable[[], object], within: float = PATIENCE) -> Any:
    """Ask again and again until the answer is true, and return it; a coroutine function's answer is awaited.

    Raises:
        AssertionError: it was not true within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await _of(answer)
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s: {_text(condition)}")
        await asyncio.sleep(PAUSE)


def wait_until(
    condition: Callable[[], object], within: float = 2 * PATIENCE, *, despite: Sequence[type[Exception]] = ()
) -> None:
    """Block until something is true; an exception of a kind in ``despite`` is no answer.

    Raises:
        AssertionError: it was not true within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        with suppress(*despite):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s: {_text(condition)}")
        time.sleep(4 * PAUSE)  # as a rule the condition asks a server or another process


def _text(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except TypeError:  # a partial
        return repr(condition)


async def _of(answer: Awaitable[object]) -> object:
    return await answer


class Heard:
    """The events of a cache, in order."""

    def __init__(self, cache: Any) -> None:
        self.all: list[Event] = []
        self.stop = cache.on_event(self.all.append)

    def of(self, kind: type[E]) -> list[E]:
        """Those of one kind."""
        return [event for event in self.all if isinstance(event, kind)]

    def __repr__(self) -> str:
        return repr(self.all)


@contextmanager
def redis_of(url: str) -> Iterator[Any]:
    """A client of redis-py beside the cache; in RESP2, which every server speaks."""
    client = redis.Redis.from_url(url, socket_timeout=5, protocol=2)
    try:
        yield client
    finally:
        client.close()


def value_name(namespace: str, key: str) -> str:
    """Where the record of a key is in Redis."""
    return f"{{{namespace}:0}}:v:{key}"


def channel_name(namespace: str) -> str:
    """The channel of a namespace."""
    return f"{{{namespace}:0}}:c"


async def shut(cache: Any) -> None:
    """Close the cache behind a twin, whose own `close` is the fixture's."""
    closing = cache.cache.close()
    if inspect.isawaitable(closing):
        await closing


async def refused(cache: Any) -> None:
    """Read until the bus is refused."""
    assert await cache.get("a") is None
    await until(lambda: cache.health().bus == "refused")


async def gone(cache: Any, key: str) -> None:
    """Wait until a key is a miss."""

    async def missing() -> bool:
        return await cache.get(key) is None

    await until(missing)


async def timed(work: Awaitable[object]) -> float:
    """How long something takes, in seconds."""
    begun = time.monotonic()
    await work
    return time.monotonic() - begun
