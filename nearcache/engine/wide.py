"""Read many keys of several buckets: one request for each server that has some of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from functools import partial
from typing import Any, TypeAlias

from nearcache.engine.core import Core, chunks
from nearcache.engine.plain import Batch
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.read import judged, near, read_many
from nearcache.engine.requests import Operation
from nearcache.protocol.answers import BATCH

Asked: TypeAlias = list[tuple[Core, Sequence[str]]]
"""Keys of some buckets that one server has, by the cores of these."""
Values: TypeAlias = Coroutine[Any, Any, dict[str, Any]]
Left: TypeAlias = list[Callable[[], Values]]
"""What has still to be done for one bucket each."""


async def get_many_of_buckets(core: Core, keys: Sequence[str]) -> dict[str, Any]:
    """See ``read.get_many``."""
    values: dict[str, Any] = {}
    left: Left = []
    works: list[Values] = []
    servers: dict[Hashable, list[Asked]] = {}
    for part, some in core.split(keys):
        there = near(part, some)
        values |= there
        for at, chunk in enumerate(chunks([key for key in some if key not in there] if there else some, BATCH)):
            if part.place is None:
                works.append(read_many(part, chunk))
            else:
                rounds = servers.setdefault(part.place, [])
                if at == len(rounds):
                    rounds.append([])
                rounds[at].append((part, chunk))
    works += [_read_of_server(rounds, left) for rounds in servers.values()]
    while works:
        for found in await core.runtime.together(works):
            values = values | found if values else found
        works = [begin() for begin in left]
        left.clear()
    core.counters.misses += len(keys) - len(values)
    return values


def _is_quiet(core: Core) -> bool:
    """Whether Redis may be asked, and asked for the records alone."""
    return core.floors_proven and not core.requests.bypassed and core.breaker.sends


async def _read_of_server(rounds: Sequence[Asked], left: Left) -> dict[str, Any]:
    """The values of plain records of several buckets that one server has, by one request for each round.

    A bucket that is not quiet, or has a journalled key, is left to be read by itself, and so is one that the server has
    refused, as when it has moved. What is not plain is left to be judged.
    """
    values: dict[str, Any] = {}
    for asked in rounds:
        batches: list[tuple[Core, Batch]] = []
        for core, keys in asked:
            batch = Batch(core, keys, [core.policy] * len(keys))
            if _is_quiet(core) and False not in batch.snapshots.trusted:
                batches.append((core, batch))
            else:
                left.append(partial(read_many, core, keys))
        if batches:
            await _read(batches, values, left)
    return values


async def _read(batches: Sequence[tuple[Core, Batch]], values: dict[str, Any], left: Left) -> None:
    first, requests = batches[0][0], batches[0][0].requests
    try:
        answers = await first.remote.read_each([(core.remote, batch.keys) for core, batch in batches])
    except RemoteFailed as failure:
        requests.failed(failure, Operation.GET, sum(len(batch.keys) for _, batch in batches))
        return
    refused = False
    for (core, batch), answer in zip(batches, answers, strict=True):
        if isinstance(answer, RemoteFailed):
            refused = True
            left.append(partial(read_many, core, batch.keys))
            continue
        await batch.take_in(answer)
        if None in batch.entries:
            left.append(partial(judged, core, batch))
        else:
            values.update(zip(batch.keys, batch.values, strict=True))
    if not refused and (first.breaker.failures or first.breaker.refused or not first.breaker.sends):
        requests.answered(Operation.GET, answers)
