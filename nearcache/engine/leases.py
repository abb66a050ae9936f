"""Unused leases are given back, so that other instances need not wait for their end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from nearcache.engine.core import Core, chunks
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.protocol.answers import BATCH


async def abort(core: Core, leases: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
    """Give leases back now, or after the next proof if Redis does not answer; whether each was held to the end.

    Args:
        core: the cache.
        leases: the key and the id of each.
    """
    if core.parts:
        ids, answers = dict(leases), dict[str, bool]()
        for one, keys in core.split(ids):
            answers.update(zip(keys, await abort(one, [(key, ids[key]) for key in keys]), strict=True))
        return [answers[key] for key, _ in leases]
    held: list[bool] = []
    for part in chunks(leases, BATCH):
        try:
            held += await core.requests.ask(Operation.ABORT, core.remote.abort, part)
        except BaseException as failure:
            core.unused_leases.extend(leases[len(held) :])
            if not isinstance(failure, RemoteFailed):
                raise
            return held + [False] * (len(leases) - len(held))
    return held


async def give_back(core: Core) -> None:
    """Give back the unused leases; those that Redis does not answer for are tried again after the next proof."""
    leases: list[tuple[str, bytes]] = []
    with suppress(IndexError):  # another thread was quicker
        while core.unused_leases:
            leases.append(core.unused_leases.popleft())
    await abort(core, leases)
