"""One phase from beginning to end: before, the fault, after, a quiet end, and what was found."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from nearcache.testing import FaultProxy
from tests.support import servers
from tests.support.processes import Crew
from tests.torture.book import Book, now
from tests.torture.judge import Case, at_the_end, delays, percentile, resurrected
from tests.torture.look import Looker
from tests.torture.phases import FAR_WRITER, CannotRun, Phase, Stage
from tests.torture.worker import MAX_STALENESS, REDIS_TIMEOUT, WRITE_PAUSE, Figures, Plan, work

LONG_TTL = 3600.0
"""Seconds; nothing old goes by itself."""
BEFORE, FAULT, AFTER = 0.25, 0.4, 0.35
"""The parts of a phase's time."""
RECOVERY = 2.0
"""Seconds after which the hit rate must be back."""
BACK = 0.9
"""The part of the hit rate before that counts as back."""
WINDOW = int(0.3e9)
"""ns over which a hit rate is taken."""
BUDGET = 2.0
"""How many times a raw subscriber's p99 a drop from L1 may take."""
SLACK = 100.0
"""ms by which the worst staleness may exceed that, since it is one read of thousands."""
SAMPLES = 200
"""Fewer delays tell nothing of a p99."""
INVARIANTS = ("stale", "monotonic", "own-write", "resurrected", "lost", "diverged", "raised")


@dataclass
class Result:
    """What a phase found."""

    server: str
    phase: str
    not_run: str = ""
    reads: int = 0
    rate: float = 0.0
    """Reads a second that the readers reached."""
    worst: float = 0.0
    p99: float = 0.0
    dropped: float = 0.0
    """p99 in ms from the beginning of a write to the drop in a reader's L1; 0 where it is not compared."""
    raw: float = 0.0
    """The same to the raw subscriber of that process."""
    raw_worst: float = 0.0
    compared: int = 0
    """How many delays these two are taken from."""
    hits: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """L1's hit rate before, in and after the fault."""
    back: float | None = None
    """Seconds after the fault until the hit rate was back."""
    done: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    judge_speed: bool = True

    def count(self, invariant: str) -> int:
        """How often an invariant was violated."""
        return len(self.violations.get(invariant, ()))

    @property
    def failures(self) -> list[str]:
        """What must not be, by name."""
        if self.not_run:
            return ["not run"]
        found = [invariant for invariant in INVARIANTS if self.count(invariant)]
        if self.back is None or (self.judge_speed and self.back > RECOVERY):
            found.append("hit rate")
        if self.judge_speed and self.compared >= SAMPLES:
            drops_late = self.dropped > BUDGET * self.raw
            serves_late = self.worst > BUDGET * self.raw_worst + SLACK
            found += ["slow"] if drops_late or serves_late else []
        return found


@dataclass(frozen=True)
class Options:
    """What holds for every phase of a run."""

    seconds: float
    seed: int
    without: str | None = None
    judge_speed: bool = True


def run_phase(phase: Phase, kind: str, options: Options) -> Result:
    """Run a phase on a server of a kind; one that can't be run says so."""
    result = Result(kind, phase.name, judge_speed=options.judge_speed)
    try:
        with ExitStack() as cleanup:
            _run(phase, kind, options, result, cleanup)
    except (CannotRun, RuntimeError, OSError) as error:
        result.not_run = f"{type(error).__name__}: {error}"
    return result


