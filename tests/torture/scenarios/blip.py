"""A bus that is lost and found: with no write meanwhile L1 keeps its entries, with one meanwhile nothing stale is left.

Two kinds of round, for both classes, one after the other on the same instance:

    quiet   CLIENT KILL of every subscriber, and nothing is written. After the return, every entry is read: a hit of L1
            was kept. At least KEPT of them must be, and nothing may have been flushed.
    write   the reader's bus is cut and held away by a proxy, while another instance writes some of the keys. After the
            return, every key is read by peek and by get: neither may give a value older than the last acknowledged one.

The control: the round with a write must flush, else the cut was none; and before each round all entries are hits.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from nearcache import AsyncNearCache, Connected, Disconnected, NearCache
from nearcache.testing import FaultProxy, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done
from tests.support.report import Report
from tests.support.tables import Table
from tests.support.waiting import Heard, until

ENTRIES = 1_000
WRITTEN = 10
"""Keys that are written while the bus is away."""
KEPT = 0.99
PATIENCE = 10.0
KEYS = tuple(f"key:{number}" for number in range(ENTRIES))
SETTINGS: dict[str, Any] = {"namespace": "blip", "ttl": 3600}


@dataclass
class Outcome:
    """What the rounds of one kind and class found."""

    rounds: int = 0
    kept: list[int] = field(default_factory=list)
    """Entries that L1 still had, per round."""
    flushes: int = 0
    stale: int = 0
    away: list[float] = field(default_factory=list)
    """Milliseconds from the cut until L1 was proven again."""


class Stage:
    """A reader behind a proxy, a writer that goes past it, and a client that looks at the server itself."""

    def __init__(self, reader: Cache, writer: NearCache, proxy: FaultProxy, client: Any) -> None:
        self.reader, self.writer, self.proxy, self.client = reader, writer, proxy, client
        self.heard = Heard(reader)
        self.last = 0
        self.expected = dict.fromkeys(KEYS, 0)

    async def prepare(self) -> None:
        """Every key is written anew, and is in the reader's L1."""
        self.last += 1
        self.expected = dict.fromkeys(KEYS, self.last)
        if not await asyncio.to_thread(self.writer.set_many, self.expected):
            raise RuntimeError("the values were not acknowledged")
        deadline = time.monotonic() + PATIENCE
        while await done(self.reader.get_many(KEYS)) != self.expected or self.hits() < ENTRIES:
            if time.monotonic() > deadline:
                raise TimeoutError(f"L1 has {self.hits()} of {ENTRIES} entries")
        self.heard.all.clear()

    def hits(self) -> int:
        """How many keys L1 serves with the value that was written last; looked up, never asked for."""
        return sum(self.reader.peek(key) == value for key, value in self.expected.items())

    async def back(self, since: float, outcome: Outcome) -> None:
        """Wait until the bus has been lost and L1 is proven again."""
        await until(lambda: self.heard.of(Disconnected))
        await until(lambda: self.heard.of(Connected) and self.reader.healthy)
        outcome.away.append((time.monotonic() - since) * 1e3)

    async def quiet(self, outcome: Outcome) -> None:
        """The server closes the bus; nobody writes."""
        await self.prepare()
        flushes, hits = self.reader.stats().flushes, self.reader.stats().l1_hits
        since = time.monotonic()
        self.client.client_kill_filter(_type="pubsub")
        await self.back(since, outcome)
        for key in KEYS:
            outcome.stale += await done(self.reader.get(key)) != self.expected[key]
        outcome.kept.append(self.reader.stats().l1_hits - hits)
        outcome.flushes += self.reader.stats().flushes - flushes

    async def write(self, outcome: Outcome) -> None:
        """The bus is cut and can't come back until another instance has written."""
        await self.prepare()
        flushes = self.reader.stats().flushes
        self.proxy.hold("replies", subscribers)  # of those that come, too: their confirmation is late
        since = time.monotonic()
        self.proxy.cut_connections(subscribers)
        await until(lambda: self.heard.of(Disconnected))
        self.last += 1
        written = dict.fromkeys(KEYS[:WRITTEN], self.last)
        if not await asyncio.to_thread(self.writer.set_many, written):
            raise RuntimeError("the write was not acknowledged")
        self.expected |= written
        self.proxy.release()
        await self.back(since, outcome)
        outcome.kept.append(self.hits())
        for key, value in self.expected.items():
            outcome.stale += self.reader.peek(key, value) != value
            outcome.stale += await done(self.reader.get(key)) != value
        outcome.flushes += self.reader.stats().flushes - flushes


async def play(server: EmbeddedServer, make: type[Cache], rounds: int) -> dict[str, Outcome]:
    """All rounds of a class."""
    outcomes = {"quiet": Outcome(), "write": Outcome()}
    with (
        FaultProxy(server.port) as proxy,
        redis.Redis(port=server.port) as client,
        NearCache.from_url(server.url, **SETTINGS) as writer,
    ):
        async with connected(make, proxy.url, **SETTINGS) as reader:
            stage = Stage(reader, writer, proxy, client)
            for _ in range(rounds):
                for name, outcome in outcomes.items():
                    await getattr(stage, name)(outcome)
                    outcome.rounds += 1
    return outcomes


def wrong(name: str, outcome: Outcome) -> list[str]:
    """What must not be."""
    found = [f"{outcome.stale} stale values"] if outcome.stale else []
    if name == "quiet":
        if min(outcome.kept) < KEPT * ENTRIES:
            found.append(f"only {min(outcome.kept)} of {ENTRIES} entries kept")
        if outcome.flushes:
            found.append(f"{outcome.flushes} flushes without a write")
    elif outcome.flushes < outcome.rounds:
        found.append(f"only {outcome.flushes} flushes in {outcome.rounds} rounds with a lost message")
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether everything was kept and nothing stale."""
    rounds = 5 if report.quick else 20
    rows, faults, figures = [], [], {}
    with EmbeddedServer() as server:
        for make in (NearCache, AsyncNearCache):
            for name, outcome in asyncio.run(play(server, make, rounds)).items():
                rows.append(
                    [
                        f"{make.__name__}, {name}",
                        str(outcome.rounds),
                        f"{min(outcome.kept)}–{max(outcome.kept)}",
                        str(outcome.flushes),
                        str(outcome.stale),
                        f"{min(outcome.away):.0f}–{max(outcome.away):.0f}",
                    ]
                )
                faults += [f"{make.__name__}, {name}: {what}" for what in wrong(name, outcome)]
                figures[f"{make.__name__}, {name}"] = vars(outcome)
    notes = faults or [
        f"quiet: at least {KEPT:.0%} must be kept, and 0 flushes; write: one flush a round, as {WRITTEN} keys were",
        "written while the bus was away; stale must be 0 in both",
    ]
    head = ["", "rounds", "entries kept", "flushes", "stale", "ms away"]
    report.show(Table(f"A lost bus and an L1 of {ENTRIES:,} entries", head, rows, notes))
    report.keep("blip", figures)
    return not faults
