"""The show on a terminal: what has happened above, a table of the workers that moves below."""

from __future__ import annotations

import time
from typing import Self

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nearcache.cli.demo.crew import Crew
from nearcache.cli.demo.figures import Figures, quantile_us
from nearcache.cli.demo.latency import Latencies
from nearcache.cli.demo.words import HEADINGS, TIER_NAMES, conclusions, duration, verdict

FRAMES_PER_SECOND = 5
COLOURS = {"l1": "green", "l2": "yellow", "database": "red"}


class LiveScreen:
    """A terminal screen; a context manager, so that the terminal is always given back.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # Drawn by our own calls alone: a thread that draws would run into the measurements.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._spinner = Spinner("dots")
        self._title = ""
        self._due = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def phase(self, number: int, title: str, explanation: str) -> None:
        """A heading above the table."""
        count = f"{number}/{len(HEADINGS)} " if number else ""
        self._console.print(Text.assemble((f"{count}{title}", "bold cyan"), "  ", (explanation, "dim")))
        self._title = title
        self._spinner.update(text=title)
        self._live.update(self._spinner, refresh=True)
        self._due = 0.0

    def draw(self, crew: Crew, note: str) -> None:
        """The table, a few times a second."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 1 / FRAMES_PER_SECOND
            self._spinner.update(text=Text.assemble((self._title, "bold"), "  ", note))
            self._live.update(Group(workers_table(crew), self._spinner), refresh=True)

    def conclude(self, text: str) -> None:
        """The conclusion under the heading."""
        self._console.print(Padding(Text.assemble(("✓ ", "green"), text), (0, 0, 1, 2)))

    def finish(self, figures: Figures) -> None:
        """The summary in place of the table."""
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        self._console.print(summary(figures))


def workers_table(crew: Crew) -> Table:
    """A row for each worker: whether its L1 is proven, and this phase's answers and latencies of each tier."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    table.add_column("worker\nproven", justify="right")
    for tier, colour in COLOURS.items():
        table.add_column(f"{TIER_NAMES[tier]}\nanswers", justify="right", style=colour, min_width=9)
        table.add_column("\np50", justify="right", style=colour, min_width=6)
        table.add_column("\np99", justify="right", style=colour, min_width=6)
    for worker, tally in enumerate(crew.phase.tallies):
        proof = Text("●", "green") if crew.healthy[worker] else Text("○", "red")
        cells = [cell for tier in COLOURS for cell in _cells(tally.tiers[tier])]  # type: ignore[index]
        table.add_row(Text.assemble(f"{worker + 1} ", proof), *cells)
    return table


def _cells(seen: Latencies) -> tuple[str, str, str]:
    if not seen.count:
        return "·", "", ""
    return f"{seen.count:,}", duration(quantile_us(seen, 0.5)), duration(quantile_us(seen, 0.99))


def summary(figures: Figures) -> RenderableType:
    """One line of conclusion for each phase, and the verdict."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    for heading, conclusion in zip(HEADINGS, conclusions(figures), strict=True):
        table.add_row(heading.title, conclusion or Text("did not happen", "red"))
    failures = figures.failures()
    colour = "red" if failures else "green"
    lines = [Text(f"✗ {failure}", "red") for failure in failures]
    return Panel(
        Group(table, Text(""), *lines, Text(verdict(figures), f"bold {colour}")),
        title=f"nearcache demo, {figures.workers} workers, {figures.seconds:.0f} s",
        box=ROUNDED,
        border_style=colour,
        padding=(1, 2),
    )
