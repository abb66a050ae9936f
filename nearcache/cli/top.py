"""The command `nearcache top`: the instances of a namespace that announce themselves, in a live table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import Annotated, Any, NoReturn, TypeAlias

import typer
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nearcache.cli.connect import AsJson, Namespace, Url, check_reached, opened_partly
from nearcache.cli.demo.show import duration
from nearcache.runtime.run_sync import run_sync
from nearcache.sync import NearCache

COLOURS = {"ok": "green", "degraded": "yellow", "down": "red"}
Instance: TypeAlias = Mapping[str, Any]

COLUMNS: Mapping[str, Callable[[Instance], Text]] = {
    "instance": lambda one: Text(str(one["instance"])),
    "release": lambda one: Text(str(one.get("version", ""))),
    "status": lambda one: Text(str(one["status"]), COLOURS.get(str(one["status"]), "")),
    "primaries": lambda one: Text(f"{one['primaries_up']} of {one['primaries']}" if "primaries" in one else "-"),
    "unproven": lambda one: _figure(one, "buckets_unproven", "{:,}"),
    "reads/s": lambda one: _figure(one, "reads", "{:,.0f}"),
    "L1": lambda one: _figure(one, "l1_ratio", "{:.1%}"),
    "Redis": lambda one: _figure(one, "l2_ratio", "{:.1%}"),
    "loads/s": lambda one: _figure(one, "loads", "{:,.1f}"),
    "proof age": lambda one: _duration(one, "proof_age"),
    "propagation": lambda one: _duration(one, "propagation"),
    "journal": lambda one: _figure(one, "journal", "{:,}"),
    "L1 entries": lambda one: Text(f"{one.get('l1_entries', '')} of {one.get('l1_max_entries', '')}"),
    "L1 size": lambda one: Text(_size(one.get("l1_bytes"))),
    "up": lambda one: _figure(one, "up", "{:,.0f} s"),
}
"""What a cell of each column shows. The texts are those of other processes, and no markup."""
OF_BUCKETS = ("primaries", "unproven")
"""Columns that are shown where an instance has several buckets."""
LEAST = ("release", "L1 size", "up", "L1 entries", "propagation", "Redis", "loads/s", "journal", "proof age", "L1")
"""The columns that a narrow terminal does without, the first one first."""
WIDE = 1000
"""Characters that a table may take which is only measured."""


def top(
    url: Url = None,
    namespace: Namespace = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Watch the instances of a namespace.

    Those that have the setting announce; Ctrl-C ends it, --json prints them once. Reads and loads a second, and who
    answered, are those of the last two seconds of each instance; one that has ended is shown for some seconds more.
    On a cluster: how many of its primaries are up, and how many buckets are unproven.

    Exit code 1: none announces itself, or one is not well. 2: Redis could not be asked.
    """
    with opened_partly(url, namespace) as (cache, failures):
        first = cache._core.all[0]  # noqa: SLF001  # the library has no method for it
        check_reached(failures, [first])  # it has what the instances say of themselves
        name = cache.settings.namespace
        instances = look(cache)
        if as_json:
            typer.echo(json.dumps({"namespace": name, "instances": instances}))
        elif once:
            console = Console()
            console.print(table_of(name, instances, console))
        else:
            _watch(cache, instances, every)
        raise typer.Exit(0 if instances and all(one["status"] == "ok" for one in instances) else 1)


def _watch(cache: NearCache, instances: Sequence[Instance], every: float) -> NoReturn:
    name = cache.settings.namespace
    console = Console()
    shown = table_of(name, instances, console)
    with suppress(KeyboardInterrupt), Live(shown, console=console, auto_refresh=False) as live:
        while True:
            sleep(every)
            live.update(table_of(name, look(cache), console), refresh=True)
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


def table_of(namespace: str, instances: Sequence[Instance], console: Console) -> Table:
    """The instances as a table that is no wider than the console, as far as that can be."""
    columns = [name for name in COLUMNS if name not in OF_BUCKETS or any("primaries" in one for one in instances)]
    away = iter(LEAST)
    while True:
        table = _table(namespace, instances, columns)
        wanted = Measurement.get(console, console.options.update(width=WIDE), table).maximum
        least = next(away, None)
        if wanted <= console.width or least is None:
            return table
        columns.remove(least)


def _table(namespace: str, instances: Sequence[Instance], columns: Sequence[str]) -> Table:
    count = len(instances)
    said = "1 instance announces itself" if count == 1 else f"{count} instances announce themselves"
    table = Table(title=f"{namespace}: {said}", title_justify="left", caption_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("instance", "status") else "right", no_wrap=True)
    for one in instances:
        table.add_row(*(COLUMNS[name](one) for name in columns))
    notes = [f"{one['instance']}: {one['reason']}" for one in instances if one.get("reason")]
    left_out = ", ".join(name for name in COLUMNS if name in LEAST and name not in columns)
    if left_out and instances:
        notes.append(f"for want of room without {left_out}; --json has all")
    if not instances:
        notes.append("none: set announce=True, or NEARCACHE_ANNOUNCE=true, in the application")
    table.caption = Text("\n".join(notes)) if notes else None
    return table


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
