"""How results are printed: a line as each phase ends, a table per server, and figures for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.tables import Table
from tests.torture.run import BUDGET, INVARIANTS, RECOVERY, Result, known

EXAMPLES = 3
"""Violations of a kind that are told in full."""
HEAD = [
    "phase", "reads", "reads/s", "worst ms", "p99 ms", "drop p99", "raw p99", "ratio",
    *INVARIANTS, "hits before", "in", "after", "back s", "verdict",
]  # fmt: skip
NOTES = [
    "worst, p99: start of a read minus the earliest acknowledgement of a newer version, over all reads with a value",
    f"drop, raw: ms from a write to the drop in a reader's L1, and to a raw subscriber there; ≤ {BUDGET:g} times",
    f"back: until the hit rate of L1 is 90 % of that before, at most {RECOVERY:g} s",
]


def line(result: Result) -> str:
    """A phase in brief, with examples of what it found."""
    head = f"{result.server:<7} {result.phase:<18} {verdict(result)}"
    if result.not_run:
        return f"{head}: {result.not_run}"
    text = [f"{head}  {result.reads:,} reads, worst staleness {result.worst:.0f} ms"]
    for invariant in INVARIANTS:
        found = result.violations.get(invariant, [])
        if found:
            journal = known(result)[invariant]
            text.append(f"    {invariant}: {len(found)}, {journal} of them after writes that were not acknowledged")
            # Those that no unknown outcome explains first.
            found = sorted(found, key=lambda one: "not acknowledged" in one)
            text += [f"      {one}" for one in found[:EXAMPLES]]
    return "\n".join(text)


def verdict(result: Result) -> str:
    """In a word or two."""
    if result.not_run:
        return "NOT RUN"
    return f"FAILED ({', '.join(result.failures)})" if result.failures else "holds"


def table(kind: str, results: Sequence[Result]) -> Table:
    """All phases on a server."""
    notes = list(NOTES)
    for result in results:
        writes = ", ".join(f"{count} {what}" for what, count in sorted(result.done.items()))
        notes.append(f"{result.phase}: {'; '.join([writes, *result.notes])}")
    return Table(f"Phases on {kind}", HEAD, [_row(result) for result in results], notes)


def _row(result: Result) -> list[str]:
    if result.not_run:
        return [result.phase, *[""] * (len(HEAD) - 2), "NOT RUN"]
    compared = (
        [f"{result.dropped:.1f}", f"{result.raw:.1f}", f"{result.dropped / result.raw:.2f}"] if result.raw else []
    )
    return [
        result.phase,
        f"{result.reads:,}",
        f"{result.rate:,.0f}",
        f"{result.worst:.1f}",
        f"{result.p99:.1f}",
        *(compared or ["", "", ""]),
        *(str(result.count(invariant)) for invariant in INVARIANTS),
        *(f"{100 * part:.0f} %" for part in result.hits),
        "never" if result.back is None else f"{result.back:.2f}",
        verdict(result),
    ]


def figures(result: Result) -> dict[str, Any]:
    """A result as JSON has it."""
    return {
        **{name: value for name, value in vars(result).items() if name not in ("violations", "judge_speed")},
        "violations": {name: len(lines) for name, lines in result.violations.items()},
        "after unacknowledged writes": dict(known(result)),
        "examples": {name: lines[:EXAMPLES] for name, lines in result.violations.items() if lines},
        "verdict": verdict(result),
    }
