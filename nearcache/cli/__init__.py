"""The command line; `main` is its entry point. The library imports nothing from here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

MISSING_EXTRA = "nearcache: the command line needs more packages: pip install 'nearcache[cli,embedded]'"


def main() -> None:
    """Run the command line; without the packages of the ``cli`` extra, say so in one line and exit with 2."""
    try:
        run = app()
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print(MISSING_EXTRA, file=sys.stderr)
        raise SystemExit(2) from None
    run()


def app() -> typer.Typer:
    """The application with its commands; what it needs from the ``cli`` extra is imported here and not before."""
    import typer  # noqa: PLC0415

    from nearcache.cli.clear import clear  # noqa: PLC0415
    from nearcache.cli.delete import delete  # noqa: PLC0415
    from nearcache.cli.demo.command import demo  # noqa: PLC0415
    from nearcache.cli.doctor.command import doctor  # noqa: PLC0415
    from nearcache.cli.explain import explain  # noqa: PLC0415
    from nearcache.cli.get import get  # noqa: PLC0415
    from nearcache.cli.l1 import l1  # noqa: PLC0415
    from nearcache.cli.root import nearcache  # noqa: PLC0415
    from nearcache.cli.set import set_value  # noqa: PLC0415
    from nearcache.cli.top import top  # noqa: PLC0415

    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    app.callback()(nearcache)
    app.command("set")(set_value)
    for command in (get, delete, explain, clear, l1, top, doctor, demo):
        app.command()(command)
    return app
