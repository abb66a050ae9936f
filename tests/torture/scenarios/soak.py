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
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields

import redis

from nearcache.testing import FaultProxy, commands, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture import faults
from tests.torture.faults import REST, Fault, Stage, Steps, play
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


def cut(stage: Stage) -> Steps:
    """Every connection is closed, and new ones are refused."""
    stage.near.cut()
    yield REST


def delayed(stage: Stage) -> Steps:
    """Replies come late, some too late."""
    stage.near.delay_replies(stage.rng.uniform(0.02, 0.4))
    yield REST


def held(stage: Stage) -> Steps:
    """Nothing passes in one direction, on one kind of connection."""
    stage.near.hold(stage.rng.choice(("requests", "replies")), stage.rng.choice((commands, subscribers)))
    yield REST


def kill_commands(stage: Stage) -> Steps:
    """The server closes the connections that are no subscribers'."""
    with stage.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    yield 0.0


FAULTS: Sequence[Fault] = (
    *(cut, delayed, held, kill_commands),
    *(faults.bus_cut, faults.kill_pubsub, faults.stopped, faults.killed, faults.flushall),
)


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
        counts: Counter[str] = Counter()
        stage = Stage("valkey", server, proxy, proxy, random.Random(seed), BRIEFLY, stack)
        began, calls = time.monotonic(), 0
        least = max(PARTS, report.seconds or 0)
        while (calls < wanted or len(workers[0].seconds) < least) and time.monotonic() < began + max(LONGEST, least):
            ends = time.monotonic() + 1.0
            fault = stage.rng.choice(FAULTS)
            counts[fault.__name__] += 1
            stage.seconds = stage.rng.uniform(BRIEFLY / 5, BRIEFLY)
            play(fault, stage)
            time.sleep(max(0.0, ends - time.monotonic()))
            for worker, second in zip(workers, crew.ask("second"), strict=True):
                worker.seconds.append(second)
                calls += second.calls
        took = time.monotonic() - began
        rows = [worker.row() for worker in workers]
        raised = [error for worker in workers for one in worker.seconds for error in one.raised]
        for worker in workers:
            worker.seconds = parts(worker.seconds, PARTS)[1:]
        wrong = settle(report, server, crew, workers, counts, judged=not report.quick)
    count = sum(counts.values())
    notes = [f"{calls:,} operations and {count} faults in {took:.0f} s, seed {seed}", MIX, *raised[:3]]
    if report.quick:
        notes.append("too short for the growth of memory to be judged")
    report.show(Table("Operations under faults", ["", "operations", "L1 hits", "exceptions"], rows, notes))
    report.keep(
        "faults",
        {"operations": calls, "faults": counts, "seconds": took, "raised": raised, "wrong": wrong},
    )
    report.budget("operations under faults", calls, wanted, "operations", f"{count} faults", at_least=True)
    report.budget("operations under faults: exceptions seen by readers", len(raised), 0, "exceptions")
    report.budget("operations under faults: kinds of things left behind", len(wrong), 0, "kinds")
    return not wrong and not raised
