"""The parent's side of the workers: start them, ask them, take in what they see, notice their death, end them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from nearcache.cli.demo.judge import Answer, Ledger, Tally
from nearcache.cli.demo.worker import Config, run

ANSWER_TIMEOUT = 15.0


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


class Workers:
    """The workers of one run, numbered from 0.

    Args:
        configs: one for each worker.
        ledger: what their answers are judged by.
    """

    def __init__(self, configs: Sequence[Config], ledger: Ledger) -> None:
        self.began_ns = 0
        self.tallies = [Tally() for _ in configs]
        """What each has done since the phase began."""
        self.health: list[list[tuple[int, bool]]] = [[] for _ in configs]
        """The changes of each one's ``cache.healthy``, with their times."""
        self._ledger = ledger
        self._inbox: list[list[tuple[str, Any]]] = [[] for _ in configs]
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        context = multiprocessing.get_context("spawn")
        # Ctrl-C goes to every process of the terminal, and only the parent is to act on it; children inherit this.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for config in configs:
                ours, theirs = context.Pipe()
                self._pipes.append(ours)
                self._processes.append(context.Process(target=run, args=(config, theirs), daemon=True))
                self._processes[-1].start()
                theirs.close()
        except BaseException:
            self.close()
            raise
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def all(self) -> list[int]:
        """The workers' numbers."""
        return list(range(len(self._pipes)))

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid or 0 for process in self._processes]

    @property
    def proven(self) -> int:
        """How many have a proven L1 now."""
        return sum(bool(changes) and changes[-1][1] for changes in self.health)

    def begin(self) -> None:
        """Begin a phase: reads that start from now on count for it."""
        self.ask(self.all, "status")
        self.began_ns, self.tallies = time.monotonic_ns(), [Tally() for _ in self._pipes]

    def tell(self, workers: Iterable[int], command: str, *arguments: object) -> None:
        """Send a command; its answers are for ``collect``."""
        for worker in workers:
            try:
                self._pipes[worker].send((command, arguments))
            except OSError:
                self._dead(worker)

    def collect(self, kind: str, workers: Iterable[int], timeout: float = ANSWER_TIMEOUT) -> dict[int, Any]:
        """Wait for one answer of this kind from each worker.

        Raises:
            DemoFailed: one died, or did not answer in time.
        """
        missing, answers = set(workers), dict[int, Any]()
        deadline = time.monotonic() + timeout
        while missing:
            for worker in tuple(missing):
                found = next((message for message in self._inbox[worker] if message[0] == kind), None)
                if found is not None:
                    self._inbox[worker].remove(found)
                    answers[worker] = found[1]
                    missing.discard(worker)
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
        """Take in what the workers send, for at most so long or until something came."""
        sentinels = {process.sentinel: worker for worker, process in enumerate(self._processes)}
        pipes = {pipe: worker for worker, pipe in enumerate(self._pipes)}
        ready = wait([*pipes, *sentinels], seconds)
        for item in ready:
            if isinstance(item, Connection):
                self._take(pipes[item])
        for item in ready:
            if isinstance(item, int):
                self._dead(sentinels[item])

    def _take(self, worker: int) -> None:
        try:
            while self._pipes[worker].poll():
                kind, value = self._pipes[worker].recv()
                if kind == "status" and value is not None:
                    self._count(worker, *value)
                elif kind == "failed":
                    raise DemoFailed(f"worker {worker + 1} failed: {value}")
                else:
                    self._inbox[worker].append((kind, value))
        except (EOFError, OSError):
            self._dead(worker)

    def _count(self, worker: int, answers: list[Answer], errors: list[str], health: list[tuple[int, bool]]) -> None:
        for seen in answers:
            if seen.start_ns >= self.began_ns:
                self.tallies[worker].add(seen, self._ledger)
        self.tallies[worker].errors += errors
        self.health[worker] += health

    def _dead(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(1.0)
        raise DemoFailed(f"worker {worker + 1} (process {process.pid}) ended, exit code {process.exitcode}")

    def close(self) -> None:
        """End every worker."""
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
