"""What stands before a command: the help of all, and --version."""

from __future__ import annotations

from typing import Annotated

import typer

from nearcache import __version__
from nearcache.protocol.names import PROTOCOL


def _tell_version(wanted: bool) -> None:  # typer's form
    if wanted:
        typer.echo(f"nearcache {__version__}, protocol {PROTOCOL.decode()}")
        raise typer.Exit


def nearcache(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the release and the protocol."),
    ] = False,
) -> None:
    """Look into a near cache in front of Redis or Valkey, and change it coherently.

    Set NEARCACHE_URL and NEARCACHE_NAMESPACE, or give --url and --namespace to a command. Each command takes --json,
    too. Exit code 0: all is well. 1: no, as the command's own --help says. 2: the server could not be asked, or
    the call was wrong. Begin with `nearcache doctor`.
    """
    del version
