"""The parent's side of the workers: start them, ask them, take in what they observe, notice their death, end them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from nearcache.cli.demo.latency import Latencies
from nearcache.cli.demo.truth import Ledger
from nearcache.cli.demo.worker import TIERS, Health, Observation, Status, Tier, WorkerConfig, run

ANSWER_TIMEOUT = 15.0


class DemoFailed(Exception):
    """The show cannot go on; the text says why."""


@dataclass
class Tally:
    """What one worker did in one phase; of bounded size."""

    tiers: dict[Tier, Latencies] = field(default_factory=lambda: {tier: Latencies() for tier in TIERS})
    errors: int = 0
    wrong: int = 0
    stale: int = 0
    worst_staleness_ns: int = 0
    first_proven_l1_ns: int | None = None

    @property
    def answers(self) -> int:
        """Reads that were answered, by any tier."""
        return sum(tier.count for tier in self.tiers.values())

    def add(self, seen: Observation, ledger: Ledger) -> None:
        """Count one answer, judged by the ledger."""
        self.tiers[seen.tier].add(seen.took_ns)
        staleness = ledger.staleness(seen.category, seen.revision, seen.digest, seen.start_ns)
        if staleness is None:
            self.wrong += 1
        elif staleness > 0:
            self.stale += 1
            self.worst_staleness_ns = max(self.worst_staleness_ns, staleness)
        if seen.tier == "l1" and seen.healthy and self.first_proven_l1_ns is None:
            self.first_proven_l1_ns = seen.start_ns

    def merge(self, other: Tally) -> None:
        """Count everything that ``other`` has counted."""
        for tier, latencies in self.tiers.items():
            latencies.merge(other.tiers[tier])
        self.errors += other.errors
        self.wrong += other.wrong
        self.stale += other.stale
        self.worst_staleness_ns = max(self.worst_staleness_ns, other.worst_staleness_ns)


@dataclass
class Phase:
    """A stretch of the show: what each worker did since ``start_ns``."""

    start_ns: int
    tallies: list[Tally]

    @property
    def total(self) -> Tally:
        """All workers together."""
        total = Tally()
        for tally in self.tallies:
            total.merge(tally)
        return total


class Crew:
    """The workers of one run.

    Args:
        configs: one for each worker, numbered from 0.
        ledger: what answers are judged by.
    """

    def __init__(self, configs: Sequence[WorkerConfig], ledger: Ledger) -> None:
        self.phases = [Phase(0, [Tally() for _ in configs])]
        self.healthy = [False for _ in configs]
        self.health: list[list[Health]] = [[] for _ in configs]
        self.error_texts: list[str] = []
        self._ledger = ledger
        self._inbox: list[list[tuple[str, Any]]] = [[] for _ in configs]
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        try:
            self._start(configs)
        except BaseException:
            self.close()
            raise

    def _start(self, configs: Sequence[WorkerConfig]) -> None:
        context = multiprocessing.get_context("spawn")
        # Ctrl-C goes to every process of the terminal; only the parent is to act on it. An ignored signal is inherited.
        with _interrupts_ignored():
            for config in configs:
                ours, theirs = context.Pipe()
                self._pipes.append(ours)
                process = context.Process(
                    target=run, args=(config, theirs), name=f"worker-{config.number}", daemon=True
                )
                process.start()
                self._processes.append(process)
                theirs.close()

    @property
    def everyone(self) -> list[int]:
        """The workers' numbers."""
        return list(range(len(self._pipes)))

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid or 0 for process in self._processes]

    @property
    def phase(self) -> Phase:
        """The phase that runs now."""
        return self.phases[-1]

    def begin(self) -> Phase:
        """Begin a phase: reads that start from now on count for it."""
        self.phases.append(Phase(time.monotonic_ns(), [Tally() for _ in self._pipes]))
        return self.phase

    def tell(self, workers: Iterable[int], command: str, *arguments: object) -> None:
        """Send a command; its answers are for :meth:`collect`."""
        for worker in workers:
            try:
                self._pipes[worker].send((command, arguments))
            except OSError:
                self._mourn(worker)

    def collect(self, kind: str, workers: Iterable[int], timeout: float = ANSWER_TIMEOUT) -> dict[int, Any]:
        """Wait for one answer of this kind from each worker.

        Args:
            kind: the command's name, or what its worker announces under another one.
            workers: whose answers.
            timeout: seconds.

        Raises:
            DemoFailed: when one died or did not answer in time.
        """
        missing = set(workers)
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        while missing:
            for worker in list(missing):
                for message in self._inbox[worker]:
                    if message[0] == kind:
                        self._inbox[worker].remove(message)
                        answers[worker] = message[1]
                        missing.discard(worker)
                        break
            if missing:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"worker {min(missing) + 1} did not answer {kind!r} within {timeout:g} s")
                self.listen(0.1)
        return answers

    def ask(self, workers: Iterable[int], command: str, *arguments: object) -> dict[int, Any]:
        """Send a command and wait for the answers."""
        chosen = list(workers)
        self.tell(chosen, command, *arguments)
        return self.collect(command, chosen)

    def listen(self, seconds: float) -> None:
        """Take in what the workers send, for at most this long or until something came."""
        sentinels = {process.sentinel: worker for worker, process in enumerate(self._processes)}
        pipes = {pipe: worker for worker, pipe in enumerate(self._pipes)}
        ready = wait([*pipes, *sentinels], seconds)
        for item in ready:
            if isinstance(item, Connection):
                self._take(pipes[item])
        for item in ready:
            if isinstance(item, int):
                self._mourn(sentinels[item])

    def _take(self, worker: int) -> None:
        try:
            while self._pipes[worker].poll():
                kind, value = self._pipes[worker].recv()
                if kind == "status":
                    self._absorb(worker, value)
                elif kind == "failed":
                    raise DemoFailed(f"worker {worker + 1} failed: {value}")
                else:
                    self._inbox[worker].append((kind, value))
        except (EOFError, OSError):
            self._mourn(worker)

    def _absorb(self, worker: int, status: Status) -> None:
        for seen in status.observations:
            self._phase_at(seen.start_ns).tallies[worker].add(seen, self._ledger)
        self.phase.tallies[worker].errors += len(status.errors)
        self.error_texts.extend(status.errors[: 5 - len(self.error_texts)])
        for change in status.health:
            self.healthy[worker] = change.healthy
            self.health[worker].append(change)

    def _phase_at(self, at_ns: int) -> Phase:
        return next(phase for phase in reversed(self.phases) if phase.start_ns <= at_ns)

    def _mourn(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(1.0)
        raise DemoFailed(f"worker {worker + 1} (process {process.pid}) ended, exit code {process.exitcode}")

    def close(self) -> None:
        """End every worker; none is left behind."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()  # the worker reads the end of the pipe, closes its cache and returns
        deadline = time.monotonic() + 3.0
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._processes, self._pipes = [], []


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
