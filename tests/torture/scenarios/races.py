"""The two races of every near cache, on a real server, with the guard off and on: the fill race and the lease race.

Fill race: a reader's GET is answered, the answer is late, a foreign write and its message come before it. Without the
snapshot, L1 then keeps the old value, and nothing will ever drop it.

Lease race: a loader reads the old row, a foreign write is acknowledged, the fill arrives after it. Without the fill's
look at lease and floor, Redis then keeps the old value until its ttl ends.

A guard is taken away here, by a subclass or a changed script; the library has no switch for it. Each "off" line must
show its race: a check that cannot fail is no check.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import redis

from nearcache import NearCache, base
from nearcache.protocol import scripts
from nearcache.testing import FaultProxy, commands
from nearcache.transport.embedded import EmbeddedServer
from tests.support.ablations import rules
from tests.support.ablations.guards import FILLS_BELOW_FLOORS, FILLS_WITHOUT_LEASE, changed
from tests.support.report import Report
from tests.support.tables import Table
from tests.support.waiting import wait_until

NAMESPACE = "races"
ROUNDS = 20
PATIENCE = 10.0
"""Seconds; what takes longer has failed."""
SETTINGS: dict[str, Any] = {"namespace": NAMESPACE, "ttl": 60, "redis_timeout": 5.0, "max_staleness": 20.0}
"""Replies are held back for a while, and must still arrive; nor may L1's proof run out meanwhile."""

OLD, NEW = "old", "new"


def snapshot_off() -> AbstractContextManager[object]:
    """Caches made now put without a look at what was written since their snapshot."""
    return mock.patch.object(base, "Tier", rules.NO_SNAPSHOT.tier)


def checks_off() -> AbstractContextManager[object]:
    """Fills look neither at lease nor at floor."""
    return mock.patch.object(scripts, "FILL", changed(scripts.FILL, FILLS_BELOW_FLOORS + FILLS_WITHOUT_LEASE))


@dataclass
class Stage:
    """A reader behind a proxy, a writer beside it, and a client that looks at the server itself."""

    proxy: FaultProxy
    reader: NearCache
    writer: NearCache
    client: Any

    def executed(self, command: str) -> int:
        """How often the server has executed a command."""
        return int(self.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


@contextmanager
def stage(server: EmbeddedServer) -> Iterator[Stage]:
    """Both caches connected and proven."""
    with (
        FaultProxy(server.port) as proxy,
        NearCache.from_url(proxy.url, **SETTINGS) as reader,
        NearCache.from_url(server.url, **SETTINGS) as writer,
        redis.Redis(port=server.port) as client,
    ):
        for cache in (reader, writer):
            if not cache.wait_healthy(PATIENCE):
                raise TimeoutError(f"{cache!r} is not proven")
            cache.get("first")  # a connection is made, so that what is held back later is the command
        yield Stage(proxy, reader, writer, client)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Something that a thread of its own does meanwhile."""
    thread = threading.Thread(target=work, name="races")
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)


def fill_race(on: Stage, key: str) -> bool:
    """One round; whether the reader's L1 keeps the old value."""
    on.writer.set(key, OLD)
    gets, heard = on.executed("mget"), on.reader.stats().invalidations_received
    on.proxy.hold("replies", commands)
    try:
        with beside(lambda: on.reader.get(key)):
            wait_until(lambda: on.executed("mget") > gets)
            on.writer.set(key, NEW)
            wait_until(lambda: on.reader.stats().invalidations_received > heard)
            on.proxy.release()
    finally:
        on.proxy.release()
    return on.reader.peek(key) == OLD


def lease_race(on: Stage, key: str, write: Callable[[NearCache, str], object]) -> bool:
    """One round; whether Redis keeps the old value after an acknowledged write."""
    read = threading.Event()

    def loader() -> str:
        row = OLD
        on.proxy.hold("requests", commands)  # the fill is on its way, and late
        read.set()
        return row

    try:
        with beside(lambda: on.reader.get_or_set(key, loader)):
            if not read.wait(PATIENCE):
                raise TimeoutError("the loader was not called")
            write(on.writer, key)
            on.proxy.release()
    finally:
        on.proxy.release()
    on.writer.clear_local()
    return on.writer.get(key) == OLD


@dataclass(frozen=True)
class Race:
    """A race, its guard, and how to take it away."""

    name: str
    guard: str
    off: Callable[[], AbstractContextManager[object]]
    play: Callable[[Stage, str], bool]


RACES = (
    Race("fill race, foreign set", "snapshot", snapshot_off, fill_race),
    Race("lease race, delete", "lease", checks_off, lambda on, key: lease_race(on, key, NearCache.delete)),
    Race("lease race, set", "lease", checks_off, lambda on, key: lease_race(on, key, lambda c, k: c.set(k, NEW))),
    Race("lease race, clear", "floor", checks_off, lambda on, key: lease_race(on, key, lambda c, _: c.clear())),
)


def lost(server: EmbeddedServer, race: Race, rounds: int, *, guarded: bool) -> int:
    """In how many rounds the old value stayed."""
    with nullcontext() if guarded else race.off(), stage(server) as on:
        return sum(race.play(on, f"{race.name}:{guarded}:{number}") for number in range(rounds))


def show(report: Report) -> bool:
    """Play each race with its guard off and on: off must show it, on must never."""
    rounds = 3 if report.quick else ROUNDS
    rows: list[list[str]] = []
    wrong: list[str] = []
    with EmbeddedServer() as server:
        for race in RACES:
            off, on = (lost(server, race, rounds, guarded=guarded) for guarded in (False, True))
            rows.append([race.name, race.guard, f"{off}/{rounds}", f"{on}/{rounds}"])
            if not off:
                wrong.append(f"{race.name}: with the {race.guard} off the race does not show, so this proves nothing")
            if on:
                wrong.append(f"{race.name}: with the {race.guard} on an old value stayed")
    notes = wrong or ["rounds in which an old value stayed; off must show the race, on must never"]
    report.show(Table("Races", ["race", "guard", "off", "on"], rows, notes))
    report.keep("races", {"rows": rows})
    return not wrong
