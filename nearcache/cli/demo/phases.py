"""The five phases; each plays on the stage and returns its figures."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

from nearcache.cli.demo.crew import DemoFailed, Phase
from nearcache.cli.demo.database import CATEGORIES
from nearcache.cli.demo.figures import Check, Outage, Reads, Recovery, Updates, quantile_us
from nearcache.cli.demo.latency import Latencies
from nearcache.cli.demo.stage import Stage
from nearcache.cli.demo.truth import compare
from nearcache.cli.demo.words import duration
from nearcache.cli.demo.worker import Invalidation

OUTAGE_UPDATES = 8
RECOVERY_UPDATES = 12
RECOVERY_TIMEOUT = 15.0
WARM_ATTEMPTS = 20


def reading(stage: Stage) -> Reads:
    """All workers read, from cold."""
    phase = stage.crew.begin()
    stage.crew.ask(stage.crew.everyone, "stream", True)
    stage.listen(stage.plan.reading)
    return _reads(stage, phase)


# ------------------------------------------------------------------------------------------------------------- updates


@dataclass
class _Drops:
    delays: Latencies = field(default_factory=Latencies)
    not_dropped: int = 0
    early: int = 0
    not_acknowledged: int = 0


def updates(stage: Stage) -> Updates:
    """Row after row changes; how soon has every other worker dropped the old report?"""
    phase = stage.crew.begin()
    began = time.monotonic()
    seen = _Drops()
    count = 0
    for writer in itertools.cycle(stage.crew.everyone):
        _update(stage, writer, seen)
        count += 1
        stage.note = f"{count} updates, dropped elsewhere after {duration(quantile_us(seen.delays, 0.5))} (median)"
        stage.listen(0)
        elapsed = time.monotonic() - began
        # on a machine that cannot keep up, fewer updates are the lesser evil
        if elapsed > stage.plan.updates and (count >= stage.plan.updates_at_least or elapsed > 4 * stage.plan.updates):
            break
    delays = seen.delays
    return Updates(
        reads=_reads(stage, phase),
        updates=count,
        drops=delays.count,
        not_dropped=seen.not_dropped,
        dropped_early=seen.early,
        not_acknowledged=seen.not_acknowledged,
        p50_us=quantile_us(delays, 0.5),
        p99_us=quantile_us(delays, 0.99),
        max_us=quantile_us(delays, 1.0),
    )


def _update(stage: Stage, writer: int, seen: _Drops) -> None:
    """Change one row, invalidate, and take the time until each other worker has dropped the report."""
    crew = stage.crew
    category = stage.random.choice(stage.ranked)
    watchers = [worker for worker in crew.everyone if worker != writer]
    _warm(stage, category)
    crew.tell(watchers, "watch", category)
    armed = crew.collect("armed", watchers)
    stage.change(category)
    invalidation: Invalidation = crew.ask([writer], "invalidate", category)[writer]
    dropped = crew.collect("watch", watchers)
    seen.not_acknowledged += not invalidation.acknowledged
    for worker, at_ns in dropped.items():
        if not armed[worker] or (at_ns is not None and at_ns < invalidation.called_ns):
            seen.early += 1  # evicted or flushed before the message could come: no measurement
        elif at_ns is None:
            seen.not_dropped += 1
        else:
            seen.delays.add(at_ns - invalidation.called_ns)


def _warm(stage: Stage, category: int) -> None:
    """Have the report in every worker's L1, and see that it is there: else there would be nothing to drop."""
    cold = stage.crew.everyone
    for _ in range(WARM_ATTEMPTS):
        cold = [worker for worker, warm in stage.crew.ask(cold, "warm", category).items() if not warm]
        if not cold:
            return
    raise DemoFailed(f"report {category} is not in L1 of worker {cold[0] + 1} after {WARM_ATTEMPTS} reads")


# ---------------------------------------------------------------------------------------------------- outage, recovery


def outage(stage: Stage) -> Outage:
    """The server is killed; workers go on reading, and the hottest reports change."""
    crew = stage.crew
    killed_ns = time.monotonic_ns()
    stage.server.kill()
    phase = crew.begin()
    stage.note = "the server is dead"
    deadline = time.monotonic() + stage.plan.outage
    refused = 0
    own_writes_seen = 0
    for writer, category in zip(itertools.cycle(crew.everyone), stage.ranked[:OUTAGE_UPDATES]):
        stage.listen(0.7 * stage.plan.outage / OUTAGE_UPDATES)
        revision = stage.change(category)
        invalidation: Invalidation = crew.ask([writer], "invalidate", category)[writer]
        refused += not invalidation.acknowledged
        stage.note = f"report {category} has changed; invalidate() said {invalidation.acknowledged}"
        own_writes_seen += crew.ask([writer], "answers", [category])[writer][0]["revision"] == revision
    stage.listen(max(0.0, deadline - time.monotonic()))
    return Outage(
        reads=_reads(stage, phase),
        updates=OUTAGE_UPDATES,
        invalidations_refused=refused,
        own_writes_seen=own_writes_seen,
        workers_that_noticed=sum(
            any(not change.healthy and change.at_ns > killed_ns for change in changes) for changes in crew.health
        ),
    )


