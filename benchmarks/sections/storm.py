"""200 instances on one server, in four processes: what their heartbeats cost, and how they all come back at once.

The buses are ended by the server (CLIENT KILL), the server is restarted, it is away for a while, and it is replaced by
hand behind Sentinel. Beside them somebody asks the server for PING, and notes the longest answer. From what one
heartbeat and one return cost the server, the table says what 1,000 instances would; that part is not measured. The last
table has the same two costs where a server has several buckets, as each primary of a cluster has.

All run on this machine: the instances' processes take its cores, and with them the delays are the machine's.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.sections.crowd import attend
from benchmarks.sections.fleet import cpu
from nearcache import Settings
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew
from tests.support.report import Report
from tests.support.sentinels import Group, group
from tests.support.tables import Table, figure, percentile

PROCESSES, EACH = 4, 50
INSTANCES = PROCESSES * EACH
PAPER = 1_000
"""Instances for which the server's part is worked out."""
SENTINELS = 3
BUCKETS, FEW = (1, 4, 8, 16), 8
"""Buckets on one server, as of a cluster of many primaries to one of one, and instances in each process for them."""
OFTEN = 0.4
"""Their max_staleness in seconds: so many heartbeats that a server's own work is little beside them."""
AWAY = 2.0
"""Seconds for which the server is away."""
BEATS = 4 / Settings().max_staleness
"""A second, of each instance."""
LONGEST = 10.0
"""Seconds after which all have to be proven again."""


