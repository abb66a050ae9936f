"""A whole fleet asks for one cold key at the same moment: how many loads there are, and when everybody has an answer.

Eight processes wait for a moment that all of them know, with 50 threads or 200 tasks each. Time is counted from that
moment, so that what the machine takes to wake 400 threads is in it. Every loader notes itself in Redis, by a connection
of its own, before it sleeps; so the loads of a process that is killed are counted too. Five kinds of round:

    together   get_or_set
    killed     the same, with a short lease; the process that loads is killed in the middle of it
    default    as killed, with the default wait_timeout: the others' patience ends when the lease does; it has no budget
    naive      the control of the loads: get, and whoever finds nothing calls the loader, and sets
    bare       the control of the times: no cache; everybody sleeps as long as the loader does
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import redis

from benchmarks.instance import Cache, done, received
from benchmarks.report import Report, Table
from benchmarks.timing import Spread
from benchmarks.trial import HEAD, MortalCrew, Took
from nearcache import AsyncNearCache, NearCache
from nearcache.remote.embedded import EmbeddedServer

PROCESSES = 8
CALLERS = {"threads": 50, "tasks": 200}
"""In each process."""
LOADER = 0.2
"""Seconds that a load takes."""
LEASE = 0.5
"""Seconds of the lease whose holder is killed."""
PATIENCE = 10.0
"""Seconds that the others wait for a load, however short the lease is."""
AHEAD = 1.0
"""Seconds until the moment that everybody waits for: threads are started meanwhile."""
TOGETHER, KILLED, DEFAULT, NAIVE, BARE = "together", "killed", "default", "naive", "bare"
MORTAL = (KILLED, DEFAULT)
LIMIT = 1.5
"""How many times as long as the loader the p99 may take."""


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
    cache: Cache = (NearCache if post.kind == "threads" else AsyncNearCache).from_url(
        post.url, namespace="stampede", ttl=60
    )
    with redis.Redis.from_url(post.url) as client:
        client.ping()
        caller = Caller(cache, client)
        try:
            if not await done(cache.wait_healthy(20)):
                raise RuntimeError(f"{cache!r} did not become healthy")
            while True:
                try:
                    order, moment = await received(pipe)
                except EOFError:
                    break
                pipe.send(await getattr(caller, order)(moment))
        finally:
            await done(cache.close())


class Caller:
    """One process's part."""

    def __init__(self, cache: Cache, client: Any) -> None:
        self._cache, self._client = cache, client

    async def begin(self, _: int) -> None:
        """It is there."""

    async def together(self, moment: int) -> Answers:
        """Everybody asks by get_or_set."""
        return await self._ask(moment, wait_timeout=PATIENCE)

    async def killed(self, moment: int) -> Answers:
        """The same, with a lease that ends soon."""
        return await self._ask(moment, lease=LEASE, wait_timeout=PATIENCE)

    async def default(self, moment: int) -> Answers:
        """The same, with as much patience as the lease is long."""
        return await self._ask(moment, lease=LEASE)

    async def _ask(self, moment: int, **options: Any) -> Answers:
        key = f"key:{moment}"
        if isinstance(self._cache, NearCache):
            cache = self._cache
            return self._in_threads(moment, lambda: cache.get_or_set(key, lambda: self._load(moment), **options))
        other = self._cache
        return await self._in_tasks(moment, lambda: other.get_or_set(key, lambda: self._load_async(moment), **options))

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

    def _load(self, moment: int) -> int:
        self._client.rpush(loads_of(moment), os.getpid())
        time.sleep(LOADER)
        return os.getpid()

    async def _load_async(self, moment: int) -> int:
        self._client.rpush(loads_of(moment), os.getpid())
        await asyncio.sleep(LOADER)
        return os.getpid()

    def _in_threads(self, moment: int, call: Callable[[], Any]) -> Answers:
        answers = Answers()

        def ask() -> None:
            time.sleep(max(0.0, (moment - time.monotonic_ns()) / 1e9))
            try:
                answers.values.append(call())
            except Exception as error:  # noqa: BLE001  # counted, and fails the run
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
            except Exception as error:  # noqa: BLE001  # as above
                answers.raised.append(repr(error))
            answers.took.append(time.monotonic_ns() - moment)

        await asyncio.gather(*(ask() for _ in range(CALLERS["tasks"])))
        return answers


@dataclass
class Round:
    """What happened: loads in the fleet, how many callers were left and answered with a loaded value, and when."""

    loads: int
    callers: int
    answered: int
    raised: list[str]
    took: list[int]


