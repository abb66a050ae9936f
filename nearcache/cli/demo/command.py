"""The command `nearcache demo`: its options, its output and its exit code."""

from __future__ import annotations

import json
import signal
from typing import Annotated

import typer
from rich.console import Console

from nearcache.cli.demo.run import run
from nearcache.cli.demo.show import Show
from nearcache.errors import NearCacheError


def demo(
    duration: Annotated[float, typer.Option(min=4, max=600, help="Seconds of the whole run, approximately.")] = 25,
    workers: Annotated[int, typer.Option(min=2, max=32, help="Number of worker processes.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the database's rows and of the keys that are read.")] = 1,
    *,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines of text; the default without a terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON document only.")] = False,
) -> None:
    """Run workers through an outage, and check each answer.

    They share a real server and a database, read and update it, and lose the server for a while.

    Exit code 0: every promise was kept. 1: one was broken, or a phase did not happen; the output says which.
    """
    # SIGTERM raises KeyboardInterrupt as SIGINT does, so that both end the server, the workers and the database.
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Show(console=Console(quiet=as_json, force_terminal=False if plain or as_json else None)) as show:
            figures = run(duration, workers, seed, show)
    except KeyboardInterrupt:
        typer.echo("interrupted; the server, the workers and the database are removed", err=True)
        raise typer.Exit(130) from None  # 128 + SIGINT, as a shell has it
    except NearCacheError as error:
        typer.echo(f"nearcache demo: {error}", err=True)
        raise typer.Exit(2) from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    raise typer.Exit(0 if figures["ok"] else 1)
