"""What the phases play on: the database, the server, the workers, and the plan; set up and cleared away again."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nearcache.cli.demo import database
from nearcache.cli.demo.crew import Crew, DemoFailed
from nearcache.cli.demo.figures import Figures
from nearcache.cli.demo.stream import ranking
from nearcache.cli.demo.truth import Ledger
from nearcache.cli.demo.worker import WorkerConfig
from nearcache.transport.embedded import EmbeddedServer

LONGEST_STALENESS = 2.0
READS_PER_SECOND = 200.0
TTL = 60.0
# Half of the reports fit, so that L2 has something to do as well.
L1_MAX_ENTRIES = database.CATEGORIES // 2
START_TIMEOUT = 20.0


class Screen(Protocol):
    """Who tells the audience."""

    def phase(self, number: int, title: str, explanation: str) -> None:
        """A phase begins; 0 is the preparation."""

    def draw(self, crew: Crew, note: str) -> None:
        """Something may have moved; called often, between measurements and never during one.

        Args:
            crew: whose phase is on.
            note: the phase's own news, in a few words.
        """

    def conclude(self, text: str) -> None:
        """The phase is over, and this is what it has shown."""

    def finish(self, figures: Figures) -> None:
        """All is over: the summary and the verdict."""


@dataclass(frozen=True)
class Options:
    """What the user may choose: seconds for the whole, how many processes, and the seed of all that is random."""

    duration: float
    workers: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """How long what may take, in seconds, scaled from the wished duration of the whole.

    >>> Plan.of(25.0).max_staleness, Plan.of(8.0).max_staleness
    (2.0, 1.0)
    """

    reading: float
    updates: float
    updates_at_least: int
    outage: float
    recovery: float
    max_staleness: float

    @classmethod
    def of(cls, duration: float) -> Plan:
        """The plan for a show of this many seconds."""
        max_staleness = min(LONGEST_STALENESS, duration / 8)
        return cls(
            reading=0.2 * duration,
            updates=0.26 * duration,
            updates_at_least=round(min(200.0, 8 * duration)),
            # longer than L1 may answer without proof, so that both ways to go on are seen
            outage=max_staleness + 0.1 * duration,
            recovery=0.08 * duration,
            max_staleness=max_staleness,
        )


@dataclass(kw_only=True)
class Stage:
    """Everything that a phase needs: who plays, what there is to read, and what answers are judged by."""

    plan: Plan
    crew: Crew
    server: EmbeddedServer
    shop: database.Shop
    ledger: Ledger
    screen: Screen
    ranked: list[int]
    """The reports, hottest first."""
    random: random.Random
    """Chooses what changes."""
    note: str = ""
    """The phase's news, for the audience."""

    def change(self, category: int) -> int:
        """Change a row, commit, note it in the ledger; the report's new revision."""
        report = self.shop.change(category)
        self.ledger.committed(report, time.monotonic_ns())
        return report["revision"]

    def listen(self, seconds: float) -> None:
        """Let the workers work, and show it."""
        self.listen_until(lambda: False, seconds)

    def listen_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let the workers work until ``done()``, for at most this long; whether it was done."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            self.crew.listen(max(0.0, min(left, 0.1)))
            self.screen.draw(self.crew, self.note)
            if left <= 0:
                return False
        return True


@contextmanager
def stage(options: Options, screen: Screen) -> Iterator[Stage]:
    """Build the database, start server and workers; afterwards leave no process and no file.

    Raises:
        ConfigError: when there is no server to start, with the way out.
        DemoFailed: when a worker did not come up.
    """
    plan = Plan.of(options.duration)
    with tempfile.TemporaryDirectory(prefix="nearcache-demo-") as folder, EmbeddedServer() as server:
        path = Path(folder) / "shop.db"
        database.build(path, options.seed)
        shop = database.Shop(path)
        ledger = Ledger()
        crew = Crew([_config(options, plan, server.url, path, number) for number in range(options.workers)], ledger)
        try:
            # while the workers start: how every report is before anybody reads it
            for category in range(1, database.CATEGORIES + 1):
                ledger.committed(shop.report(category), time.monotonic_ns())
            crew.tell(crew.everyone, "healthy", START_TIMEOUT / 2)
            if not all(crew.collect("healthy", crew.everyone, START_TIMEOUT).values()):
                raise DemoFailed("a worker's cache was not proven coherent within 10 s of its start")
            yield Stage(
                plan=plan,
                crew=crew,
                server=server,
                shop=shop,
                ledger=ledger,
                screen=screen,
                ranked=ranking(database.CATEGORIES, options.seed),
                random=random.Random(options.seed),
            )
        finally:
            crew.close()
            shop.close()


def _config(options: Options, plan: Plan, url: str, path: Path, number: int) -> WorkerConfig:
    return WorkerConfig(
        number=number,
        url=url,
        namespace="demo",
        database=path,
        seed=options.seed,
        reads_per_second=READS_PER_SECOND,
        ttl=TTL,
        l1_max_entries=L1_MAX_ENTRIES,
        max_staleness=plan.max_staleness,
    )
