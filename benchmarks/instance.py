"""The processes of the coherence run: each has a cache, does what it is told over a pipe, and notes what it hears."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

import hiredis
import redis

from nearcache import AsyncNearCache, NearCache
from nearcache.protocol import messages
from nearcache.protocol.names import Names
from nearcache.transport import resp

KINDS = ("threads", "asyncio", "threads", "asyncio")
PATIENCE = 2.5
"""Seconds that a process waits for what it has not heard of yet: longer than max_staleness, after which nothing old may
be served, whatever was lost."""
ANSWER_TIMEOUT = 60.0
"""Seconds that the crew waits for a process."""

Cache = NearCache | AsyncNearCache


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


class Crew:
    """All processes; each runs ``work`` with its plan and a pipe."""

    def __init__(self, plans: Sequence[Any], work: Callable[[Any, Connection], None] | None = None) -> None:
        self._plans = plans
        self._work = work or play
        self._members: list[tuple[SpawnProcess, Connection]] = []

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        try:
            for plan in self._plans:
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=self._work, args=(plan, theirs), name=f"instance-{plan.number}", daemon=True
                )
                process.start()
                theirs.close()
                self._members.append((process, ours))
            self.ask("begin", 0)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, order: str, round_number: int) -> list[Any]:
        """Tell all of them, and wait for all answers: a barrier.

        Raises:
            RuntimeError: one has ended, or does not answer.
        """
        for _, pipe in self._members:
            pipe.send((order, round_number))
        answers = []
        for process, pipe in self._members:
            try:
                if not pipe.poll(ANSWER_TIMEOUT):
                    raise RuntimeError(f"{process.name} did not answer to {order} in {ANSWER_TIMEOUT} s")
                answers.append(pipe.recv())
            except EOFError:
                raise RuntimeError(f"{process.name} ended at {order}; its traceback is above") from None
        return answers

    def _end(self) -> None:
        for _, pipe in self._members:
            pipe.close()  # the end of the process's orders
        for process, _ in self._members:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def play(plan: Plan, pipe: Connection) -> None:
    """A process from beginning to end."""
    asyncio.run(_work(plan, pipe))


async def _work(plan: Plan, pipe: Connection) -> None:
    make = NearCache if KINDS[plan.number] == "threads" else AsyncNearCache
    cache: Cache = make.from_url(plan.url, namespace=plan.namespace, ttl=3600)
    raw = RawSubscriber(plan.url, plan.namespace)
    try:
        # The server sends to its subscribers in some order: the raw one is before the cache's in half of the processes.
        if plan.number < len(KINDS) / 2:
            raw.start()
        if not await done(cache.wait_healthy(10)):
            raise RuntimeError(f"{cache!r} did not become healthy")
        raw.start()
        instance = Instance(plan, cache, raw)
        while True:
            try:
                order, round_number = await received(pipe)
            except EOFError:
                break
            pipe.send(await getattr(instance, order)(round_number))
    finally:
        raw.stop()
        await done(cache.close())


async def done(answer: Any) -> Any:
    """What a method of either class gives: plain, or to be awaited."""
    return await answer if inspect.isawaitable(answer) else answer


async def received(pipe: Connection) -> tuple[str, int]:
    """The next order, while the loop goes on."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(pipe.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(pipe.fileno())
    order: tuple[str, int] = pipe.recv()
    return order


def note_drops(cache: Cache, gone: Callable[[str], bool], dropped: Callable[[], dict[str, int]]) -> None:
    """Take the time of each drop, right where messages are applied: on the bus's thread, or on the loop."""
    feed = cache._core.invalidation
    apply = feed.messages

    def applied(batch: Sequence[bytes]) -> Any:
        heard = apply(batch)
        now = time.monotonic_ns()
        for key in heard.keys:
            if gone(key):
                dropped().setdefault(key, now)
        return heard

    feed.messages = applied  # type: ignore[method-assign]


class Instance:
    """One process's work. The value of a key is the number of the round in which it was written."""

    def __init__(self, plan: Plan, cache: Cache, raw: RawSubscriber) -> None:
        self._plan = plan
        self._cache = cache
        self._raw = raw
        self._round = 0
        self._settled = Settled()
        note_drops(cache, lambda key: cache.peek(key) != self._round - 1, lambda: self._settled.dropped)

    async def begin(self, _: int) -> None:
        """Everybody is there."""

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


class RawSubscriber:
    """The least that can be done in Python: a thread, a blocking socket, hiredis; it notes times and does nothing."""

    def __init__(self, url: str, namespace: str) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.subscribed = False
        self._channel = Names(namespace).channel
        self._connection: Any = redis.Redis.from_url(url).connection_pool.make_connection()
        self._thread = self._new_thread()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="raw-subscriber", daemon=True)

    def start(self) -> None:
        """Subscribe; nothing happens when it was started already."""
        if self._thread.ident is not None:
            return
        self._connection.connect()
        self._socket = self._connection._sock
        self._socket.settimeout(None)
        self._socket.sendall(resp.pack((b"SUBSCRIBE", self._channel)))
        self._thread.start()

    def stop(self) -> None:
        """End the connection, and with it the thread; it can be started again."""
        if self._thread.is_alive():
            self._socket.shutdown(2)
            self._thread.join()
            self._thread, self.subscribed = self._new_thread(), False
        self._connection.disconnect()

    def times(self) -> dict[str, int]:
        """When each key was first heard of."""
        first: dict[str, int] = {}
        for when, data in list(self.heard):
            for key in messages.unpack(data).names:
                first.setdefault(key, when)
        return first

    def _run(self) -> None:
        reader = hiredis.Reader(notEnoughData=None)
        while data := self._socket.recv(65536):
            reader.feed(data)
            while (reply := reader.gets()) is not None:
                self.subscribed = True
                if reply[0] == b"message":
                    self.heard.append((time.monotonic_ns(), reply[2]))
