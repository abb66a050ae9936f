"""The guards of a namespace of several buckets taken away."""

from __future__ import annotations

from functools import partial
from typing import Any

from nearcache.engine import write
from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.requests import Operation
from nearcache.local.invalidation import Invalidation
from nearcache.local.whole import WholeTier


class OneLast(Invalidation):
    """All buckets have one ``last``."""

    @property
    def last(self) -> int:
        """That of all; they have one store."""
        return int(getattr(self._tier._store, "last", 0))

    @last.setter
    def last(self, number: int) -> None:
        self._tier._store.last = number  # type: ignore[attr-defined]  # for this


class OneProof(Invalidation):
    """The proof of one bucket is that of all."""

    def _prove(self, floor: int, server_time: int, asked_at: float) -> None:
        super()._prove(floor, server_time, asked_at)
        for entry in self._tier.entries.values():
            entry.proof.until = self._tier.proof.until


_INIT = WholeTier.__init__


def one_floor(self: WholeTier, *args: Any, **options: Any) -> None:
    """The buckets have the floors of the first one."""
    _INIT(self, *args, **options)
    for part in self.parts:
        part.floors = self.parts[0].floors


async def _cleared(one: Core, *, journal: bool = True) -> Any:
    note = partial(one.tier.journal_floors, ()) if journal else lambda: None
    return await write._write(one, Operation.CLEAR, one.remote.clear, note, 0)


async def partial_is_done(core: Core) -> bool:
    """A clear that one bucket has acknowledged is told as done."""
    results = [await _cleared(one) for one in core.all]
    for one, written in zip(core.all, results, strict=True):
        if not isinstance(written, RemoteFailed):
            one.tier.raised_floors((), written.number, one.runtime.monotonic())
    return any(not isinstance(written, RemoteFailed) for written in results)


async def partial_is_forgotten(core: Core) -> bool:
    """What a bucket has not acknowledged is not journalled."""
    results = [await _cleared(one, journal=False) for one in core.all]
    for one, written in zip(core.all, results, strict=True):
        if not isinstance(written, RemoteFailed):
            one.tier.raised_floors((), written.number, one.runtime.monotonic())
    return all(not isinstance(written, RemoteFailed) for written in results)


async def own_clear_of_one_bucket(core: Core) -> bool:
    """The own clear is applied to the first bucket alone."""
    results = [await _cleared(one) for one in core.all]
    core.all[0].tier.raised_floors((), results[0].number, core.runtime.monotonic())
    return all(not isinstance(written, RemoteFailed) for written in results)
