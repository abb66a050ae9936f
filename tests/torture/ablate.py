"""Each guard taken away: the schedules named for it must fail, and the phase that tells it; else the check is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from tests.support.ablations.guards import GUARDS
from tests.support.report import ROOT, Report
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
    schedules = _schedules()
    outcomes = []
    for name in names:
        outcomes.append(_without(name, schedules.get(GUARDS[name].rules.name, {}), phases, kind, options))
        print(_line(outcomes[-1]), flush=True)
    rows = [[one.guard, *_first(one)] for one in outcomes]
    report.show(Table("Guards taken away", ["guard", "verdict", "caught by", "assertion"], rows))
    report.keep("ablations", {one.guard: vars(one) for one in outcomes})
    return any(one.failed for one in outcomes)


def _schedules() -> Mapping[str, Mapping[str, str | None]]:
    """By rules that lack a guard, the schedules named for it: what each asserted, None: it held all the same.

    They run as the tests that they are, in a process of their own.
    """
    found: dict[str, dict[str, str | None]] = {}
    with TemporaryDirectory() as folder:
        told = Path(folder, "told.xml")
        test = "tests/schedules/test_named.py::test_a_schedule_fails_without_its_rule"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, f"--junitxml={told}"]
        subprocess.run([*command, "-o", "junit_family=xunit1"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        for case in ET.parse(told).iter("testcase"):
            schedule, _, rules = case.get("name", "").partition("[")[2].rstrip("]").partition("-")
            said = case.find("properties/property[@name='assertion']")
            found.setdefault(rules, {})[schedule] = said.get("value") if said is not None else None
    return found


def _without(
    name: str, schedules: Mapping[str, str | None], phases: Sequence[str] | None, kind: str, options: Options
) -> Outcome:
    guard, outcome = GUARDS[name], Outcome(name)
    if not schedules and guard.phase is None:
        outcome.not_run = f"no schedule is named for {guard.rules.name}, and no phase tells it"
    outcome.caught += [(schedule, said) for schedule, said in schedules.items() if said is not None]
    outcome.passed += [schedule for schedule, said in schedules.items() if said is None]
    for phase in phases or ([guard.phase] if guard.phase is not None else []):
        result = run_phase(PHASES[phase], kind, replace(options, without=name))
        if result.not_run:
            outcome.not_run = f"{phase}: {result.not_run}"
            continue
        found = [(one, result.violations[one]) for one in INVARIANTS if result.count(one)]
        if found:
            outcome.caught.append((f"checker, {phase}", f"{found[0][0]}: {len(found[0][1])}, as {found[0][1][0]}"))
        elif "flushes" in result.failures:
            outcome.caught.append((f"checker, {phase}", f"flushes: {result.flushes}, and nothing was lost"))
        elif "slow" in result.failures:
            worst = f"{result.worst:.0f} ms stale, a raw subscriber hears within {result.raw_worst:.0f} ms"
            outcome.caught.append((f"checker, {phase}", f"slow: {worst}"))
        else:
            outcome.unnoticed.append(f"checker, {show.line(result)}")
    return outcome


def _line(outcome: Outcome) -> str:
    lines = [f"without {outcome.guard}: {_first(outcome)[0]}"]
    lines += [f"    {by}: {assertion}" for by, assertion in outcome.caught]
    lines += [f"    NOT caught by {by}" for by in outcome.passed + outcome.unnoticed]
    return "\n".join([*lines, *([f"    {outcome.not_run}"] if outcome.not_run else [])])


def _first(outcome: Outcome) -> list[str]:
    verdict = "NOT RUN" if outcome.not_run else "UNCAUGHT" if outcome.failed else "caught"
    return [verdict, *(outcome.caught[0] if outcome.caught else ("", outcome.not_run))]
