"""A process of the fleet: a cache that hears of writes, a raw subscriber beside it, and, if told so, work to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from nearcache import AsyncNearCache, NearCache
from tests.support.processes import Cache, connected, done, serve
from tests.support.raw_subscriber import RawSubscriber, note_drops

PATIENCE = 5.0
"""Seconds that a process waits for what it has not heard of yet."""


@dataclass
class Heard:
    """What a process heard of in a round; times are CLOCK_MONOTONIC in ns, by key."""

    number: int
    busy: bool
    dropped: dict[str, int] = field(default_factory=dict)
    """When L1 had applied the message of a write, and did not serve the old value."""
    raw: dict[str, int] = field(default_factory=dict)
    stale: int = 0


async def receive(number: int, url: str, namespace: str, keys: Sequence[str], pipe: Connection) -> None:
    """A process from beginning to end."""
    make = AsyncNearCache if number % 2 else NearCache
    raw = RawSubscriber(url, namespace)
    try:
        # The server sends to its subscribers in some order: the raw one is before the cache's in half of the processes.
        if number % 4 < 2:
            raw.start()
        async with connected(make, url, namespace=namespace, ttl=3600) as cache:
            raw.start()
            await serve(pipe, Receiver(number, keys, cache, raw))
    finally:
        raw.stop()


class Receiver:
    """One process's part."""

    def __init__(self, number: int, keys: Sequence[str], cache: Cache, raw: RawSubscriber) -> None:
        self._number, self._keys, self._cache, self._raw = number, keys, cache, raw
        self._round = 0
        self._heard = Heard(number, busy=False)
        self._silent = self._deaf = False
        self._rest = threading.Event()
        self._work: list[asyncio.Task[None] | threading.Thread] = []
        note_drops(cache, lambda key: cache.peek(key) != self._round - 1, lambda: self._heard.dropped)

    async def prepare(self, round_number: int) -> bool:
        """Bring all keys into L1, with the values of the round before."""
        until = time.monotonic() + PATIENCE
        before = round_number - 1
        self._round = before  # what is heard meanwhile counts for nothing
        while not self._prepared(before):
            if time.monotonic() > until:
                return False
            if not self._deaf:
                await done(self._cache.get_many(self._keys))
            await asyncio.sleep(0.01)
        self._heard = Heard(self._number, busy=bool(self._work))
        self._raw.heard.clear()
        self._round = round_number
        return True

    def _prepared(self, before: int) -> bool:
        if self._deaf:  # then at least the message of these values is not taken for a later write's
            return len(self._raw.times()) == len(self._keys)
        return all(self._cache.peek(key) == before for key in self._keys)

    async def settle(self, _: int) -> Heard:
        """Wait until every write was heard of, by the raw subscriber too, unless it was silenced."""
        every = len(self._keys)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            heard, raw = len(self._heard.dropped), len(self._raw.heard)
            if (self._deaf or heard >= every) and (self._silent or raw >= every):
                break
            await asyncio.sleep(0.01)
        self._heard.raw = self._raw.times()
        if not self._deaf:
            self._heard.stale = sum(self._cache.peek(key, self._round) != self._round for key in self._keys)
        return self._heard

    async def compute(self, numbers: Sequence[int]) -> None:
        """Have a thread that computes in pure Python, if the own number is among these."""
        if self._number in numbers:
            thread = threading.Thread(target=self._compute, name="compute", daemon=True)
            thread.start()
            self._work.append(thread)

    async def read(self, numbers: Sequence[int]) -> None:
        """Read from L1 at full rate, in a thread or, on asyncio, in a task."""
        if self._number not in numbers:
            return
        if isinstance(self._cache, AsyncNearCache):
            self._work.append(asyncio.create_task(self._read_in_a_task(self._cache)))
        else:
            thread = threading.Thread(target=self._read_in_a_thread, args=(self._cache,), name="read", daemon=True)
            thread.start()
            self._work.append(thread)

    async def rest(self, _: int) -> None:
        """Do nothing any more."""
        self._rest.set()
        for work in self._work:
            if isinstance(work, threading.Thread):
                work.join()
            else:
                await work
        self._work.clear()
        self._rest.clear()

    async def silence(self, _: int) -> None:
        """End the raw subscriber."""
        self._silent = True
        self._raw.stop()

    async def deafen(self, _: int) -> None:
        """Close the cache and have the raw subscriber instead: what is left is what the machine can do."""
        self._deaf, self._silent = True, False
        await done(self._cache.close())
        self._raw.start()
        while not self._raw.subscribed:  # noqa: ASYNC110  # a thread does it
            await asyncio.sleep(0.01)

    def _compute(self) -> None:
        number = 1
        while not self._rest.is_set():
            for _ in range(1000):
                number = number * 69069 % 4294967291 + 1

    def _read_in_a_thread(self, cache: NearCache) -> None:
        while not self._rest.is_set():
            for key in self._keys:
                cache.peek(key)

    async def _read_in_a_task(self, cache: AsyncNearCache) -> None:
        while not self._rest.is_set():
            for key in self._keys:
                cache.peek(key)
            await asyncio.sleep(0)
