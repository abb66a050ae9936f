"""The demo on a terminal that moves, as lines of text for a log, or as nothing for those who want the figures."""

from __future__ import annotations

import time
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nearcache.cli.demo.judge import TIERS, quantile_us
from nearcache.cli.demo.workers import Workers

COLOURS = {"l1": "green", "l2": "yellow", "database": "red"}


def duration(us: float) -> str:
    """Microseconds as one would say them.

    >>> duration(0.84), duration(31.4), duration(4620), duration(1_250_000)
    ('0.8 µs', '31 µs', '4.6 ms', '1.25 s')
    """
    if us < 1_000:
        return f"{us:.1f} µs" if us < 10 else f"{us:.0f} µs"
    return f"{us / 1e3:.1f} ms" if us < 1_000_000 else f"{us / 1e6:.2f} s"


def conclusions(figures: dict[str, Any]) -> list[str]:
    """One line for each phase that happened, and the verdict."""
    lines = []
    if reads := figures.get("reading"):
        medians = ", ".join(f"{tier} {duration(seen['p50_us'])}" for tier, seen in reads["tiers"].items())
        lines.append(f"reading: {reads['answers']:,} answers; median {medians}")
    if seen := figures.get("updates"):
        p50, p99 = duration(seen["p50_us"]), duration(seen["p99_us"])
        lines.append(f"updates: {seen['updates']}, dropped elsewhere after {p50} (median), {p99} (p99)")
    if seen := figures.get("outage"):
        worst, bound = seen["reads"]["worst_staleness_s"], figures["max_staleness_s"]
        lines.append(
            f"outage: {seen['reads']['answers']:,} answers, none staler than {worst:.2f} s (promised: {bound:g} s)"
        )
    if seen := figures.get("recovery"):
        proven, hits = (max(seen[name].values(), default=0.0) for name in ("healthy_after_s", "l1_again_after_s"))
        lines.append(f"recovery: all workers proven after {proven:.2f} s, L1 hits after {hits:.2f} s")
    if seen := figures.get("check"):
        lines.append(
            f"check: {seen['differences']} of {seen['compared']:,} answers differ; "
            f"control: {seen['control_caught']} of {figures['workers']} made wrong on purpose were found"
        )
    lines += [f"! {failure}" for failure in figures["failures"]]
    return [*lines, "All promises kept." if figures["ok"] else f"FAILED: {len(figures['failures'])} promises not kept"]


class Silent:
    """Nothing is shown."""

    def phase(self, name: str, explanation: str) -> None:
        """Show nothing."""

    def draw(self, workers: Workers, note: str) -> None:
        """Show nothing."""

    def finish(self, figures: dict[str, Any]) -> None:
        """Show nothing."""


class Plain(Silent):
    """A line when a phase begins, one each second, and the conclusions at the end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._due = 0.0

    def phase(self, name: str, explanation: str) -> None:
        """A line."""
        self._line(f"{name}: {explanation}")

    def draw(self, workers: Workers, note: str) -> None:
        """A line, once a second."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 1
            counts = ", ".join(f"{tier} {sum(len(one.took[tier]) for one in workers.tallies)}" for tier in TIERS)
            self._line(f"  answers: {counts}; {workers.proven} of {len(workers.all)} workers proven  {note}")

    def finish(self, figures: dict[str, Any]) -> None:
        """The conclusions."""
        for line in conclusions(figures):
            self._line(line)

    def _line(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)


class LiveTable(Silent):
    """A table of the workers that moves; what is over stands above it. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Drawn by our own calls alone: a thread that draws would run into the measurements.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._due = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def phase(self, name: str, explanation: str) -> None:
        """A heading above the table."""
        self._console.print(Text.assemble((name, "bold cyan"), "  ", (explanation, "dim")))

    def draw(self, workers: Workers, note: str) -> None:
        """The table, a few times a second."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 0.2
            self._live.update(Group(table(workers), Text(note, "bold")), refresh=True)

    def finish(self, figures: dict[str, Any]) -> None:
        """The conclusions in place of the table."""
        self._live.stop()
        for line in conclusions(figures):
            self._console.print(Text(line, "red" if line.startswith(("!", "FAILED")) else "green"))


def table(workers: Workers) -> Table:
    """A row for each worker: whether its L1 is proven, and this phase's answers and latencies of each tier."""
    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    shown.add_column("worker\nproven", justify="right")
    for tier, colour in COLOURS.items():
        for head in (f"{tier}\nanswers", "\np50", "\np99"):
            shown.add_column(head, justify="right", style=colour, min_width=8)
    for worker, tally in enumerate(workers.tallies):
        changes, cells = workers.health[worker], []
        for tier in TIERS:
            ns = tally.took[tier]
            cells += (
                [f"{len(ns):,}", *(duration(quantile_us(ns, part)) for part in (0.5, 0.99))] if ns else ["·", "", ""]
            )
        shown.add_row(f"{worker + 1} {'●' if changes and changes[-1][1] else '○'}", *cells)
    return shown
