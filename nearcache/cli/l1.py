"""The command `nearcache l1`: the part of the keys that every L1 of a namespace may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from nearcache.cli.connect import AsJson, Namespace, Url, fail, finish, opened_partly
from nearcache.cli.servers import named_failures
from nearcache.engine.ports import RemoteFailed
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

    Exit code 1: not all primaries of a cluster have the same, or one of them could not be asked. 2: Redis could not be
    asked, or refused.
    """
    with opened_partly(url, namespace, writes=share is not None) as (cache, known):
        core, failures = cache._core, dict(known)  # noqa: SLF001  # the library has no method for it
        shares: dict[float, list[int]] = {}
        for one in core.all:  # each bucket's counter has it, so that the bus of each primary tells it
            if one in failures:
                continue
            try:
                if share is not None:
                    run_sync(one.remote.limit_l1(share))
                shares.setdefault(run_sync(one.remote.l1_share()), []).append(one.tier.proof.bucket)
            except RemoteFailed as failure:
                failures[one] = failure
        away = named_failures(failures)
        if not shares:
            fail("; ".join(away))
        told = {
            "namespace": cache.settings.namespace,
            "share": max(shares),
            "buckets": {str(bucket): part for part, some in shares.items() for bucket in some},
            "away": away,
        }
        ok = len(shares) == 1 and not away
        finish(told, _told(cache.settings.namespace, shares, away), as_json=as_json, ok=ok)


def _told(namespace: str, shares: Mapping[float, Sequence[int]], away: Sequence[str]) -> str:
    lines = []
    for part, buckets in sorted(shares.items()):
        where = f"buckets {' '.join(map(str, buckets))} of {namespace}" if len(shares) > 1 or away else namespace
        lines.append(f"L1 may hold {part:.4g} of the keys of {where}")
    lines += (f"not asked: {one}" for one in away)
    if len(lines) > 1:
        lines.append("set it again with --share when every primary answers")
    return "\n".join(lines)
