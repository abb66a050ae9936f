"""The processes of the coherence run: each has a cache, does what it is told over a pipe, and notes what it hears."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from nearcache import AsyncNearCache, NearCache
from tests.support.processes import Cache, Crew, connected, done, serve
from tests.support.raw_subscriber import RawSubscriber, note_drops

KINDS = ("threads", "asyncio", "threads", "asyncio")
PATIENCE = 2.5
"""Seconds that a process waits for what it has not heard of yet: longer than max_staleness, after which nothing old may
be served, whatever was lost."""


@dataclass(frozen=True)
class Plan:
    """What a process is told at its start."""

    number: int
    url: str
    namespace: str
    keys: tuple[str, ...]
    pace: float
    breaking: Callable[[Any], None] | None = None

    def writes(self, round_number: int) -> tuple[str, ...]:
        """The keys that this process writes in a round: over the rounds every key has every writer."""
        return self.keys[(self.number + round_number) % len(KINDS) :: len(KINDS)]


@dataclass
class Ready:
    """How a process prepared."""

    stale: int = 0
    unprepared: int = 0


@dataclass
class Settled:
    """What a process did and heard in a round; times are CLOCK_MONOTONIC in ns, by key."""

    writes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """When a set was called, and when it returned."""
    dropped: dict[str, int] = field(default_factory=dict)
    """When L1 had applied the message of a write, and did not serve the old value."""
    raw: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    refused: int = 0


def crew_of(plans: Sequence[Plan]) -> Crew:
    """The processes of some plans."""
    return Crew(play, {f"instance-{plan.number}": (plan,) for plan in plans})


def play(plan: Plan, pipe: Connection) -> None:
    """A process from beginning to end."""
    asyncio.run(_work(plan, pipe))


async def _work(plan: Plan, pipe: Connection) -> None:
    make = NearCache if KINDS[plan.number] == "threads" else AsyncNearCache
    raw = RawSubscriber(plan.url, plan.namespace)
    try:
        # The server sends to its subscribers in some order: the raw one is before the cache's in half of the processes.
        if plan.number < len(KINDS) / 2:
            raw.start()
        async with connected(make, plan.url, namespace=plan.namespace, ttl=3600) as cache:
            raw.start()
            await serve(pipe, Instance(plan, cache, raw))
    finally:
        raw.stop()


class Instance:
    """One process's work. The value of a key is the number of the round in which it was written."""

    def __init__(self, plan: Plan, cache: Cache, raw: RawSubscriber) -> None:
        self._plan = plan
        self._cache = cache
        self._raw = raw
        self._round = 0
        self._settled = Settled()
        note_drops(cache, lambda key: cache.peek(key) != self._round - 1, lambda: self._settled.dropped)

    async def tamper(self, _: int) -> None:
        """Break the cache, if the plan says so."""
        if self._plan.breaking is not None:
            self._plan.breaking(self._cache)

    async def prepare(self, round_number: int) -> Ready:
        """Bring all keys into L1."""
        before = round_number - 1
        until = time.monotonic() + PATIENCE
        ready = Ready()
        while True:
            values = await done(self._cache.get_many(self._plan.keys))
            ready.stale = sum(values.get(key, before) != before for key in self._plan.keys)
            ready.unprepared = sum(self._cache.peek(key) != before for key in self._plan.keys)
            if not ready.unprepared or time.monotonic() > until:
                break
            await asyncio.sleep(0.01)
        self._round = round_number
        self._settled = Settled()
        self._raw.heard.clear()
        return ready

    async def write(self, round_number: int) -> None:
        """Set the own share of the keys."""
        for key in self._plan.writes(round_number):
            await asyncio.sleep(self._plan.pace * random.uniform(0.5, 1.5))
            sent = time.monotonic_ns()
            acknowledged = await done(self._cache.set(key, round_number))
            self._settled.writes[key] = sent, time.monotonic_ns()
            self._settled.refused += not acknowledged

    async def settle(self, round_number: int) -> Settled:
        """Wait until every write was heard of, the own ones too, and see what L1 serves."""
        every = len(self._plan.keys)
        until = time.monotonic() + PATIENCE
        while min(len(self._settled.dropped), len(self._raw.heard)) < every and time.monotonic() < until:  # noqa: ASYNC110  # threads fill both
            await asyncio.sleep(0.005)
        self._settled.raw = self._raw.times()
        self._settled.stale = sum(self._cache.peek(key, round_number) != round_number for key in self._plan.keys)
        return self._settled

    async def compare(self, round_number: int) -> int:
        """How many keys are not what was written last, from whichever tier."""
        values = await done(self._cache.get_many(self._plan.keys))
        return sum(values.get(key) != round_number for key in self._plan.keys)
