"""The command `nearcache get`: a value as it is in Redis."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, check_answered, finish, opened

_NOTHING = object()


def get(
    key: Annotated[str, typer.Argument(help="The key.")],
    url: Url = None,
    namespace: Namespace = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the value that Redis has under a key.

    A string as it is, what JSON can say as JSON, else as Python shows it.

    Exit code 1: there is no fresh value. 2: Redis could not be asked.
    """
    with opened(url, namespace, keys=[key]) as cache:
        value = cache.get(key, default=_NOTHING)
        check_answered(cache)
        found = value is not _NOTHING
        value = _sayable(value)
        text = value if isinstance(value, str) else json.dumps(value, default=repr) if found else f"{key}: no value"
        if not found and not as_json:
            typer.echo(text, err=True)
            raise typer.Exit(1)
        finish({"key": key, "found": found, "value": value if found else None}, text, as_json=as_json, ok=found)


def _sayable(value: object) -> object:
    """A value as it is, if JSON can say it or what is in it, else as Python shows it: NaN, or keys that are no text."""
    try:
        json.dumps(value, default=repr, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
