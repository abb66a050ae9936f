"""A million operations with a fault every second, and what is left of them: the load of ``benchmarks.soak``, in short.

Two processes, one of four threads and one of 16 tasks, call everything through a proxy. Each second it is cut, delayed
or held, or the server closes connections, stands still, is emptied, or forgets its scripts; half a second later, at
most, all is well again for the rest of it. It fails when readers see an exception, when memory grows from the first
part of the run to the last, or when a thread, task, socket, flight, waiter, permit, refresh or lease is left.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack

import redis

from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.soak import Faults, Worker, settle
from tests.torture.scenarios.soaked import WORKERS, Minute

OPERATIONS = 1_000_000
QUICK = 20_000
PARTS = 8
"""Of the run; the first is the warm-up, the second is compared with the last."""
LONGEST = 900.0
"""Seconds after which it has failed, however many operations there were."""
BRIEFLY = 0.5
"""Seconds that a fault lasts at most."""
MIX = "60 % get, 30 % get_or_set (4 of 10 refreshing, stale or timed), 5 % set, 2 % delete, 2 % get_many, 1 % tags"


class EverySecond(Faults):
    """A fault that ends soon, and the rest of the second without one."""

    def once(self) -> None:
        """One second."""
        ends = time.monotonic() + 1.0
        self.one(
            [
                self.cut,
                self.cut_bus,
                self.delay,
                self.hold,
                self.kill_bus,
                self.kill_commands,
                self.pause,
                self.flushall,
                self.script_flush,
            ]
        )
        time.sleep(max(0.0, ends - time.monotonic()))

    def pause(self) -> None:
        """The server stands still."""
        self._server.pause()
        try:
            self._last(0.1, BRIEFLY)
        finally:
            self._server.resume()

    def flushall(self) -> None:
        """The server is empty at once."""
        with redis.Redis(port=self._server.port) as client:
            client.flushall()

    def script_flush(self) -> None:
        """The server does not know the scripts any more."""
        with redis.Redis(port=self._server.port) as client:
            client.script_flush()

    def _last(self, least: float, most: float) -> None:
        super()._last(min(least, BRIEFLY / 5), min(most, BRIEFLY))


def parts(minutes: Sequence[Minute], count: int) -> list[Minute]:
    """So many parts of about the same length, each with all that its seconds told.

    >>> [one.calls for one in parts([Minute(calls=number) for number in range(5)], 2)]
    [1, 9]
    """
    bounds = [len(minutes) * number // count for number in range(count + 1)]
    joined = []
    for begin, end in itertools.pairwise(bounds):
        seconds = minutes[begin:end]
        joined.append(
            Minute(
                samples=[sample for one in seconds for sample in one.samples],
                calls=sum(one.calls for one in seconds),
                raised=[error for one in seconds for error in one.raised],
                hits=sum(one.hits for one in seconds),
            )
        )
    return joined


def show(report: Report) -> bool:
    """Run, print and keep; whether nothing leaked, and readers saw no exception."""
    wanted, seed = QUICK if report.quick else OPERATIONS, random.SystemRandom().randrange(10**6)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        proxy = stack.enter_context(FaultProxy(server.port))
        workers = []
        for number, kind in enumerate(WORKERS):
            workers.append(Worker(kind, proxy.url, seed + number))
            stack.callback(workers[-1].close)
        faults = EverySecond(server, proxy, seed)
        began, calls = time.monotonic(), 0
        while (calls < wanted or len(workers[0].minutes) < PARTS) and time.monotonic() < began + LONGEST:
            faults.once()
            for worker in workers:
                worker.minutes.append(worker.ask("minute"))
                calls += worker.minutes[-1].calls
        seconds = time.monotonic() - began
        rows = [_row(worker) for worker in workers]
        raised = [error for worker in workers for one in worker.minutes for error in one.raised]
        for worker in workers:
            worker.minutes = parts(worker.minutes, PARTS)[1:]
        wrong = settle(report, server, workers, faults.counts, judged=not report.quick)
    count = sum(faults.counts.values())
    notes = [f"{calls:,} operations and {count} faults in {seconds:.0f} s, seed {seed}", MIX, *raised[:3]]
    if report.quick:
        notes.append("too short for the growth of memory to be judged")
    report.show(Table("Operations under faults", ["", "operations", "L1 hits", "exceptions"], rows, notes))
    report.keep(
        "faults",
        {"operations": calls, "faults": faults.counts, "seconds": seconds, "raised": raised, "wrong": wrong},
    )
    report.budget("operations under faults", calls, wanted, "operations", f"{count} faults", at_least=True)
    report.budget("operations under faults: exceptions seen by readers", len(raised), 0, "exceptions")
    report.budget("operations under faults: kinds of things left behind", len(wrong), 0, "kinds")
    return not wrong and not raised


def _row(worker: Worker) -> list[str]:
    calls = sum(one.calls for one in worker.minutes)
    hits = sum(one.hits for one in worker.minutes)
    raised = sum(len(one.raised) for one in worker.minutes)
    return [f"{WORKERS[worker.kind]} {worker.kind}", f"{calls:,}", f"{hits / max(calls, 1):.0%}", str(raised)]
