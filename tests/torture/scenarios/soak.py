"""A million operations with a fault every second, and what is left of them.

Two processes, one of four threads and one of 16 tasks, call everything through a proxy. Each second it is cut, delayed
or held, or the server closes connections, stands still, restarts empty, is emptied, or forgets its scripts; the fault
ends after half a second at most. The scenario fails when a caller sees an exception, when memory grows from the first
part of the run to the last, or when a thread, task, socket, flight, waiter, permit, refresh or lease is left. With
``--seconds`` it runs for so long, which may be hours, instead of for a number of operations.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import redis

from nearcache.testing import FaultProxy, commands, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.soaked import LEASE, WORKERS, Census, Second, work

OPERATIONS = 1_000_000
QUICK = 20_000
PARTS = 8
"""Of the run; the first is the warm-up, the second is compared with the last."""
LONGEST = 900.0
"""Seconds after which the run has failed, however many operations there were."""
BRIEFLY = 0.5
"""Seconds that a fault lasts at most."""
TOLERANCE = {"rss": (0.10, 4.0), "objects": (0.10, 2_000.0)}
"""How far the last part's mean may be above the first's: by this share of it, or by this much, whichever is more."""
NOTHING_LEFT = ("flights", "waiters", "unused_leases", "permits", "refreshes")
"""Of these none may be left at the quiet end."""
MIX = "60 % get, 30 % get_or_set (4 of 10 refreshing, stale or timed), 5 % set, 2 % delete, 2 % get_many, 1 % tags"


class Faults:
    """One random fault each second."""

    def __init__(self, server: EmbeddedServer, proxy: FaultProxy, seed: int) -> None:
        self._server, self._proxy = server, proxy
        self._chance = random.Random(seed)
        self.counts: dict[str, int] = {}
        self._kinds = (
            self.cut,
            self.cut_bus,
            self.delay,
            self.hold,
            self.kill_bus,
            self.kill_commands,
            self.pause,
            self.restart,
            self.flushall,
            self.script_flush,
        )

    def once(self) -> None:
        """One second: a fault, and the rest of the second without one."""
        ends = time.monotonic() + 1.0
        fault = self._chance.choice(self._kinds)
        self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
        fault()
        self._proxy.heal()
        time.sleep(max(0.0, ends - time.monotonic()))

    def _last(self, least: float = BRIEFLY / 5) -> None:
        time.sleep(self._chance.uniform(least, BRIEFLY))

    def cut(self) -> None:
        """Every connection is closed, and new ones are refused."""
        self._proxy.cut()
        self._last()

    def cut_bus(self) -> None:
        """The subscribers' connections are closed."""
        self._proxy.cut_connections(subscribers)

    def delay(self) -> None:
        """Replies come late, some too late."""
        self._proxy.delay_replies(self._chance.uniform(0.02, 0.4))
        self._last()

    def hold(self) -> None:
        """Nothing passes in one direction, on one kind of connection."""
        self._proxy.hold(self._chance.choice(("requests", "replies")), self._chance.choice((commands, subscribers)))
        self._last()

    def kill_bus(self) -> None:
        """The server closes the subscribers' connections."""
        self._ask(lambda client: client.client_kill_filter(_type="pubsub", skipme=True))

    def kill_commands(self) -> None:
        """The server closes the other connections."""
        self._ask(lambda client: client.client_kill_filter(_type="normal", skipme=True))

    def pause(self) -> None:
        """The server stands still."""
        self._server.pause()
        try:
            self._last()
        finally:
            self._server.resume()

    def restart(self) -> None:
        """The server crashes, and comes back empty."""
        self._server.kill()
        self._last(0.0)
        self._server.start()

    def flushall(self) -> None:
        """The server is emptied."""
        self._ask(lambda client: client.flushall())

    def script_flush(self) -> None:
        """The server forgets its scripts."""
        self._ask(lambda client: client.script_flush())

    def _ask(self, command: Any) -> None:
        with redis.Redis(port=self._server.port) as client:
            command(client)


@dataclass
class Worker:
    """What one process held and did."""

    kind: str
    before: Census
    idle: Census
    seconds: list[Second] = field(default_factory=list)

    def row(self) -> list[str]:
        """Its operations, L1 hits and exceptions, for the table."""
        calls, hits = (sum(getattr(one, name) for one in self.seconds) for name in ("calls", "hits"))
        raised = sum(len(one.raised) for one in self.seconds)
        return [f"{WORKERS[self.kind]} {self.kind}", f"{calls:,}", f"{hits / max(calls, 1):.0%}", str(raised)]