def _run(phase: Phase, kind: str, options: Options, result: Result, cleanup: ExitStack) -> None:
    context = multiprocessing.get_context("spawn")
    book = Book(context, 200 + int(2 * options.seconds / WRITE_PAUSE), REDIS_TIMEOUT)
    server = cleanup.enter_context(servers.make(kind, phase.config))
    near = cleanup.enter_context(FaultProxy(server.port))
    far = cleanup.enter_context(FaultProxy(server.port))
    seed = f"{options.seed} {phase.name}"
    crew = cleanup.enter_context(
        Crew(work, {plan.who: (plan, book) for plan in _plans(phase, near, far, seed, options)})
    )
    looker = cleanup.enter_context(Looker(server.port))
    stage = Stage(
        kind, server, near, far, crew, looker, random.Random(seed), options.seconds * FAULT, cleanup, notes=result.notes
    )
    phase.prepare(stage)

    crew.ask("start")
    began = now()
    time.sleep(options.seconds * BEFORE)
    fault = now()
    phase.fault(stage)
    near.heal()
    far.heal()
    healed = now()
    time.sleep(max(options.seconds * AFTER, RECOVERY))
    ended = now()
    crew.ask("rest")
    # What nobody was told of may be served for so long, and not longer.
    time.sleep((phase.agreement or MAX_STALENESS) + 0.1)
    crew.ask("stop")
    kept = crew.ask("compare")
    case = Case(book, int(MAX_STALENESS * 1e9), stage.window)
    lost, diverged = at_the_end(kept, looker.look(), case)
    result.violations["lost"] += lost
    result.violations["diverged"] += diverged.values()
    result.violations["resurrected"] += resurrected(looker.seen, case)
    if unanswered := sum(book.unanswered(*write) for write in book.writes()):
        result.notes.append(f"{unanswered} versions not acknowledged")
    if lost_writes := sum(book.lost(*write, stage.window) for write in book.writes()):
        result.notes.append(f"{lost_writes} versions that the failover may have lost")
    figures: Sequence[Figures] = crew.ask("report", stage.window)
    _sum_up(result, figures, book, (began, fault, healed, ended), compare=phase.whole)


def _plans(phase: Phase, near: FaultProxy, far: FaultProxy, seed: str, options: Options) -> list[Plan]:
    common = {"seed": seed, "ttl": phase.agreement or LONG_TTL, "without": options.without}
    return [
        Plan("threads", "threads", near.url, raw=phase.whole, **common),  # type: ignore[arg-type]
        Plan("asyncio", "asyncio", near.url, raw=phase.whole, **common),  # type: ignore[arg-type]
        Plan("near writer", "threads", near.url, writer=0, **common),  # type: ignore[arg-type]
        Plan(FAR_WRITER, "asyncio", far.url, writer=1, **common),  # type: ignore[arg-type]
    ]


def _sum_up(
    result: Result, figures: Sequence[Figures], book: Book, times: tuple[int, int, int, int], *, compare: bool
) -> None:
    began, fault, healed, ended = times
    stale: list[int] = []
    for one in figures:
        result.reads += one.verdict.reads
        result.done += one.done
        stale += one.verdict.stale
        result.violations["raised"] += one.raised
        for invariant, lines in one.verdict.violations.items():
            result.violations[invariant] += [f"{one.who}: {line}" for line in lines]
    longest = max(one.verdict.longest for one in figures) / 1e6
    result.notes.append(f"longest read {longest:.0f} ms")
    result.rate = result.reads / ((ended - began) / 1e9)
    result.worst = max(stale, default=0) / 1e6
    result.p99 = percentile(stale, 0.99, result.reads)
    readers = [one for one in figures if not one.who.endswith("writer")]
    if compare:
        dropped = [delay for one in readers for delay in delays(one.dropped, book)]
        raw = [delay for one in readers for delay in delays(one.raw, book)]
        result.dropped, result.raw = percentile(dropped, 0.99), percentile(raw, 0.99)
        result.raw_worst = percentile(raw, 1)
        result.compared = min(len(dropped), len(raw))
    samples = [one.samples for one in readers]
    warm = began + (fault - began) // 3
    result.hits = (_hits(samples, warm, fault), _hits(samples, fault, healed), _hits(samples, healed, ended))
    at = healed
    while result.back is None and at + WINDOW <= ended:
        if _hits(samples, at, at + WINDOW) >= BACK * result.hits[0]:
            result.back = (at - healed) / 1e9
        at += WINDOW // 6


def _hits(samples: Sequence[Sequence[tuple[int, int, int]]], begin: int, end: int) -> float:
    """The part of the reads in a window that L1 answered."""
    hits = reads = 0
    for line in samples:
        inside = [one for one in line if begin <= one[0] <= end]
        if inside:
            hits += inside[-1][1] - inside[0][1]
            reads += inside[-1][2] - inside[0][2]
    return hits / reads if reads else 0.0


def known(result: Result) -> Mapping[str, int]:
    """How many violations of each kind tell of a write that was not acknowledged."""
    return {
        invariant: sum("not acknowledged" in line for line in lines) for invariant, lines in result.violations.items()
    }
