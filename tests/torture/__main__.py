"""The checker: ``python -m tests.torture [--phase ...] [--ablate NAME | --ablations] [scenarios [NAME ...]]``.

Without further words it runs the phases. ``scenarios`` runs whole situations instead: a stampede, a hot key, an outage.
The exit code is 0 only if all that was run holds.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.support import servers
from tests.support.ablations.guards import GUARDS
from tests.support.processes import Crew
from tests.support.report import ROOT, Report, surroundings
from tests.torture import ablate, show
from tests.torture.phases import PHASES
from tests.torture.run import Options, Result, run_phase
from tests.torture.scenarios import SCENARIOS

SECONDS, SHORT_SECONDS = 8.0, 3.0


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    asked = _parser().parse_args(arguments)
    Crew.python = asked.python
    report = Report(surroundings(), quick=asked.short, seconds=asked.seconds)
    report.begin()
    print(f"{'processes:':<12}{_version(asked.python)}")
    if asked.words:
        return _scenarios(asked.words, asked.json, report)
    seconds = asked.seconds or (SHORT_SECONDS if asked.short else SECONDS)
    options = Options(seconds, random.randrange(1 << 32) if asked.seed is None else asked.seed, asked.ablate)
    options = replace(options, judge_speed=not asked.short)
    print(f"{'seed:':<12}{options.seed}\n{'phases:':<12}{seconds:g} s each, max_staleness 1 s")
    kinds = servers.KINDS if asked.server == "both" else (asked.server,)
    if asked.ablations or asked.ablate:
        failed = ablate.run([asked.ablate] if asked.ablate else list(GUARDS), asked.phase, kinds[0], options, report)
    else:
        failed = _phases(asked.phase or list(PHASES), kinds, options, report)
        if asked.server == "both" and servers.NOT_RUN:
            print(f"NOT RUN: {servers.NOT_RUN}")
            failed = True
    if asked.json is not None:
        report.write(asked.json)
    if failed:
        print(f"\nFAILED; again with --seed {options.seed}", file=sys.stderr)
    return int(failed)


def _version(python: str) -> str:
    """What an interpreter is, on which the library has to run."""
    code = "import platform, nearcache.log; print(platform.python_implementation(), platform.python_version())"
    try:
        return subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{python} does not run the library: {getattr(error, 'stderr', '') or error}") from None


def _scenarios(words: list[str], json: Path | None, report: Report) -> int:
    kind, *names = words
    unknown = [name for name in names if name not in SCENARIOS]
    if kind != "scenarios" or unknown:
        _parser().error(f"unknown: {', '.join(unknown or [kind])}; scenarios are {', '.join(SCENARIOS)}")
    code = report.run({name: SCENARIOS[name] for name in names or SCENARIOS})
    if json is not None:
        report.write(json)
    return code


def _phases(names: list[str], kinds: tuple[str, ...], options: Options, report: Report) -> bool:
    results: list[Result] = []
    for kind in kinds:
        for name in names:
            results.append(run_phase(PHASES[name], kind, options))
            print(show.line(results[-1]), flush=True)
    for kind in kinds:
        own = [result for result in results if result.server == kind]
        report.show(show.table(kind, own))
    report.keep("phases", {"seed": options.seed, "results": [show.figures(result) for result in results]})
    return any(result.failures for result in results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("words", nargs="*", metavar="scenarios [NAME ...]", help=f"of: {', '.join(SCENARIOS)}")
    parser.add_argument("--server", choices=("valkey", "redis", "both"), default="both", help="both by default")
    parser.add_argument("--seconds", type=float, help=f"per phase, {SECONDS:g} by default; of the scenario faults")
    parser.add_argument("--seed", type=int, help="as an earlier run printed it")
    parser.add_argument("--phase", nargs="+", choices=PHASES, metavar="NAME", help=f"of: {', '.join(PHASES)}")
    parser.add_argument("--short", action="store_true", help="short phases; speed is not judged")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="of the processes' interpreter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    without = parser.add_mutually_exclusive_group()
    without.add_argument("--ablate", choices=GUARDS, metavar="NAME", help=f"a guard off: {', '.join(GUARDS)}")
    without.add_argument("--ablations", action="store_true", help="each guard off in turn; all must be caught")
    return parser


if __name__ == "__main__":
    sys.exit(main())
