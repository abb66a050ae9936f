"""Each guard taken away: the schedules named for it must fail, and the phase that tells it; else the check is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.ablations.guards import GUARDS, Guard
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture import show
from tests.torture.phases import PHASES
from tests.torture.run import INVARIANTS, Options, run_phase


@dataclass
class Outcome:
    """What caught the absence of a guard."""

    guard: str
    caught: list[tuple[str, str]] = field(default_factory=list)
    """By what, and the assertion that it made."""
    passed: list[str] = field(default_factory=list)
    """Schedules that ought to have caught it, and did not."""
    unnoticed: list[str] = field(default_factory=list)
    """Phases in which nothing showed: what they catch depends on the moment."""
    not_run: str = ""

    @property
    def failed(self) -> bool:
        """Whether the guard could go unnoticed."""
        return bool(self.not_run or not self.caught or self.passed)


def run(names: Sequence[str], phases: Sequence[str] | None, kind: str, options: Options, report: Report) -> bool:
    """Take away each of these guards; whether one went unnoticed."""
    outcomes = []
    for name in names:
        outcomes.append(_without(name, phases, kind, options))
        print(_line(outcomes[-1]), flush=True)
    rows = [[one.guard, *_first(one)] for one in outcomes]
    report.show(Table("Guards taken away", ["guard", "verdict", "caught by", "assertion"], rows))
    report.keep("ablations", {one.guard: vars(one) for one in outcomes})
    return any(one.failed for one in outcomes)


def _without(name: str, phases: Sequence[str] | None, kind: str, options: Options) -> Outcome:
    from tests.schedules import named, test_named  # a run without ablations needs no schedules

    assert test_named.TOPICS  # imported, each has registered its schedules
    guard, outcome = GUARDS[name], Outcome(name)
    schedules = [schedule for schedule, lacking in named.NAMED if lacking is guard.rules]
    if not schedules and guard.phase is None:
        outcome.not_run = f"no schedule is named for {guard.rules.name}, and no phase tells it"
    for schedule in schedules:
        _try(schedule, guard.rules, outcome)
    for phase in phases or _telling(guard):
        result = run_phase(PHASES[phase], kind, replace(options, without=name))
        if result.not_run:
            outcome.not_run = f"{phase}: {result.not_run}"
            continue
        found = [(one, result.violations[one]) for one in INVARIANTS if result.count(one)]
        if found:
            outcome.caught.append((f"checker, {phase}", f"{found[0][0]}: {len(found[0][1])}, as {found[0][1][0]}"))
        elif "slow" in result.failures:
            worst = f"{result.worst:.0f} ms stale, a raw subscriber hears within {result.raw_worst:.0f} ms"
            outcome.caught.append((f"checker, {phase}", f"slow: {worst}"))
        else:
            outcome.unnoticed.append(f"checker, {show.line(result)}")
    return outcome


def _telling(guard: Guard) -> list[str]:
    return [guard.phase] if guard.phase is not None else []


def _try(schedule: Callable[[Any], None], rules: Any, outcome: Outcome) -> None:
    from tests.schedules.invariant import Violated

    try:
        schedule(rules)
    except Violated as violated:
        outcome.caught.append((schedule.__name__, str(violated)))
    else:
        outcome.passed.append(schedule.__name__)


def _line(outcome: Outcome) -> str:
    lines = [f"without {outcome.guard}: {_first(outcome)[0]}"]
    lines += [f"    {by}: {assertion}" for by, assertion in outcome.caught]
    lines += [f"    NOT caught by {by}" for by in outcome.passed + outcome.unnoticed]
    return "\n".join([*lines, *([f"    {outcome.not_run}"] if outcome.not_run else [])])


def _first(outcome: Outcome) -> list[str]:
    verdict = "NOT RUN" if outcome.not_run else "UNCAUGHT" if outcome.failed else "caught"
    return [verdict, *(outcome.caught[0] if outcome.caught else ("", outcome.not_run))]
