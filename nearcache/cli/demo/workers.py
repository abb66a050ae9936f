"""The parent's side of the worker processes: commands, replies, counts of their reads, and notice of their death."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from nearcache.cli.demo.database import Report
from nearcache.cli.demo.worker import Answer, digest, run

REPLY_TIMEOUT = 15.0
TIERS = {"l1": "L1", "l2": "L2", "database": "database"}
BUCKETS = 36  # for each power of two: a bucket is 2 % wide


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


class Durations(Counter[int]):
    """Counts of durations in logarithmic buckets, so that memory is bounded."""

    def add(self, ns: int) -> None:
        """Count a duration in nanoseconds."""
        self[math.ceil(BUCKETS * math.log2(max(1, ns)))] += 1

    def quantile_us(self, fraction: float) -> float:
        """The nearest-rank quantile in microseconds, at most 2 % too high; 0 without durations."""
        rank = max(1, math.ceil(fraction * self.total()))
        for bucket in sorted(self):
            rank -= self[bucket]
            if rank <= 0:
                return round(2 ** (bucket / BUCKETS) / 1e3, 1)
        return 0.0

    def figures(self, name: str) -> dict[str, float]:
        """The number of durations, under this name, and their quantiles."""
        quantiles = {"p50_us": 0.5, "p99_us": 0.99, "max_us": 1.0}
        return {name: self.total()} | {key: self.quantile_us(fraction) for key, fraction in quantiles.items()}


@dataclass
class Counts:
    """The reads of a worker in one phase; ``l1_ns`` is the time of the first L1 hit of a healthy cache."""

    tiers: dict[str, Durations] = field(default_factory=lambda: {tier: Durations() for tier in TIERS})
    wrong: int = 0
    stale_ns: float = 0
    unhealthy: int = 0
    l1_ns: int | None = None


@dataclass(eq=False)
class Worker:
    """One worker process as the parent sees it."""

    number: int
    process: SpawnProcess
    pipe: Connection
    counts: Counts = field(default_factory=Counts)
    healthy: bool = True
    replies: deque[Any] = field(default_factory=deque)


class Workers(list[Worker]):
    """The workers of one run; ``arguments`` are what each gets after its pipe and its number."""

    def __init__(self, count: int, *arguments: object) -> None:
        super().__init__()
        self._current: dict[int, int] = {}  # the digest of each category's report
        self._outdated_ns: dict[int, float] = {}  # when the content of this digest was replaced
        context = multiprocessing.get_context("spawn")
        # A terminal sends Ctrl-C to every process, and only the parent must act on it; a child inherits SIG_IGN.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for number in range(1, count + 1):
                pipe, child_pipe = context.Pipe()
                process = context.Process(target=run, args=(child_pipe, number, *arguments), daemon=True)
                process.start()
                child_pipe.close()
                self.append(Worker(number, process, pipe))
        finally:
            signal.signal(signal.SIGINT, handler)

    def add_state(self, report: Report) -> Report:
        """Note a report after its commit: every answer is compared with the contents that the database has held."""
        new = digest(report)
        self._outdated_ns[self._current.get(report["category"], new)] = time.monotonic_ns()
        self._outdated_ns[new] = math.inf
        self._current[report["category"]] = new
        return report

    def ask(self, workers: list[Worker], command: str, *arguments: object) -> dict[Worker, Any]:
        """Send a command, the name of a method of the worker, and its arguments; wait for the replies."""
        for worker in workers:
            with suppress(OSError):  # a worker that has ended is noticed while waiting
                worker.pipe.send((command, arguments))
        return self.replies(workers)

    def replies(self, workers: list[Worker]) -> dict[Worker, Any]:
        """Wait for the next reply of each worker."""
        deadline = time.monotonic() + REPLY_TIMEOUT
        while missing := [worker for worker in workers if not worker.replies]:
            if time.monotonic() > deadline:
                raise DemoFailed(f"worker {missing[0].number} did not reply within {REPLY_TIMEOUT:g} s")
            self.listen(0.1)
        return {worker: worker.replies.popleft() for worker in workers}

    def listen(self, seconds: float) -> None:
        """Receive what the workers send; wait until something arrives, but not longer."""
        ready = wait([worker.pipe for worker in self], seconds)
        for worker in self:
            try:
                while worker.pipe in ready and worker.pipe.poll():
                    self.receive(worker, *worker.pipe.recv())
            except (EOFError, OSError):
                worker.process.join(1.0)
                raise DemoFailed(f"worker {worker.number} ended: exit code {worker.process.exitcode}") from None

    def receive(self, worker: Worker, kind: str, value: Any) -> None:
        """Take in one message of a worker."""
        if kind == "failed":
            raise DemoFailed(f"worker {worker.number} failed: {value}")
        if kind == "reply":
            worker.replies.append(value)
        for answer in value if kind == "answers" else ():
            self._count(worker, answer)

    def _count(self, worker: Worker, answer: Answer) -> None:
        counts, worker.healthy = worker.counts, answer.healthy
        counts.tiers[answer.tier].add(answer.took_ns)
        counts.unhealthy += not answer.healthy
        if answer.tier == "l1" and answer.healthy and counts.l1_ns is None:
            counts.l1_ns = answer.start_ns
        counts.wrong += answer.digest not in self._outdated_ns  # the database never held this content
        counts.stale_ns = max(counts.stale_ns, answer.start_ns - self._outdated_ns.get(answer.digest, math.inf))

    def close(self) -> None:
        """Close the pipes, so that the workers end; kill those that have not ended within 3 s."""
        for worker in self:
            worker.pipe.close()
        deadline = time.monotonic() + 3.0
        for worker in self:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
