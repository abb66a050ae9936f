"""get_or_set_many from many processes, whose keys overlap: each key is loaded once, and everybody is answered.

Eight processes, half of them with threads and half with tasks, read at one moment. Each reader asks for 100 keys of
200, in an order of its own. Loaders note what they load in Redis, by a connection of their own. Rounds:

    together   get_or_set_many
    bus cut    the same while all subscribed connections are cut again and again
    failing    the same while every third call of a loader raises, after it has noted its keys: whoever waits takes over
    naive      the control of the loads: get_many, load what is missing, set_many
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import redis

from nearcache import AsyncNearCache, NearCache
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, Crew, connected, done, loader_of, pause, serve, side_by_side
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.operations import BUS_CUT, trouble

PROCESSES, READERS = 8, 4
KEYS, EACH = 200, 100
LOADER = 0.1
"""Seconds that a load takes."""
AHEAD = 0.3
"""Seconds until the moment at which all read."""
TOGETHER, FAILING, NAIVE = "together", "failing", "naive"


class Fails(LookupError):
    """What a loader raises."""


@dataclass
class Told:
    """What the readers of a process were told."""

    answered: int = 0
    calls: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0


async def attend(number: int, url: str, proxied: str, pipe: Connection) -> None:
    """A process from beginning to end."""
    make = NearCache if number % 2 else AsyncNearCache
    with redis.Redis.from_url(url) as client:
        client.ping()
        async with connected(make, proxied, namespace="many", ttl=60, redis_timeout=2, reconnect_max=0.05) as cache:
            await serve(pipe, Reader(cache, client))


class Reader:
    """One process's part."""

    def __init__(self, cache: Cache, client: Any) -> None:
        self._cache: Any = cache
        self._client = client
        self._told = Told()

    async def read(self, order: str, kind: str, moment: float) -> Told:
        """Read from several threads or tasks at the moment."""
        self._told = Told()
        await side_by_side(self._cache, [self._read(order, kind, moment) for _ in range(READERS)])
        return self._told

    async def _read(self, order: str, kind: str, moment: float) -> None:
        names, told = [f"{order}:{number}" for number in random.sample(range(KEYS), EACH)], self._told
        await pause(self._cache, max(0.0, moment - time.monotonic()))
        try:
            values = await (self._naive(order, names) if kind == NAIVE else self._together(order, names, kind))
        except Fails:
            told.failed += 1
        except Exception as error:  # whatever it is, it is a violation
            told.wrong.append(repr(error))
        else:
            right = values == {name: f"of {name}" for name in names}
            told.answered += right  # nothing is called in between, so that no other thread's count is lost
        told.longest = max(told.longest, time.monotonic() - moment)

    async def _together(self, order: str, names: list[str], kind: str) -> dict[str, str]:
        load = loader_of(self._cache, lambda keys: (self._note(order, keys, fails=kind == FAILING), LOADER))
        values: dict[str, str] = await done(self._cache.get_or_set_many(names, load, lease=30))
        return values

    async def _naive(self, order: str, names: list[str]) -> dict[str, str]:
        found: dict[str, str] = await done(self._cache.get_many(names))
        missing = [name for name in names if name not in found]
        if missing:
            loaded = self._note(order, missing, fails=False)
            await pause(self._cache, LOADER)
            await done(self._cache.set_many(loaded))
            found |= loaded
        return found

    def _note(self, order: str, keys: list[str], *, fails: bool) -> dict[str, str]:
        self._told.calls += 1
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hincrby(f"loads:{order}", key)
            pipe.incr(f"calls:{order}")
            calls = pipe.execute()[-1]
        if fails and calls % 3 == 0:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hincrby(f"loads:{order}", key, -1)  # nothing came of it
                pipe.execute()
            raise Fails(order)
        return {key: f"of {key}" for key in keys}


@dataclass
class Round:
    """What happened in one round."""

    loads: dict[str, int]
    told: Sequence[Told]

    @property
    def most(self) -> int:
        """The most loads of one key."""
        return max(self.loads.values(), default=0)

    def faults(self, kind: str) -> list[str]:
        """What must not be."""
        faults = [f"{kind}: {error}" for one in self.told for error in one.wrong]
        answered, failed = (sum(getattr(one, what) for one in self.told) for what in ("answered", "failed"))
        if answered + failed != PROCESSES * READERS or (failed and kind != FAILING):
            faults.append(f"{kind}: {answered} of {PROCESSES * READERS} readers got all values, {failed} an error")
        if kind != NAIVE:
            twice = [key for key, loads in self.loads.items() if loads > 1]
            faults += [f"{kind}: {key} was loaded {self.loads[key]} times" for key in twice[:5]]
        return faults


def play(rounds: int) -> dict[str, list[Round]]:
    """All rounds of each kind."""
    found: dict[str, list[Round]] = {TOGETHER: [], BUS_CUT: [], FAILING: [], NAIVE: []}
    with (
        EmbeddedServer() as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
        FaultProxy(server.port) as proxy,
        Crew(attend, {str(number): (number, server.url, proxy.url) for number in range(PROCESSES)}) as crew,
    ):
        for number in range(rounds):
            for kind, played in found.items():
                order = f"{kind}:{number}"
                with trouble(proxy, kind):
                    told = crew.ask("read", order, kind, time.monotonic() + AHEAD)
                loads = client.hgetall(f"loads:{order}")
                played.append(Round({str(key): int(count) for key, count in loads.items()}, told))
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether each key was loaded once, and every reader answered."""
    found = play(2 if report.quick else 10)
    rows: list[list[str]] = []
    faults: list[str] = []
    kept: dict[str, Any] = {}
    for kind, played in found.items():
        told = [told for one in played for told in one.told]
        keys, loads = sum(len(one.loads) for one in played), sum(sum(one.loads.values()) for one in played)
        counts = [str(sum(getattr(one, what) for one in told)) for what in ("calls", "answered", "failed")]
        longest, most = max(one.longest for one in told), max(one.most for one in played)
        rows.append([kind, f"{keys:,}", f"{loads:,}", str(most), *counts, f"{longest:.2f}"])
        faults += [fault for one in played for fault in one.faults(kind)]
        kept[kind] = [{"loads": one.loads, "told": list(map(vars, one.told))} for one in played]
    if max(one.most for one in found[NAIVE]) < 2:
        faults.append("the control shows nothing: without single flight no key was loaded twice")
    head = ["", "keys", "loads", "of one key at most", "calls", "answered", "raised", "longest s"]
    notes = [f"{PROCESSES} processes × {READERS} readers, {EACH} of {KEYS} keys each; naive: the control", *faults[:20]]
    report.show(Table("Overlapping keys that the whole fleet asks for", head, rows, notes))
    report.keep("many", kept)
    for kind in (TOGETHER, BUS_CUT):
        report.budget(f"loads of one key, {kind}", max(one.most for one in found[kind]), 1, "loads")
    return not faults
