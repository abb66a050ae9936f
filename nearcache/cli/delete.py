"""The command `nearcache delete`: delete keys in Redis and in every L1 of the fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, finish, opened


def delete(
    keys: Annotated[list[str], typer.Argument(help="The keys.")],
    url: Url = None,
    namespace: Namespace = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Delete keys everywhere. Exit code 1: Redis did not acknowledge. 2: it could not be asked."""
    with opened(url, namespace, writes=True, keys=keys) as cache:
        acknowledged = cache.delete(*keys)
        text = "deleted" if acknowledged else f"not acknowledged: {cache.health().reason}"
        finish({"keys": keys, "acknowledged": acknowledged}, text, as_json=as_json, ok=acknowledged)
