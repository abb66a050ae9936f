"""A process of the storm: many instances on one loop, which note when their bus was lost and proven again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from nearcache import AsyncNearCache, Connected, Event
from tests.support.processes import connected, serve

PATIENCE = 30.0
"""Seconds that all may take to be proven again."""


async def attend(url: str, instances: int, options: Mapping[str, Any], pipe: Connection) -> None:
    """A process from beginning to end."""
    async with AsyncExitStack() as stack:
        waiting = [connected(AsyncNearCache, url, namespace="storm", ttl=600, **options) for _ in range(instances)]
        await serve(pipe, Crowd([await stack.enter_async_context(one) for one in waiting]))


class Crowd:
    """The instances of one process."""

    def __init__(self, caches: list[AsyncNearCache]) -> None:
        self._caches = caches
        self._proven = [0] * len(caches)
        """When each was proven last, in ns."""
        for number, cache in enumerate(caches):
            cache.on_event(partial(self._note, number))

    def _note(self, number: int, event: Event) -> None:
        if isinstance(event, Connected):
            self._proven[number] = time.monotonic_ns()

    async def warm(self) -> int:
        """Let each make its connection for commands, and keep a value."""
        await self._caches[0].set("a", 1)
        return sum([await cache.get("a") == 1 for cache in self._caches])

    async def idle(self, seconds: float) -> float:
        """Do nothing but what the instances do by themselves; the seconds of processor time that it took."""
        began = time.process_time()
        await asyncio.sleep(seconds)
        return time.process_time() - began

    async def back(self, since: int) -> list[int]:
        """When each was proven after a moment, in ns; 0: it was not, within PATIENCE."""
        end = time.monotonic() + PATIENCE
        while min(self._proven) < since and time.monotonic() < end:  # noqa: ASYNC110  # many of them
            await asyncio.sleep(0.01)  # many of them
        return [when if when >= since else 0 for when in self._proven]
