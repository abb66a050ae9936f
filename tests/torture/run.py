"""One phase from beginning to end: before, the fault, after, a quiet end, and what was found."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from nearcache.testing import FaultProxy
from tests.support import sentinels, servers
from tests.support.processes import Crew
from tests.torture.atomic import violations
from tests.torture.book import Book, now
from tests.torture.faults import FAR_WRITER, CannotRun, Stage, play
from tests.torture.judge import Case, at_the_end, delays, percentile, resurrected, unheard
from tests.torture.look import Looker
from tests.torture.phases import Phase
from tests.torture.worker import CONNECT_TIMEOUT, MAX_STALENESS, REDIS_TIMEOUT, Figures, Plan, Sample, work
from tests.torture.writes import WRITE_PAUSE

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
UNNOTICED = 0.02
"""How far the hit rate may fall in a fault that nobody may notice: the median of its windows, which a clear or an
invalidation of tags now and then does not move. Before and in it the same work is done, since the hit rate depends on
what is written: of two random loads, it differs by several percent without any fault."""
NARROW = int(0.1e9)
"""ns of the windows whose median is taken."""
LONGER = 3
"""How many times as long as others such a fault is, since a difference of rates needs many reads."""
BUDGET = 2.0
"""How many times a raw subscriber's p99 a drop from L1 may take."""
SLACK = 100.0
"""ms by which the worst staleness may exceed that, since it is one read of thousands."""
SAMPLES = 200
"""Fewer delays tell nothing of a p99."""
INVARIANTS = ("stale", "monotonic", "own-write", "resurrected", "lost", "diverged", "atomic", "raised")


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
    unheard: int = 0
    """Acknowledged writes that a process did not hear of though its bus stayed whole."""
    hits: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """L1's hit rate before, in and after the fault."""
    back: float | None = None
    """Seconds after the fault until the hit rate was back."""
    medians: tuple[float, float] | None = None
    """L1's hit rate before and in a fault that nobody may notice, as medians."""
    flushes: int = 0
    """Flushes in such a fault."""
    proven: float | None = 0.0
    """Seconds of a fault that must heal until all had a proven L1 again."""
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
        if self.proven is None or (self.judge_speed and self.proven > RECOVERY):
            found.append("not proven")
        if self.flushes:
            found.append("flushes")
        if self.judge_speed and self.medians is not None and self.medians[0] - self.medians[1] > UNNOTICED:
            found.append("noticed")
        if self.judge_speed and self.compared >= SAMPLES:
            drops_late = self.dropped > BUDGET * self.raw
            serves_late = self.worst > BUDGET * self.raw_worst + SLACK
            found += ["slow"] if drops_late or serves_late else []
        if self.judge_speed and self.unheard:  # a bus that is cut for want of processor time misses some
            found.append("unheard")
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


@contextmanager
def _stage(phase: Phase, kind: str, options: Options, book: Book, notes: list[str]) -> Iterator[Stage]:
    """Server, proxies, processes and looker of a phase; its clients are connected."""
    seed = f"{options.seed} {phase.name}"
    seconds = max(options.seconds * FAULT * (LONGER if phase.unnoticed else 1), phase.least)
    with ExitStack() as cleanup:
        clock = Path()
        if phase.sentinel:
            group = cleanup.enter_context(sentinels.group(kind))
            server = group.servers[0]
        elif not phase.clock:
            server = cleanup.enter_context(servers.make(kind))
        elif servers.FAKETIME is None:
            raise CannotRun(servers.NO_FAKETIME)
        else:
            server, clock = cleanup.enter_context(servers.with_clock(kind))
        near = cleanup.enter_context(FaultProxy(server.port))
        far = cleanup.enter_context(FaultProxy(server.port))
        urls = (group.url, group.url) if phase.sentinel else (near.url, far.url)
        plans = _plans(phase, *urls, seed, options)
        crew = cleanup.enter_context(Crew(work, {plan.who: (plan, book) for plan in plans}))
        looker = cleanup.enter_context(Looker(server.port))
        stage = Stage(kind, server, near, far, random.Random(seed), seconds, cleanup, options.without, notes=notes)
        stage.crew, stage.looker, stage.clock = crew, looker, clock
        if phase.sentinel:
            stage.group = group
        phase.prepare(stage)
        yield stage


