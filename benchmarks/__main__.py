"""Run sections of the benchmarks: ``python -m benchmarks [section ...] [--quick] [--html FILE]``.

The exit code is 0 only if every section found what must hold (a fast cache that serves old values is none), and every
line of the budget that was measured is kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import charts, page
from benchmarks.sections import (
    bus,
    calls,
    capacity,
    cluster,
    concurrency,
    fleet,
    frameworks,
    hitratio,
    hits,
    imports,
    l2,
    local,
    memory,
    pauses,
    peers,
    scale,
    scripts,
    storm,
    tiers,
    values,
)
from tests.support.report import Report, surroundings

SECTIONS: Mapping[str, Callable[[Report], bool]] = {
    "hits": hits.show,
    "values": values.show,
    "tiers": tiers.show,
    "peers": peers.show,
    "concurrency": concurrency.show,
    "memory": memory.show,
    "scale": scale.show,
    "hitratio": hitratio.show,
    "local": local.show,
    "imports": imports.show,
    "calls": calls.show,
    "l2": l2.show,
    "cluster": cluster.show,
    "scripts": scripts.show,
    "bus": bus.show,
    "fleet": fleet.show,
    "storm": storm.show,
    "pauses": pauses.show,
    "capacity": capacity.show,
    "frameworks": frameworks.show,
}
"""Each prints its tables, keeps its figures in the report, and returns whether what must hold did."""

QUICK = ("hits", "values", "tiers", "peers", "memory", "scale", "hitratio", "imports", "calls", "scripts")
"""What --quick runs when no section is named: less than two minutes. The others need many processes."""


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer sections and rounds; for a look, not for a record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with charts there")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write each chart there")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="the same as SVG")
    parser.add_argument("--from", type=Path, dest="earlier", metavar="FILE", help="run nothing: draw this JSON")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="access traces for hitratio: *.trace.xz, *.trace.gz")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    if (asked.png or asked.svg) and not _can_draw():  # it is said before hours of measuring, not after
        option = "--png" if asked.png else "--svg"
        parser.error(f"{option} needs matplotlib, which `make bench` installs with the extra `bench`")
    if asked.earlier is not None:
        _draw(json.loads(asked.earlier.read_text()), asked)
        return 0
    report = Report(surroundings(), quick=asked.quick, traces=asked.traces)
    report.begin()
    chosen = asked.sections or (QUICK if asked.quick else tuple(SECTIONS))
    code = report.run({name: SECTIONS[name] for name in chosen})
    if not asked.sections and len(chosen) < len(SECTIONS):
        print(f"\nNOT RUN with --quick: {', '.join(name for name in SECTIONS if name not in chosen)}")
    if asked.json is not None:
        report.write(asked.json)
    # By way of JSON, so that what is drawn now is what an earlier run would be drawn from.
    _draw(json.loads(json.dumps(report.whole())), asked)
    return code


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _draw(whole: Mapping[str, Any], asked: argparse.Namespace) -> None:
    """Write the page and the pictures that were asked for."""
    if asked.html is not None:
        asked.html.write_text(page.render(whole, charts.svg if _can_draw() else None))
        print(f"\n{asked.html}" + ("" if _can_draw() else ": without charts, as matplotlib is not installed"))
    for write, folder in ((charts.png, asked.png), (charts.svg_file, asked.svg)):
        if folder is not None:
            for shown in whole["shown"].values():
                for chart in shown["charts"]:
                    print(write(chart, folder))


if __name__ == "__main__":
    sys.exit(main())
