"""The command `nearcache set`: store a value; every L1 of the fleet drops the key."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, fail, finish, opened


def set_value(
    key: Annotated[str, typer.Argument(help="The key.")],
    value: Annotated[str, typer.Argument(help="JSON, or else a string as it is; behind -- if it begins with a dash.")],
    url: Url = None,
    namespace: Namespace = None,
    *,
    ttl: Annotated[float | None, typer.Option(help="Seconds; else the setting's.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    as_json: AsJson = False,
) -> None:
    """Store a value. Exit code 1: Redis did not acknowledge. 2: it could not be asked, or the user lacks a right."""
    with opened(url, namespace, writes=True, keys=[key]) as cache:
        acknowledged = cache.set(key, _parsed(value), ttl=ttl, tags=tag or ())
        text = "stored" if acknowledged else f"not acknowledged: {cache.health().reason}"
        finish({"key": key, "acknowledged": acknowledged}, text, as_json=as_json, ok=acknowledged)


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # Python's parser takes NaN and Infinity, which are no JSON
    except ValueError:
        return text
    except RecursionError:
        fail("the value is nested too deep for JSON: store its parts under keys of their own")
    return value
