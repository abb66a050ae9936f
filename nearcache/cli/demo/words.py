"""The show in words: what a phase is about, and what its figures say in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nearcache.cli.demo.figures import Check, Figures, Outage, Reads, Recovery, Updates

TIER_NAMES: Mapping[str, str] = {"l1": "L1", "l2": "L2", "database": "database"}


class Heading(NamedTuple):
    """A phase's title and what the audience is to watch."""

    title: str
    explanation: str


PREPARATION = Heading("Setting the stage", "{rows:,} rows in SQLite, a Valkey server, {workers} worker processes")
HEADINGS = (
    Heading("Reading", "L1 is the worker's own memory, L2 is Valkey, then the database"),
    Heading("Updates", "a row changes: how soon is the old report gone everywhere?"),
    Heading("Outage", "the server is killed, and the database goes on changing"),
    Heading("Recovery", "the server is back, empty: every L1 has to be proven again"),
    Heading("Check", "is every answer of every worker what the database says?"),
)


def duration(us: float) -> str:
    """A duration given in microseconds, with three figures at most.

    >>> duration(0.84), duration(31.4), duration(4620), duration(46_200), duration(1_250_000)
    ('0.8 µs', '31 µs', '4.6 ms', '46 ms', '1.25 s')
    """
    for limit, divisor, digits, unit in (
        (10, 1, 1, "µs"),
        (1_000, 1, 0, "µs"),
        (10_000, 1e3, 1, "ms"),
        (1_000_000, 1e3, 0, "ms"),
    ):
        if us < limit:
            return f"{us / divisor:.{digits}f} {unit}"
    return f"{us / 1e6:.2f} s"


def conclude_reading(seen: Reads) -> str:
    """How the tiers shared the work."""
    asked = seen.tiers["database"].answers / max(1, seen.answers)
    medians = ", ".join(f"{TIER_NAMES[name]} {duration(tier.p50_us)}" for name, tier in seen.tiers.items())
    return f"{seen.answers:,} answers, {asked:.1%} of them asked the database; median {medians}"


def conclude_updates(seen: Updates) -> str:
    """How fast a write is everywhere."""
    return (
        f"{seen.updates} updates, dropped elsewhere after {duration(seen.p50_us)} (median), {duration(seen.p99_us)} "
        f"(p99), {duration(seen.max_us)} (slowest of {seen.drops:,}); {seen.not_dropped} missed"
    )


def conclude_outage(seen: Outage, bound: float) -> str:
    """What went on without the server."""
    reads = seen.reads
    return (
        f"{reads.answers:,} answers ({reads.tiers['l1'].answers:,} L1, {reads.tiers['database'].answers:,} database), "
        f"{reads.errors} errors, none staler than {reads.worst_staleness_s:.2f} s (promised: {bound:g} s); "
        f"{seen.invalidations_refused} of {seen.updates} invalidations said False"
    )


def conclude_recovery(seen: Recovery) -> str:
    """How fast all is as it was."""
    return (
        f"all workers proven after {max(seen.healthy_after_s.values(), default=0.0):.2f} s, "
        f"L1 hits after {max(seen.l1_again_after_s.values(), default=0.0):.2f} s; "
        f"{seen.updates} new updates, dropped elsewhere after {duration(seen.p50_us)} (median)"
    )


def conclude_check(seen: Check, workers: int) -> str:
    """Whether all was right."""
    return (
        f"{seen.differences} of {seen.compared:,} answers differ, {seen.waited_s:g} s after the last invalidation; "
        f"control: {seen.control_caught} of {workers} made wrong on purpose were found"
    )


def conclusions(figures: Figures) -> list[str | None]:
    """One line for each phase in order; None for one that did not happen."""
    reading, updates, outage, recovery, check = (
        figures.reading,
        figures.updates,
        figures.outage,
        figures.recovery,
        figures.check,
    )
    return [
        None if reading is None else conclude_reading(reading),
        None if updates is None else conclude_updates(updates),
        None if outage is None else conclude_outage(outage, figures.max_staleness_s),
        None if recovery is None else conclude_recovery(recovery),
        None if check is None else conclude_check(check, figures.workers),
    ]


def verdict(figures: Figures) -> str:
    """The last line."""
    failures = figures.failures()
    if failures:
        return f"FAILED: {len(failures)} promise(s) not kept"
    total = sum(reads.answers for reads in figures.reads().values())
    return (
        f"All promises kept: {total:,} answers, each held against the database, none wrong, "
        f"none more than {figures.max_staleness_s:g} s stale"
    )
