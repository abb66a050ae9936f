"""Full load under random faults for minutes, and what is left of it: ``python -m tests.torture.scenarios.soak``.

Two processes, one with threads and one with asyncio, call everything at full rate over a few thousand keys, through a
proxy that is cut, delayed and held; the server is paused, restarted empty, and closes connections. Then comes a quiet
end. It fails when memory is not flat from the first minute (after WARM_UP) to the last, when a thread, a task, a
socket, a flight, a waiter, an orphan or a lease is left, or when the cache has raised anything.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import redis

from nearcache.testing import FaultProxy, commands, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report, surroundings
from tests.support.tables import Table
from tests.torture.scenarios.soaked import LEASE, WORKERS, Census, Minute, work

WARM_UP = 20.0
"""Seconds of load before the first minute: L1 and pools fill."""
TOLERANCE = {"rss": (0.10, 4.0), "objects": (0.10, 2_000.0)}
"""How far the last minute's mean may be above the first's: this part of it, or this much, whichever is more."""
KINDS = tuple(WORKERS)
ANSWER_TIMEOUT = 60.0


class Faults:
    """One random fault after the other, each of which ends."""

    def __init__(self, server: EmbeddedServer, proxy: FaultProxy, seed: int) -> None:
        self._server, self._proxy = server, proxy
        self._chance = random.Random(seed)
        self.counts: dict[str, int] = {}

    def once(self) -> None:
        """A fault, and a while without."""
        self.one(
            [self.cut, self.cut_bus, self.delay, self.hold, self.kill_bus, self.kill_commands, self.pause, self.restart]
        )
        self._last(0.5, 3.0)

    def one(self, kinds: Sequence[Callable[[], None]]) -> None:
        """One of these, from its beginning to its end."""
        fault = self._chance.choice(kinds)
        self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
        fault()
        self._proxy.heal()

    def _last(self, least: float, most: float) -> None:
        time.sleep(self._chance.uniform(least, most))

    def cut(self) -> None:
        """Everything is closed and refused."""
        self._proxy.cut()
        self._last(0.05, 2.0)

    def cut_bus(self) -> None:
        """The subscribers' connections are closed."""
        self._proxy.cut_connections(subscribers)

    def delay(self) -> None:
        """Replies come late, some too late."""
        self._proxy.delay_replies(self._chance.uniform(0.02, 0.4))
        self._last(0.5, 2.0)

    def hold(self) -> None:
        """Nothing comes in one direction, on one kind of connection."""
        self._proxy.hold(self._chance.choice(("requests", "replies")), self._chance.choice((commands, subscribers)))
        self._last(0.2, 2.0)

    def kill_bus(self) -> None:
        """The server closes the subscribers' connections."""
        self._kill("pubsub")

    def kill_commands(self) -> None:
        """The server closes the others."""
        self._kill("normal")

    def pause(self) -> None:
        """The server stands still for a second."""
        self._server.pause()
        try:
            time.sleep(1.0)
        finally:
            self._server.resume()

    def restart(self) -> None:
        """A crash, and an empty server."""
        self._server.kill()
        self._last(0.0, 0.5)
        self._server.start()

    def _kill(self, kind: str) -> None:
        with redis.Redis(port=self._server.port) as client:
            client.client_kill_filter(_type=kind, skipme=True)


