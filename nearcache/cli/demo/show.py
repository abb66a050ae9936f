"""The output while the demo runs: lines, and the figures of the workers in a table, which is live on a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nearcache.cli.demo.workers import TIERS, Workers

COLOURS = {"l1": "green", "l2": "yellow", "database": "red"}
LIVE_EVERY, PLAIN_EVERY = 0.2, 2.0  # seconds


def duration(us: float) -> str:
    """A duration that is given in microseconds, with its unit.

    >>> duration(0.84), duration(31.4), duration(4620), duration(1_250_000)
    ('0.8 µs', '31 µs', '4.6 ms', '1.2 s')
    """
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{value:.{int(value < 10)}f} {unit}"


class Show(Live):
    """Prints lines and, from time to time, a table: on a terminal in place, drawn by no thread that would disturb."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, auto_refresh=False, transient=True)
        self._began, self._due = time.monotonic(), 0.0

    def line(self, text: str, style: str = "") -> None:
        """Print a line with the seconds since the start."""
        self.console.print(Text(f"[{time.monotonic() - self._began:5.1f} s] {text}", style), soft_wrap=True)

    def progress(self, workers: Workers, note: str) -> None:
        """Show the figures of the phase, if the last ones are old enough."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + (LIVE_EVERY if self.console.is_terminal else PLAIN_EVERY)
        if self.console.is_terminal:
            self.update(table(workers, note), refresh=True)
        else:
            self.console.print(table(workers, note))


def table(workers: Workers, note: str) -> Table:
    """One row for each worker: its health, and the answers and latencies of each tier in this phase."""
    table = Table("worker", "healthy", box=None, pad_edge=False, padding=(0, 1, 0, 0), caption=note)
    for tier, colour in COLOURS.items():
        for title in (TIERS[tier], "p50", "p99"):
            table.add_column(title, justify="right", style=colour, min_width=6)
    for worker in workers:
        cells: list[str | Text] = [str(worker.number), Text("yes", "green") if worker.healthy else Text("no", "red")]
        for seen in worker.counts.tiers.values():
            cells += [f"{seen.total():,}", duration(seen.quantile_us(0.5)), duration(seen.quantile_us(0.99))]
        table.add_row(*cells)
    return table
