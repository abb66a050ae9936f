"""The command `nearcache clear`: drop everything in a namespace, after a question."""

from __future__ import annotations

from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, finish, opened_partly
from nearcache.cli.servers import named_failures


def clear(
    url: Url = None,
    namespace: Namespace = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop every value of the namespace, in Redis and in every L1. Asks first.

    Exit code 1: the answer was no, or Redis, or a primary of a cluster, did not acknowledge. 2: it could not be asked.
    """
    with opened_partly(url, namespace, writes=True) as (cache, failures):
        name = cache.settings.namespace
        if not yes and not typer.confirm(f"Drop every value of the namespace {name!r} on {cache.url}?", err=True):
            raise typer.Exit(1)
        acknowledged = cache.clear()
        away = named_failures(failures)
        why = f"{'; '.join(away)}; the others are cleared, repeat it" if away else cache.health().reason
        text = "cleared" if acknowledged else f"not acknowledged: {why}"
        told = {"namespace": name, "acknowledged": acknowledged, "away": away}
        finish(told, text, as_json=as_json, ok=acknowledged)
