"""The command `nearcache demo`: options, the choice of the screen, the exit code."""

from __future__ import annotations

import json
import signal
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from nearcache.cli.demo.run import Options, run
from nearcache.cli.demo.show import LiveTable, Plain, Silent
from nearcache.errors import NearCacheError

INTERRUPTED = 130
UNUSABLE = 2


def demo(
    duration: Annotated[float, typer.Option(min=6, max=600, help="Seconds for the whole demo, roughly.")] = 25,
    workers: Annotated[int, typer.Option(min=2, max=32, help="Worker processes.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the database's rows and of the choices of what to read.")] = 1,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text, no live table; so it is in a log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON document, nothing else.")] = False,
) -> None:
    """A real server, a real database, several processes: reads, updates, an outage, and a check of every answer.

    Exit code 0: every promise was kept. 1: one was not, or a phase did not happen; the output says which.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, leaves nothing behind
    try:
        figures = _run(Options(duration, workers, seed), plain=plain or not sys.stdout.isatty(), as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("interrupted; server, workers and database are gone", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except NearCacheError as error:
        typer.echo(f"nearcache demo: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    raise typer.Exit(0 if figures["ok"] else 1)


def _run(options: Options, *, plain: bool, as_json: bool) -> dict[str, Any]:
    if as_json:
        figures = run(options, Silent())
        typer.echo(json.dumps(figures, indent=2))
        return figures
    if plain:
        return run(options, Plain())
    with LiveTable(Console()) as screen:
        return run(options, screen)
