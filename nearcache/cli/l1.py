"""The command `nearcache l1`: the part of the keys that every L1 of a namespace may hold."""

from __future__ import annotations

from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, finish, opened
from nearcache.runtime.run_sync import run_sync


def l1(
    url: Url = None,
    namespace: Namespace = None,
    *,
    share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="From 0, nothing, to 1, all that the settings allow."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print or set how much of the keys every L1 may hold.

    The part of the keys, by hash; with --share it is set for all instances. Every instance follows within its
    max_staleness, and drops what its L1 holds where the share falls. No instance holds more than its own setting
    l1_share. What was set is lost with the counter, as when Redis is flushed.

    Exit code 2: Redis could not be asked, or refused.
    """
    with opened(url, namespace, writes=share is not None) as cache:
        remotes = [core.remote for core in cache._core.all]  # noqa: SLF001  # the library has no method for it
        if share is not None:
            for remote in remotes:  # each bucket's counter has it, so that the bus of each primary tells it
                run_sync(remote.limit_l1(share))
        now = max(run_sync(remote.l1_share()) for remote in remotes)
        told = {"namespace": cache.settings.namespace, "share": now}
        finish(told, f"L1 may hold {now:.4g} of the keys of {cache.settings.namespace}", as_json=as_json, ok=True)
