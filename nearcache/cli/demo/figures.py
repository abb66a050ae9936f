"""What a run has shown, as figures, and what of it is a failure: the demo's own verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nearcache.cli.demo.crew import Phase, Tally
from nearcache.cli.demo.latency import Latencies


@dataclass(frozen=True)
class TierFigures:
    """Answers of one tier; latencies in microseconds."""

    answers: int
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Reads:
    """The reads of one phase, all workers together."""

    seconds: float
    answers: int
    fewest_by_a_worker: int
    errors: int
    wrong: int
    stale: int
    worst_staleness_s: float
    tiers: dict[str, TierFigures]

    @classmethod
    def of(cls, phase: Phase, until_ns: int) -> Reads:
        """The figures of a phase that lasted until ``until_ns``."""
        total = phase.total
        return cls(
            seconds=round((until_ns - phase.start_ns) / 1e9, 3),
            answers=total.answers,
            fewest_by_a_worker=min(tally.answers for tally in phase.tallies),
            errors=total.errors,
            wrong=total.wrong,
            stale=total.stale,
            worst_staleness_s=round(total.worst_staleness_ns / 1e9, 3),
            tiers=_tiers(total),
        )


def _tiers(tally: Tally) -> dict[str, TierFigures]:
    return {
        name: TierFigures(seen.count, quantile_us(seen, 0.5), quantile_us(seen, 0.99))
        for name, seen in tally.tiers.items()
    }


def quantile_us(seen: Latencies, fraction: float) -> float:
    """A quantile in microseconds, to a tenth of one."""
    return round(seen.quantile(fraction) / 1e3, 1)


@dataclass(frozen=True)
class Updates:
    """How fast an invalidated report left every other worker's L1; times from the call to the seen drop."""

    reads: Reads
    updates: int
    drops: int
    not_dropped: int
    dropped_early: int
    not_acknowledged: int
    p50_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True)
class Outage:
    """What went on while the server was dead."""

    reads: Reads
    updates: int
    invalidations_refused: int
    own_writes_seen: int
    workers_that_noticed: int


@dataclass(frozen=True)
class Recovery:
    """What happened after the empty restart; times from the call that started the new process."""

    reads: Reads
    healthy_after_s: dict[int, float]
    l1_again_after_s: dict[int, float]
    updates: int
    drops: int
    not_dropped: int
    p50_us: float


@dataclass(frozen=True)
class Check:
    """The workers' answers held against the database."""

    waited_s: float
    compared: int
    differences: int
    expected_comparisons: int
    control_caught: int
    examples: list[str] = field(default_factory=list)


@dataclass
class Figures:
    """A whole run; a phase that did not happen is None, and a failure."""

    workers: int
    max_staleness_s: float
    parameters: dict[str, Any]
    versions: dict[str, str]
    setup_s: float = 0.0
    seconds: float = 0.0
    reading: Reads | None = None
    updates: Updates | None = None
    outage: Outage | None = None
    recovery: Recovery | None = None
    check: Check | None = None
    aborted: str | None = None
    error_texts: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """What did not go as promised, one line each; empty: all is well."""
        return list(self._failures())

    def as_dict(self) -> dict[str, Any]:
        """The run as one JSON document."""
        failures = self.failures()
        return {"ok": not failures, "failures": failures, **asdict(self)}

    def _failures(self) -> Iterator[str]:
        if self.aborted is not None:
            yield self.aborted
        for name in ("reading", "updates", "outage", "recovery", "check"):
            if getattr(self, name) is None:
                yield f"the phase {name!r} did not happen"
        yield from self._failed_reads()
        if self.reading is not None:
            for tier, seen in self.reading.tiers.items():
                if seen.answers == 0:
                    yield f"reading: no answer came from {tier}"
        yield from self._failed_updates()
        yield from self._failed_outage()
        yield from self._failed_recovery()
        yield from self._failed_check()

    def _failed_reads(self) -> Iterator[str]:
        for name, reads in self.reads().items():
            if reads.fewest_by_a_worker == 0:
                yield f"{name}: a worker answered nothing"
            if reads.errors:
                yield f"{name}: {reads.errors} reads raised, for example {self.error_texts[:1]}"
            if reads.wrong:
                yield f"{name}: {reads.wrong} answers that the database never gave"
            if reads.worst_staleness_s > self.max_staleness_s:
                yield f"{name}: an answer {reads.worst_staleness_s} s stale; promised are {self.max_staleness_s} s"

    def reads(self) -> dict[str, Reads]:
        """The reads of every phase that happened."""
        named = {"reading": self.reading}
        for name in ("updates", "outage", "recovery"):
            phase = getattr(self, name)
            named[name] = phase.reads if phase is not None else None
        return {name: reads for name, reads in named.items() if reads is not None}

    def _failed_updates(self) -> Iterator[str]:
        seen = self.updates
        if seen is None:
            return
        if seen.drops == 0:
            yield "updates: no drop was measured"
        if seen.not_dropped:
            yield f"updates: {seen.not_dropped} reports were still in another worker's L1 after 2 s"
        if seen.not_acknowledged:
            yield f"updates: {seen.not_acknowledged} invalidations were not acknowledged by a healthy server"

    def _failed_outage(self) -> Iterator[str]:
        seen = self.outage
        if seen is None:
            return
        if seen.updates == 0 or seen.invalidations_refused != seen.updates:
            yield f"outage: {seen.invalidations_refused} of {seen.updates} invalidations returned False; all must"
        if seen.own_writes_seen != seen.updates:
            yield f"outage: a worker saw its own write {seen.own_writes_seen} times of {seen.updates}"
        if seen.workers_that_noticed != self.workers:
            yield f"outage: {seen.workers_that_noticed} of {self.workers} workers noticed it"

    def _failed_recovery(self) -> Iterator[str]:
        seen = self.recovery
        if seen is None:
            return
        for what, times in (("was healthy", seen.healthy_after_s), ("had L1 hits", seen.l1_again_after_s)):
            if len(times) != self.workers:
                yield f"recovery: {len(times)} of {self.workers} workers {what} again"
        if seen.drops == 0 or seen.not_dropped:
            yield f"recovery: {seen.drops} drops after {seen.updates} new updates, {seen.not_dropped} did not come"

    def _failed_check(self) -> Iterator[str]:
        seen = self.check
        if seen is None:
            return
        if seen.differences:
            yield f"check: {seen.differences} answers differ from the database, for example {seen.examples[:1]}"
        if seen.compared != seen.expected_comparisons:
            yield f"check: {seen.compared} answers were compared, not {seen.expected_comparisons}"
        if seen.control_caught != self.workers:
            yield f"check: it is blind: of {self.workers} answers made wrong on purpose it found {seen.control_caught}"
