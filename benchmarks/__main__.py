"""Run sections of the benchmarks: ``python -m benchmarks [section ...] [--quick] [--json FILE]``.

The exit code is 0 only if every section found what must hold (a fast cache that serves old values is none), and every
line of the budget that was measured is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import blip, bus, coherence, concurrency, fleet, hits, memory, pauses, peers, races, scale, tiers
from benchmarks.report import Report, surroundings


def _races(report: Report) -> bool:
    code = races.main([])
    report.keep("races", {"exit code": code})
    return code == 0


SECTIONS: Mapping[str, Callable[[Report], bool]] = {
    "hits": hits.show,
    "tiers": tiers.show,
    "peers": peers.show,
    "concurrency": concurrency.show,
    "memory": memory.show,
    "scale": scale.show,
    "coherence": coherence.show,
    "races": _races,
    "bus": bus.show,
    "fleet": fleet.show,
    "blip": blip.show,
    "pauses": pauses.show,
}
"""Each prints its tables, keeps its figures in the report, and says whether what must hold did."""


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and updates; for a look, not for a record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")

    report = Report(surroundings(), quick=asked.quick)
    report.begin()
    failed = []
    for name in asked.sections or SECTIONS:
        report.section = name
        began = time.monotonic()
        if not SECTIONS[name](report):
            failed.append(name)
        print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)
    report.verdicts()
    if asked.json is not None:
        report.write(asked.json)
    if failed:
        print(f"\nFAILED: {', '.join(failed)}", file=sys.stderr)
    for line in report.missed:
        print(f"\n{line.verdict}: {'  '.join(line.row()[:3])}", file=sys.stderr)
    return 1 if failed or report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