class Prober(threading.Thread):
    """Asks the server again and again, and keeps the longest answer."""

    def __init__(self, port: int) -> None:
        super().__init__(name="storm-prober", daemon=True)
        self._port, self._ended, self.longest = port, threading.Event(), 0.0

    def run(self) -> None:
        """Until ``end``."""
        client = redis.Redis(port=self._port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        while not self._ended.wait(0.005):
            began = time.monotonic()
            try:
                client.ping()
            except redis.RedisError:  # it is away
                continue
            self.longest = max(self.longest, time.monotonic() - began)
        client.close()

    def end(self) -> float:
        """The longest answer in ms."""
        self._ended.set()
        self.join()
        return self.longest * 1e3


class Storm:
    """The instances, and what was measured."""

    def __init__(self, crew: Crew, port: int) -> None:
        self.crew, self.port = crew, port
        self.rows: list[list[str]] = []
        self.figures: dict[str, Any] = {}
        self.held = True

    def costs(self) -> tuple[float, int]:
        """Seconds of the server's processor time, and connections that it has taken."""
        with redis.Redis(port=self.port) as client:
            return cpu(client), int(client.info("stats")["total_connections_received"])

    def strike(self, name: str, work: Callable[[], int], *, fresh: bool = False) -> None:
        """Do what ends every bus, and wait until all are back.

        Args:
            name: of the row.
            work: returns the moment from which the way back counts.
            fresh: the server is another process afterwards, whose counters begin at 0.
        """
        spent, made = (0.0, 0) if fresh else self.costs()
        prober = Prober(self.port)
        prober.start()
        since = work()
        times = [when for whens in self.crew.ask("back", since) for when in whens]
        longest = prober.end()
        used, connections = self.costs()
        took = [(when - since) / 1e6 for when in times if when]
        self.held &= len(took) == INSTANCES and max(took) < LONGEST * 1e3
        points = [percentile(took, part) for part in (0.5, 0.99, 1.0)]
        cells = [*(f"{one:,.0f}" for one in points), f"{connections - made:,}", f"{(used - spent) * 1e3:,.0f}"]
        self.rows.append([name, f"{len(took)}", *cells, f"{longest:,.0f}"])
        self.figures[name] = {
            "ms": points,
            "back": len(took),
            "connections": connections - made,
            "server ms": (used - spent) * 1e3,
            "longest PING, ms": longest,
        }
        time.sleep(1.0)  # the next storm begins in the calm


def show(report: Report) -> bool:
    """Measure, print and keep; whether all came back."""
    seconds, rounds = (3.0, 1) if report.quick else (8.0, 3)
    beats = INSTANCES * BEATS * seconds
    own = [0.0]
    with EmbeddedServer() as server:
        alone = _spent([server.port], lambda: time.sleep(seconds))
        with _crew(server.url) as crew:
            storm = Storm(crew, server.port)
            beat = _spent([server.port], lambda: own.extend(crew.ask("idle", seconds))) - alone
            for number in range(rounds):
                storm.strike(f"buses ended by the server, {number + 1}", lambda: _end_buses(server.port))
            returned = statistics.median(one["server ms"] for one in storm.figures.values()) / INSTANCES
            storm.strike("server restarted", lambda: _restart(server, 0.0), fresh=True)
            storm.strike(f"server away for {AWAY:g} s", lambda: _restart(server, AWAY), fresh=True)
    with group(sentinels=SENTINELS) as watched:
        ports = [one.port for one in watched.sentinels]
        alone = _spent(ports, lambda: time.sleep(seconds))
        with _crew(watched.url) as crew:
            behind = Storm(crew, watched.primary.port)
            asked = _spent(ports, lambda: crew.ask("idle", seconds)) - alone
            behind.strike("replaced by hand, Sentinel", lambda: _replace(behind, watched), fresh=True)
    costs = {
        "heartbeat": beat / beats * 1e6,
        "heartbeat, instance": sum(own) / beats * 1e6,
        "return": returned * 1e3,
        "question": asked / beats * 1e6,
    }
    notes = [
        f"{INSTANCES} instances of asyncio in {PROCESSES} processes beside the server, {os.cpu_count()} cores in all",
        "ms: from the moment at which the server can be reached; to the new one from the order to Sentinel on",
        "server: ms of its processor time, of which it has one core",
    ]
    head = ["what happened", "back", "p50 ms", "p99 ms", "last ms", "connections", "server ms", "longest PING ms"]
    report.show(Table(f"{INSTANCES} instances come back", head, [*storm.rows, *behind.rows], notes))
    report.show(_on_paper(costs))
    by_buckets = {buckets: _of_buckets(buckets, seconds, rounds) for buckets in BUCKETS}
    report.show(_buckets_of(by_buckets))
    report.keep("storm", {"µs": costs, "µs by buckets": by_buckets, **storm.figures, **behind.figures})
    return storm.held and behind.held


@contextmanager
def _crew(url: str, each: int = EACH, **options: Any) -> Iterator[Crew]:
    with Crew(attend, {f"crowd-{number}": (url, each, options) for number in range(PROCESSES)}) as crew:
        if sum(crew.ask("warm")) != PROCESSES * each:
            raise RuntimeError("an instance does not read what another one has set")
        yield crew


def _of_buckets(buckets: int, seconds: float, rounds: int) -> tuple[float, float]:
    """µs of a server with so many buckets for one heartbeat of an instance, and for its return."""
    instances = PROCESSES * FEW
    with EmbeddedServer() as server:
        alone = _spent([server.port], lambda: time.sleep(seconds))
        with _crew(server.url, FEW, buckets=buckets, max_staleness=OFTEN) as crew:
            beats = _spent([server.port], lambda: crew.ask("idle", seconds)) - alone
            returns = [
                _spent([server.port], lambda: crew.ask("back", _end_buses(server.port))) for _ in range(rounds + 2)
            ]
    return beats / (instances * 4 / OFTEN * seconds) * 1e6, statistics.median(returns) / instances * 1e6


def _buckets_of(costs: Mapping[int, tuple[float, float]]) -> Table:
    rows = [[f"{buckets}", figure(beat), figure(back)] for buckets, (beat, back) in costs.items()]
    notes = [f"µs of the server's processor time for each of {PROCESSES * FEW} instances"]
    return Table("Heartbeats and returns by buckets", ["buckets", "a heartbeat", "a return"], rows, notes)


def _spent(ports: Sequence[int], work: Callable[[], object]) -> float:
    """Seconds of processor time that some servers take together while something is done."""

    def so_far() -> float:
        total = 0.0
        for port in ports:
            with redis.Redis(port=port) as client:
                total += cpu(client)
        return total

    before = so_far()
    work()
    return so_far() - before


def _end_buses(port: int) -> int:
    with redis.Redis(port=port) as client:
        since = time.monotonic_ns()
        client.client_kill_filter(_type="pubsub")
    return since


def _restart(server: EmbeddedServer, away: float) -> int:
    server.kill()
    time.sleep(away)
    server.start()
    return time.monotonic_ns()


def _replace(storm: Storm, watched: Group) -> int:
    since = time.monotonic_ns()
    watched.fail_over()
    storm.port = watched.primary.port
    return since


def _on_paper(costs: Mapping[str, float]) -> Table:
    beat, own, returned, asked = costs.values()
    rows = []
    for count in (INSTANCES, PAPER):
        rate = count * BEATS
        shares = [f"{rate * beat / 1e6:.1%}", f"{count * returned / 1e6:.2f}", f"{rate * asked / 1e6 / SENTINELS:.1%}"]
        rows.append([f"{count:,}", figure(rate), *shares])
    notes = [
        f"a heartbeat: {beat:.0f} µs of the server, {own:.0f} µs of an instance",
        f"a return: {returned:.0f} µs of the server; a question to Sentinel: {asked:.0f} µs, shared by {SENTINELS}",
        f"{PAPER:,} instances are worked out, not measured",
    ]
    head = ["instances", "heartbeats/s", "server's core", "s of it for all to return", "core of a Sentinel"]
    return Table("Heartbeats and returns on paper", head, rows, notes)