def recovery(stage: Stage) -> Recovery:
    """The server comes back empty; the workers have to find out that L1 can be trusted no more, and begin again."""
    crew = stage.crew
    phase = crew.begin()
    stage.server.start()
    stage.note = ""
    began = time.monotonic()
    stage.listen_until(lambda: _all_back(phase, stage), RECOVERY_TIMEOUT)
    seen = _Drops()
    for writer, _ in zip(itertools.cycle(crew.everyone), range(RECOVERY_UPDATES), strict=False):
        _update(stage, writer, seen)
    stage.listen(stage.plan.recovery - (time.monotonic() - began))
    return Recovery(
        reads=_reads(stage, phase),
        healthy_after_s=_since(phase, _healthy_since(phase, stage)),
        l1_again_after_s=_since(phase, _l1_since(phase)),
        updates=RECOVERY_UPDATES,
        drops=seen.delays.count,
        not_dropped=seen.not_dropped,
        p50_us=quantile_us(seen.delays, 0.5),
    )


def _all_back(phase: Phase, stage: Stage) -> bool:
    everyone = len(stage.crew.everyone)
    return len(_healthy_since(phase, stage)) == everyone and len(_l1_since(phase)) == everyone


def _healthy_since(phase: Phase, stage: Stage) -> dict[int, int]:
    """When each worker was proven coherent for the first time in this phase."""
    first = {
        worker: next((change.at_ns for change in changes if change.healthy and change.at_ns > phase.start_ns), None)
        for worker, changes in enumerate(stage.crew.health)
    }
    return {worker: at_ns for worker, at_ns in first.items() if at_ns is not None}


def _l1_since(phase: Phase) -> dict[int, int]:
    """When each worker's first read began that L1 answered while proven coherent."""
    first = {worker: tally.first_proven_l1_ns for worker, tally in enumerate(phase.tallies)}
    return {worker: at_ns for worker, at_ns in first.items() if at_ns is not None}


def _since(phase: Phase, times: dict[int, int]) -> dict[int, float]:
    return {worker + 1: round((at_ns - phase.start_ns) / 1e9, 4) for worker, at_ns in times.items()}


# --------------------------------------------------------------------------------------------------------------- check


def check(stage: Stage) -> Check:
    """Every worker answers every report, from its L1 and again without it; each answer is held against the database."""
    crew, bound = stage.crew, stage.plan.max_staleness
    crew.ask(crew.everyone, "stream", False)
    # All changes are committed and their invalidations acknowledged: from here on the bound is all that is to pass.
    stage.note = f"waiting {bound:g} s, the longest that an answer may be stale"
    stage.listen(bound)
    every = list(range(1, CATEGORIES + 1))
    as_it_is = crew.ask(crew.everyone, "answers", every)
    crew.ask(crew.everyone, "forget")
    without_l1 = crew.ask(crew.everyone, "answers", every)
    answers = {worker: as_it_is[worker] + without_l1[worker] for worker in crew.everyone}
    differences = compare(stage.shop.report, answers)
    return Check(
        waited_s=bound,
        compared=sum(map(len, answers.values())),
        expected_comparisons=2 * CATEGORIES * len(crew.everyone),
        differences=len(differences),
        control_caught=_control(stage),
        examples=[f"worker {item.worker + 1}, {item.answered} instead of {item.database}" for item in differences[:3]],
    )


def _control(stage: Stage) -> int:
    """Change a row behind the cache's back: a check that does not find it in every worker could find nothing at all."""
    category = stage.ranked[0]
    stage.shop.change(category)
    answers = stage.crew.ask(stage.crew.everyone, "answers", [category])
    return len(compare(stage.shop.report, answers))


def _reads(stage: Stage, phase: Phase) -> Reads:
    """The phase's reads up to now, the very last ones included."""
    stage.crew.ask(stage.crew.everyone, "report_in")
    return Reads.of(phase, time.monotonic_ns())