def run(crew: MortalCrew, client: Any, kind: str, order: str) -> Round:
    """One round."""
    moment = time.monotonic_ns() + int(AHEAD * 1e9)
    crew.tell(order, moment)
    if order in MORTAL:
        while not (pids := client.lrange(loads_of(moment), 0, -1)):
            if time.monotonic_ns() > moment + PATIENCE * 1e9:
                raise RuntimeError("nobody loads")
            time.sleep(0.005)
        time.sleep(LOADER / 2)
        crew.kill(int(pids[0]))
    answers: list[Answers] = crew.answers()
    loaders = [int(pid) for pid in client.lrange(loads_of(moment), 0, -1)]
    right = loaders[1:] if order in MORTAL else loaders
    return Round(
        loads=len(loaders),
        callers=len(answers) * CALLERS[kind],
        answered=sum(value in right or order == BARE for one in answers for value in one.values),
        raised=[error for one in answers for error in one.raised],
        took=[ns for one in answers for ns in one.took],
    )


def play(server: EmbeddedServer, client: Any, kind: str, rounds: int) -> dict[str, list[Round]]:
    """All rounds of threads, or of tasks."""
    posts = [Post(number, server.url, kind) for number in range(PROCESSES)]
    found: dict[str, list[Round]] = {TOGETHER: [], KILLED: [], DEFAULT: [], NAIVE: [], BARE: []}
    with MortalCrew(posts, attend) as crew:
        run(crew, client, kind, TOGETHER)  # connections, scripts, first calls
        for _ in range(rounds):
            for order in (TOGETHER, NAIVE, BARE):
                found[order].append(run(crew, client, kind, order))
    for _ in range(max(1, rounds // 3)):
        for order in MORTAL if rounds > 1 else (KILLED,):
            with MortalCrew(posts, attend) as crew:
                run(crew, client, kind, TOGETHER)
                found[order].append(run(crew, client, kind, order))
    return found


def wrong(kind: str, order: str, rounds: Sequence[Round]) -> list[str]:
    """What must not be."""
    expected = {TOGETHER: 1, KILLED: 2}.get(order)
    callers = (PROCESSES - (order in MORTAL)) * CALLERS[kind]
    found = []
    for one in rounds:
        if expected is not None and one.loads != expected:
            found.append(f"{kind}, {order}: {one.loads} loads, not {expected}")
        if one.answered != callers or one.raised:
            found.append(f"{kind}, {order}: {one.answered} of {callers} answered, {one.raised[:1]}")
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether there were no more loads than there must be, and everybody was answered."""
    rounds = 1 if report.quick else 6
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        found = {kind: play(server, client, kind, rounds) for kind in CALLERS}
    rows, faults, kept = [], [], {}
    for kind, orders in found.items():
        for order, played in orders.items():
            if not played:  # in the quick form
                continue
            loads = sorted(one.loads for one in played)
            answered = f"{sum(one.answered for one in played):,} of {sum(one.callers for one in played):,}"
            took = Took.of([ns for one in played for ns in one.took])
            name = f"{PROCESSES} × {CALLERS[kind]} {kind}, {order}"
            rows.append([name, str(len(played)), f"{loads[0]}–{loads[-1]}", answered, *took.cells()[1:]])
            faults += wrong(kind, order, played)
            kept[name] = [{**vars(one), "took": vars(Took.of(one.took))} for one in played]
            _judge(report, kind, order, played, loads[-1])
    notes = [
        f"loader {LOADER * 1e3:.0f} ms; times from the moment at which all ask; killed: the process that loads, in the",
        f"middle of it, with a lease of {LEASE} s, which the others have to wait for; naive: get, load, set; bare: no",
        "cache, everybody sleeps as long as the loader does: what is over its time there is the machine's",
        *faults,
    ]
    head = ["", "rounds", "loads", "answered", *HEAD[1:]]
    report.show(Table("A cold key that the whole fleet asks for", head, rows, notes))
    report.keep("stampede", kept)
    return not faults


def _judge(report: Report, kind: str, order: str, played: Sequence[Round], loads: int) -> None:
    """The lines of the budget; the controls have none."""
    if order not in (TOGETHER, KILLED):
        return
    who = f"{PROCESSES} × {CALLERS[kind]} {kind}"
    waits = 0.0 if order == TOGETHER else LEASE * 1e3
    spread = Spread.of([(Took.of(one.took).p99 - waits) / (LOADER * 1e3) for one in played])
    what = "a cold key" if order == TOGETHER else "the lease holder killed"
    report.budget(f"{what}, {who}: loads", loads, 1 if order == TOGETHER else 2, "loads")
    after = "" if order == TOGETHER else " after the lease's end"
    report.budget(f"{what}, {who}: p99{after}", spread, LIMIT, control="the loader's time")
