"""The command `nearcache explain`: what a read of a key would do, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, finish, opened


def explain(
    key: Annotated[str, typer.Argument(help="The key.")],
    url: Url = None,
    namespace: Namespace = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say what Redis has for a key, and what a read would do.

    Whether it would be served from Redis, and why or why not; the value itself is never shown. This command has an
    L1 of its own, which is empty: ask cache.explain(key) in an application about the L1 there. A type that only an
    application has registered can't be read here.

    Exit code 1: a read would load. 2: Redis could not be asked.
    """
    with opened(url, namespace, keys=[key]) as cache:
        told = cache.explain(key)
        finish(asdict(told), str(told), as_json=as_json, ok=told.tier is not None)