def parts(seconds: Sequence[Second], count: int) -> list[Second]:
    """So many parts of about the same length, each the sum of its seconds.

    >>> [one.calls for one in parts([Second(calls=number) for number in range(5)], 2)]
    [1, 9]
    """
    bounds = [len(seconds) * number // count for number in range(count + 1)]
    joined = []
    for begin, end in itertools.pairwise(bounds):
        own = seconds[begin:end]
        joined.append(
            Second(
                samples=[sample for one in own for sample in one.samples],
                calls=sum(one.calls for one in own),
                raised=[error for one in own for error in one.raised],
                hits=sum(one.hits for one in own),
            )
        )
    return joined


def mean(samples: Sequence[Census]) -> Census:
    """The mean of each figure."""
    return Census(**{one.name: sum(getattr(s, one.name) for s in samples) / len(samples) for one in fields(Census)})


def leases(server: EmbeddedServer) -> int:
    """Leases in Redis now."""
    with redis.Redis(port=server.port) as client:
        return sum(1 for _ in client.scan_iter("{soak:0}:l:*", count=1000))


def growth(worker: Worker) -> tuple[list[list[str]], list[str]]:
    """The first part beside the last, and what grew too much."""
    first, last = mean(worker.seconds[0].samples), mean(worker.seconds[-1].samples)
    rows, wrong = [], []
    for name, (part, much) in TOLERANCE.items():
        begin, end = getattr(first, name), getattr(last, name)
        allowed = max(begin * part, much)
        rows.append(
            [f"{worker.kind} {name}", f"{begin:,.1f}", f"{end:,.1f}", f"{end - begin:+,.1f}", f"{allowed:,.1f}"]
        )
        if end - begin > allowed:
            wrong.append(f"{worker.kind}: {name} grew from {begin:,.1f} to {end:,.1f}")
    return rows, wrong


def left(worker: Worker, rest: Census, closed: Census) -> list[str]:
    """What is left at the quiet end and after close."""
    wrong = [f"{name} {getattr(rest, name):.0f}" for name in NOTHING_LEFT if getattr(rest, name)]
    wrong += [
        f"{name} {getattr(worker.idle, name):.0f} → {getattr(rest, name):.0f}"
        for name in ("threads", "tasks")
        if getattr(rest, name) > getattr(worker.idle, name)
    ]
    # A pool may keep a connection for each thread or task that used it: those of the load, and the bus's own.
    if rest.sockets > worker.idle.sockets + WORKERS[worker.kind] + 1:
        wrong.append(f"sockets {worker.idle.sockets:.0f} → {rest.sockets:.0f}")
    wrong += [
        f"after close: {name} {getattr(worker.before, name):.0f} → {getattr(closed, name):.0f}"
        for name in ("threads", "tasks", "sockets", "files")
        if getattr(closed, name) > getattr(worker.before, name)
    ]
    raised = [one for second in worker.seconds for one in second.raised]
    wrong += [f"raised {len(raised)} times, first {raised[0]}"] if raised else []
    return [f"{worker.kind}: {one}" for one in wrong]


def settle(
    report: Report,
    server: EmbeddedServer,
    crew: Crew,
    workers: Sequence[Worker],
    counts: Mapping[str, int],
    *,
    judged: bool,
) -> list[str]:
    """The quiet end: what is left, and what grew, unless the run was too short for that to be ``judged``."""
    healthy = crew.ask("end")
    at_once = leases(server)
    until = time.monotonic() + LEASE + 1
    while (late := leases(server)) and time.monotonic() < until:
        time.sleep(0.1)
    rests: list[Census] = crew.ask("census")
    closes: list[Census] = crew.ask("close")
    rows: list[list[str]] = []
    wrong = [f"{late} leases outlived their time"] if late else []
    wrong += [] if all(healthy) else ["not healthy at the quiet end"]
    for worker, rest, closed in zip(workers, rests, closes, strict=True):
        grown, too_much = growth(worker)
        rows += grown
        wrong += (too_much if judged else []) + left(worker, rest, closed)
    report.show(Table("The first part against the last", ["", "first", "last", "growth", "allowed"], rows))
    names = [one.name for one in fields(Census)]
    stages = ("before", "idle", "quiet end", "closed")
    census = [
        [f"{worker.kind}, {stage}", *(f"{getattr(one, name):,.0f}" for name in names)]
        for worker, rest, closed in zip(workers, rests, closes, strict=True)
        for stage, one in zip(stages, (worker.before, worker.idle, rest, closed), strict=True)
    ]
    notes = [f"leases in Redis at the quiet end: {at_once}, after their time: {late}", f"faults: {dict(counts)}"]
    report.show(Table("What is left", ["", *names], census, [*notes, *(wrong or ["nothing leaked"])]))
    return wrong


def show(report: Report) -> bool:
    """Run, print and keep; whether nothing leaked, and callers saw no exception."""
    wanted = 0 if report.seconds else QUICK if report.quick else OPERATIONS
    seed = random.SystemRandom().randrange(10**6)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        proxy = stack.enter_context(FaultProxy(server.port))
        arguments = {kind: (kind, proxy.url, seed + number) for number, kind in enumerate(WORKERS)}
        crew = stack.enter_context(Crew(work, arguments))
        workers = [Worker(kind, *censuses) for kind, censuses in zip(WORKERS, crew.ask("begin"), strict=True)]
        faults = Faults(server, proxy, seed)
        began, calls = time.monotonic(), 0
        least = max(PARTS, report.seconds or 0)
        while (calls < wanted or len(workers[0].seconds) < least) and time.monotonic() < began + max(LONGEST, least):
            faults.once()
            for worker, second in zip(workers, crew.ask("second"), strict=True):
                worker.seconds.append(second)
                calls += second.calls
        took = time.monotonic() - began
        rows = [worker.row() for worker in workers]
        raised = [error for worker in workers for one in worker.seconds for error in one.raised]
        for worker in workers:
            worker.seconds = parts(worker.seconds, PARTS)[1:]
        wrong = settle(report, server, crew, workers, faults.counts, judged=not report.quick)
    count = sum(faults.counts.values())
    notes = [f"{calls:,} operations and {count} faults in {took:.0f} s, seed {seed}", MIX, *raised[:3]]
    if report.quick:
        notes.append("too short for the growth of memory to be judged")
    report.show(Table("Operations under faults", ["", "operations", "L1 hits", "exceptions"], rows, notes))
    report.keep(
        "faults",
        {"operations": calls, "faults": faults.counts, "seconds": took, "raised": raised, "wrong": wrong},
    )
    report.budget("operations under faults", calls, wanted, "operations", f"{count} faults", at_least=True)
    report.budget("operations under faults: exceptions seen by readers", len(raised), 0, "exceptions")
    report.budget("operations under faults: kinds of things left behind", len(wrong), 0, "kinds")
    return not wrong and not raised
