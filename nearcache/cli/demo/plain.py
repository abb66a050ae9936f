"""The show as lines of text, for logs; and as nothing at all, for those who want the figures only."""

from __future__ import annotations

import time

from nearcache.cli.demo.crew import Crew
from nearcache.cli.demo.figures import Figures, quantile_us
from nearcache.cli.demo.words import TIER_NAMES, duration, verdict

LINE_EVERY = 1.0


class PlainScreen:
    """One line for each thing that happens, and one each second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._due = 0.0

    def phase(self, number: int, title: str, explanation: str) -> None:
        """Say what comes."""
        self._line(f"{number} {title}: {explanation}")
        self._due = time.monotonic() + LINE_EVERY

    def draw(self, crew: Crew, note: str) -> None:
        """Say how far it has come, once a second."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LINE_EVERY
        total = crew.phase.total
        tiers = ", ".join(
            f"{TIER_NAMES[name]} {seen.count} (p50 {duration(quantile_us(seen, 0.5))})"
            for name, seen in total.tiers.items()
            if seen.count
        )
        self._line(
            f"  {total.answers} answers: {tiers}; {sum(crew.healthy)} of {len(crew.healthy)} workers proven"
            + (f"; {note}" if note else "")
        )

    def conclude(self, text: str) -> None:
        """Say what came of it."""
        self._line(f"  = {text}")

    def finish(self, figures: Figures) -> None:
        """Say whether it was well."""
        for failure in figures.failures():
            self._line(f"  ! {failure}")
        self._line(verdict(figures))

    def _line(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)


class SilentScreen:
    """Nothing."""

    def phase(self, number: int, title: str, explanation: str) -> None:
        """Say nothing."""

    def draw(self, crew: Crew, note: str) -> None:
        """Say nothing."""

    def conclude(self, text: str) -> None:
        """Say nothing."""

    def finish(self, figures: Figures) -> None:
        """Say nothing."""
