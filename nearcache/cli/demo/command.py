"""The command `nearcache demo`: options, the choice of the screen, the exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from nearcache.cli.demo.figures import Figures
from nearcache.cli.demo.plain import PlainScreen, SilentScreen
from nearcache.cli.demo.screen import LiveScreen
from nearcache.cli.demo.stage import Options
from nearcache.cli.demo.story import show
from nearcache.errors import NearCacheError

INTERRUPTED = 130
UNUSABLE = 2


def demo(
    duration: Annotated[float, typer.Option(min=6, max=600, help="Seconds for the whole show, roughly.")] = 25,
    workers: Annotated[int, typer.Option(min=2, max=32, help="Worker processes.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the database's rows and of the choices of what to read.")] = 1,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text, no live table; so it is in a log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON document, nothing else.")] = False,
) -> None:
    """A real server, a real database, several processes: reads, updates, an outage, and a check of every answer.

    Exit code 0: every promise was kept. 1: one was not, or a phase did not happen; the output says which.
    """
    options = Options(duration, workers, seed)
    try:
        with _terminated_as_interrupted():
            figures = _show(options, plain=plain or not sys.stdout.isatty(), as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("interrupted; server, workers and database are gone", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NearCacheError as error:
        typer.echo(f"nearcache demo: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    raise typer.Exit(1 if figures.failures() else 0)


def _show(options: Options, *, plain: bool, as_json: bool) -> Figures:
    if as_json:
        figures = show(options, SilentScreen())
        typer.echo(json.dumps(figures.as_dict(), indent=2))
        return figures
    if plain:
        return show(options, PlainScreen())
    with LiveScreen(Console()) as screen:
        return show(options, screen)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that nothing is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
