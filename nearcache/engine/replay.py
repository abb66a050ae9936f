"""Replay the journal: what Redis did not acknowledge is deleted there when it answers again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.events import Drained
from nearcache.local.journal import ALL, KEYS, TAGS, Batch
from nearcache.protocol.answers import BATCH, Written

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Seconds after a replay that was refused; they double from the first to the longest."""


def longer(pause: float) -> float:
    """The pause after this one."""
    return min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)


async def replay_journal(core: Core, *, probing: bool = False) -> bool:
    """Replay what can be replayed now, up to the first failure.

    Args:
        core: the cache.
        probing: ask even while the breaker is open; the bus has just reached the server.

    Returns:
        Whether something was replayed.
    """
    names = 0
    journal = core.tier.journal
    while len(journal) and core.runtime.monotonic() >= core.replay_after:
        # After a refusal one by one: the reason may be one key's alone.
        most = 1 if core.replay_pause else BATCH
        with core.tier.lock:
            batch, epoch = journal.next(core.requests.earliest_now(), most), core.tier.epoch
        if batch is None:
            break
        try:
            replay = _replay(core, batch)
            written = await (replay() if probing else core.requests.ask(_OPERATIONS[batch.kind], replay))
        except RemoteFailed as failure:
            if failure.answered:
                core.replay_pause = longer(core.replay_pause)
                core.replay_after = core.runtime.monotonic() + core.replay_pause
                with core.tier.lock:
                    journal.postpone(batch)
            break
        core.replay_pause = 0.0
        if written is None:  # by the server's own clock it is too early
            break
        core.tier.replayed(batch, written.number, epoch, core.runtime.monotonic())
        names += len(batch.names) or 1
    if names:
        core.emit(Drained(names, len(journal)))
    return names > 0


_OPERATIONS = {KEYS: Operation.DELETE, TAGS: Operation.INVALIDATE_TAGS, ALL: Operation.CLEAR}


def _replay(core: Core, batch: Batch) -> Callable[[], Awaitable[Written | None]]:
    if batch.kind == KEYS:
        return partial(core.remote.delete, batch.names, hold_ms=batch.hold_ms, not_before=batch.not_before)
    if batch.kind == ALL:
        return partial(core.remote.clear, not_before=batch.not_before)
    return partial(core.remote.invalidate_tags, batch.names)
