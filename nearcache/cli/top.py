"""The command `nearcache top`: the instances of a namespace that announce themselves, in a live table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nearcache.cli.connect import AsJson, Namespace, Url, opened
from nearcache.cli.demo.show import duration
from nearcache.runtime.run_sync import run_sync
from nearcache.sync import NearCache

COLUMNS = (
    "instance",
    "release",
    "status",
    "reads/s",
    "L1",
    "Redis",
    "loads/s",
    "proof age",
    "propagation",
    "journal",
    "L1 entries",
    "L1 size",
    "up",
)
COLOURS = {"ok": "green", "degraded": "yellow", "down": "red"}
Instance = Mapping[str, Any]


def top(
    url: Url = None,
    namespace: Namespace = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Watch the instances of a namespace that have the setting announce; Ctrl-C ends it. --json prints them once.

    Reads and loads a second, and who answered, are those of the last two seconds of each instance; one that has ended
    is shown for some seconds more.

    Exit code 1: none announces itself, or one is not well. 2: Redis could not be asked.
    """
    with opened(url, namespace) as cache:
        name = cache.settings.namespace
        instances = look(cache)
        if as_json:
            typer.echo(json.dumps({"namespace": name, "instances": instances}))
        elif once:
            Console().print(table_of(name, instances))
        else:
            _watch(cache, instances, every)
        raise typer.Exit(0 if instances and all(one["status"] == "ok" for one in instances) else 1)


def _watch(cache: NearCache, instances: Sequence[Instance], every: float) -> NoReturn:
    name = cache.settings.namespace
    with suppress(KeyboardInterrupt), Live(table_of(name, instances), auto_refresh=False) as live:
        while True:
            sleep(every)
            live.update(table_of(name, look(cache)), refresh=True)
    raise typer.Exit(0)


def look(cache: NearCache) -> list[Instance]:
    """The instances that announce themselves now, by their names; what is no such document is left out."""
    found: list[Instance] = []
    for document in run_sync(cache._core.remote.announced()):  # noqa: SLF001  # the library has no method for it
        with suppress(ValueError):
            instance = json.loads(document.partition(b" ")[2])
            if isinstance(instance, dict) and {"instance", "status"} <= instance.keys():
                found.append(instance)
    return sorted(found, key=lambda one: str(one["instance"]))


def table_of(namespace: str, instances: Sequence[Instance]) -> Table:
    """The instances as a table."""
    table = Table(title=f"{namespace}: {len(instances)} instances announce themselves", title_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number in (0, 2) else "right", no_wrap=True)
    for one in instances:
        table.add_row(*_cells(one))
    if not instances:
        table.caption = "none: set announce=True, or NEARCACHE_ANNOUNCE=true, in the application"
    return table


def _cells(one: Instance) -> list[Text]:
    """The cells of a row. The texts are those of other processes, and no markup."""
    status, reason = str(one["status"]), one.get("reason")
    return [
        Text(str(one["instance"])),
        Text(str(one.get("version", ""))),
        Text(f"{status}: {reason}"[:60] if reason else status, COLOURS.get(status, "")),
        _figure(one, "reads", "{:,.0f}"),
        _figure(one, "l1_ratio", "{:.1%}"),
        _figure(one, "l2_ratio", "{:.1%}"),
        _figure(one, "loads", "{:,.1f}"),
        _duration(one, "proof_age"),
        _duration(one, "propagation"),
        _figure(one, "journal", "{:,}"),
        Text(f"{one.get('l1_entries', '')} of {one.get('l1_max_entries', '')}"),
        Text(_size(one.get("l1_bytes"))),
        _figure(one, "up", "{:,.0f} s"),
    ]


def _figure(one: Instance, name: str, form: str) -> Text:
    value = one.get(name)
    return Text(form.format(value) if isinstance(value, int | float) else "-")


def _duration(one: Instance, name: str) -> Text:
    value = one.get(name)
    return Text(duration(value * 1e6) if isinstance(value, int | float) else "-")


def _size(value: object) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value / 1024:,.0f} KiB" if value < 1024 * 1024 else f"{value / 1024 / 1024:,.1f} MiB"