def _run(phase: Phase, kind: str, options: Options, result: Result, cleanup: ExitStack) -> None:
    folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="nearcache-torture-")))
    longest = options.seconds * LONGER + phase.least + 10
    book = Book(folder / "book", 200 + int(4 * longest / WRITE_PAUSE), REDIS_TIMEOUT + CONNECT_TIMEOUT)
    stage = cleanup.enter_context(_stage(phase, kind, options, book, result.notes))
    crew = stage.crew
    crew.ask("start")
    began = now()
    time.sleep(options.seconds * BEFORE)
    if phase.unnoticed:
        crew.ask("again")
        began = now()
        time.sleep(stage.seconds)
        crew.ask("again")
    fault = now()
    play(phase.fault, stage)
    healed = now()
    time.sleep(max(options.seconds * AFTER, RECOVERY))
    ended = now()
    crew.ask("rest")
    # What nobody was told of may be served for so long, and not longer.
    time.sleep((phase.agreement or MAX_STALENESS) + 0.1)
    crew.ask("stop")
    kept = crew.ask("compare")
    case = Case(book, int(MAX_STALENESS * 1e9), stage.window)
    lost, diverged = at_the_end(kept, stage.looker.look(), case)
    result.violations["lost"] += lost
    result.violations["diverged"] += diverged.values()
    result.violations["resurrected"] += resurrected(stage.looker.seen, case)
    result.violations["raised"] += stage.raised
    if unanswered := sum(book.unanswered(*write) for write in book.writes()):
        result.notes.append(f"{unanswered} versions not acknowledged")
    if lost_writes := sum(book.lost(*write, stage.window) for write in book.writes()):
        result.notes.append(f"{lost_writes} versions that a change of servers may have lost")
    figures: Sequence[Figures] = crew.ask("report", stage.window)
    if not phase.loses:
        operations = [operation for one in figures for operation in one.operations]
        result.violations["atomic"] += violations(operations, [clear for one in figures for clear in one.clears])
    _sum_up(result, figures, book, (began, fault, healed, ended), phase)


def _plans(phase: Phase, near: str, far: str, seed: str, options: Options) -> list[Plan]:
    common = {"seed": seed, "ttl": phase.agreement or LONG_TTL, "without": options.without}
    readers = {"raw": phase.whole, "loads": phase.loads, **common}
    return [
        Plan("threads", "threads", near, **readers),  # type: ignore[arg-type]
        Plan("asyncio", "asyncio", near, **readers),  # type: ignore[arg-type]
        Plan("near writer", "threads", near, writer=0, **common),  # type: ignore[arg-type]
        Plan(FAR_WRITER, "asyncio", far, writer=1, clears=not phase.killed, **common),  # type: ignore[arg-type]
    ]


def _sum_up(
    result: Result, figures: Sequence[Figures], book: Book, times: tuple[int, int, int, int], phase: Phase
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
    if phase.whole:
        dropped = [delay for one in readers for delay in delays(one.dropped, book)]
        raw = [delay for one in readers for delay in delays(one.raw, book)]
        result.dropped, result.raw = percentile(dropped, 0.99), percentile(raw, 0.99)
        result.raw_worst = percentile(raw, 1)
        result.unheard = sum(unheard(one.dropped, book) for one in figures)
        result.compared = min(len(dropped), len(raw))
    samples = [one.samples for one in readers]
    warm = began + (fault - began) // 3
    result.hits = (_hits(samples, warm, fault), _hits(samples, fault, healed), _hits(samples, healed, ended))
    at = healed
    while result.back is None and at + WINDOW <= ended:
        if _hits(samples, at, at + WINDOW) >= BACK * result.hits[0]:
            result.back = (at - healed) / 1e9
        at += WINDOW // 6
    everybody = [one.samples for one in figures]
    if phase.unnoticed:
        lasted = healed - fault
        result.medians = _median(everybody, began, began + lasted), _median(everybody, fault, healed)
        for line in everybody:
            inside = _within(line, fault, healed)
            result.flushes += inside[-1].flushes - inside[0].flushes
        before, during = result.medians
        result.notes.append(f"hits, medians: {before:.1%} before, {during:.1%} in it, {result.flushes} flushes")
    if phase.heals:
        # From the first sample on behind which, until the fault's end, every L1 was proven.
        inside = [one for line in everybody for one in _within(line, fault, healed)]
        lacking = max((one.when for one in inside if not one.healthy), default=fault)
        result.proven = None if lacking > healed - WINDOW else (lacking - fault) / 1e9
        result.notes.append("never proven in it" if result.proven is None else f"proven after {result.proven:.2f} s")


def _within(line: Sequence[Sample], begin: int, end: int) -> list[Sample]:
    return [one for one in line if begin <= one.when <= end]


def _hits(samples: Sequence[Sequence[Sample]], begin: int, end: int) -> float:
    """The part of the reads in a window that L1 answered."""
    hits = reads = 0
    for line in samples:
        if inside := _within(line, begin, end):
            hits += inside[-1].hits - inside[0].hits
            reads += inside[-1].reads - inside[0].reads
    return hits / reads if reads else 0.0


def _median(samples: Sequence[Sequence[Sample]], begin: int, end: int) -> float:
    """The median of the hit rates of the windows in a time."""
    windows = range(begin, max(end - NARROW, begin) + 1, NARROW)
    return statistics.median(_hits(samples, at, at + NARROW) for at in windows)


def known(result: Result) -> Mapping[str, int]:
    """How many violations of each kind tell of a write that was not acknowledged."""
    return {
        invariant: sum("not acknowledged" in line for line in lines) for invariant, lines in result.violations.items()
    }