class Worker:
    """A process under load, from the other end of its pipe."""

    def __init__(self, kind: str, url: str, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.kind = kind
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=work, args=(kind, url, seed, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.before: Census = self.receive()
        self.idle: Census = self.ask("begin")
        self.minutes: list[Minute] = []

    def ask(self, order: str) -> Any:
        """Tell it, and wait for its answer."""
        self.pipe.send(order)
        return self.receive()

    def receive(self) -> Any:
        """Its next answer."""
        if not self.pipe.poll(ANSWER_TIMEOUT):
            raise RuntimeError(f"{self.kind} did not answer in {ANSWER_TIMEOUT:.0f} s")
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def mean(samples: Sequence[Census]) -> Census:
    """The mean of each figure."""
    return Census(**{one.name: sum(getattr(s, one.name) for s in samples) / len(samples) for one in fields(Census)})


def line(number: int, worker: Worker, minute: Minute) -> list[str]:
    """A minute as a row."""
    now = mean(minute.samples)
    most = {name: max(getattr(s, name) for s in minute.samples) for name in ("threads", "tasks", "sockets")}
    return [
        f"{number} {worker.kind}",
        f"{minute.calls:,}",
        f"{minute.hits / max(minute.calls, 1):.0%}",
        f"{now.rss:.1f}",
        f"{now.objects:,.0f}",
        f"{now.entries:,.0f}",
        f"{now.tables:,.0f}",
        *(f"{most[name]:.0f}" for name in most),
        f"{now.flights:.1f}",
        f"{now.waiters:.1f}",
        f"{now.unused_leases:.1f}",
        str(len(minute.raised)),
    ]


HEAD = (
    "minute",
    "calls",
    "L1 hits",
    "RSS MB",
    "objects",
    "entries",
    "tables",
    "threads",
    "tasks",
    "sockets",
    "flights",
    "waiters",
    "unused_leases",
    "raised",
)


def leases(server: EmbeddedServer) -> int:
    """Leases in Redis now."""
    with redis.Redis(port=server.port) as client:
        return sum(1 for _ in client.scan_iter("{soak:0}:l:*", count=1000))


def growth(worker: Worker) -> tuple[list[list[str]], list[str]]:
    """First minute against last, and what is too much."""
    first, last = mean(worker.minutes[0].samples), mean(worker.minutes[-1].samples)
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
    wrong = [
        f"{name} {getattr(rest, name):.0f}" for name in ("flights", "waiters", "unused_leases") if getattr(rest, name)
    ]
    wrong += [
        f"{name} {getattr(worker.idle, name):.0f} → {getattr(rest, name):.0f}"
        for name in ("threads", "tasks")
        if getattr(rest, name) > getattr(worker.idle, name)
    ]
    # A pool may keep one connection for each that ever used it: the load's threads, and the bus's, which gives back.
    if rest.sockets > worker.idle.sockets + WORKERS[worker.kind] + 1:
        wrong.append(f"sockets {worker.idle.sockets:.0f} → {rest.sockets:.0f}")
    wrong += [
        f"after close: {name} {getattr(worker.before, name):.0f} → {getattr(closed, name):.0f}"
        for name in ("threads", "tasks", "sockets", "files")
        if getattr(closed, name) > getattr(worker.before, name)
    ]
    raised = [one for minute in worker.minutes for one in minute.raised]
    wrong += [f"raised {len(raised)} times, first {raised[0]}"] if raised else []
    return [f"{worker.kind}: {one}" for one in wrong]


def soak(report: Report, minutes: int, seed: int, seconds: float = 60.0) -> bool:
    """Run, print and keep; whether nothing leaked."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        proxy = stack.enter_context(FaultProxy(server.port))
        workers = []
        for number, kind in enumerate(KINDS):
            workers.append(Worker(kind, proxy.url, seed + number))
            stack.callback(workers[-1].close)
        faults = Faults(server, proxy, seed)
        print("\n" + "  ".join(HEAD), flush=True)
        begun = time.monotonic() + min(WARM_UP, seconds)
        for number in range(minutes + 1):
            while time.monotonic() < begun + seconds * number:
                faults.once()
            for worker in workers:
                minute = worker.ask("minute")
                if number:  # the warm-up is number 0
                    worker.minutes.append(minute)
                print("  ".join(line(number, worker, minute)), flush=True)
        proxy.heal()
        return not settle(report, server, workers, faults.counts)


def settle(
    report: Report, server: EmbeddedServer, workers: Sequence[Worker], counts: Mapping[str, int], *, judged: bool = True
) -> list[str]:
    """The quiet end: what is left, and what grew, unless the run was too short for that to be ``judged``."""
    healthy = [worker.ask("end") for worker in workers]
    at_once = leases(server)
    until = time.monotonic() + LEASE + 1
    while (late := leases(server)) and time.monotonic() < until:
        time.sleep(0.1)
    rests = [worker.ask("census") for worker in workers]
    closes = [worker.ask("close") for worker in workers]
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


def main(arguments: list[str] | None = None) -> int:
    """Run as long as asked for; 0 only if nothing leaked."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.scenarios.soak", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--minutes", type=int, default=10, help="after the warm-up; 10 by default, 2 at least")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a minute is; shorter ones for a look")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of faults and load")
    asked = parser.parse_args(arguments)
    if asked.minutes < 2:
        parser.error(f"--minutes {asked.minutes}: the first is compared with the last, so at least 2")
    report = Report(surroundings())
    report.begin()
    print(f"seed:       {asked.seed}, {asked.minutes} minutes", flush=True)
    return 0 if soak(report, asked.minutes, asked.seed, asked.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
