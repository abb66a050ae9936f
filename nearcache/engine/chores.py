"""What a cache does now and then while the bus is proven: after a heartbeat, in the background, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nearcache.engine.ports import RemoteFailed, Runtime


@dataclass(slots=True, eq=False)
class Chore:
    """Something to be done every so many seconds; 0: after each heartbeat."""

    work: Callable[[], Awaitable[None]]
    every: float
    due: float = 0.0
    """When it is done next (monotonic)."""


@dataclass(slots=True, eq=False)
class Chores:
    """The chores of one cache."""

    runtime: Runtime
    chores: list[Chore] = field(default_factory=list)
    busy: bool = False

    def add(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        """Do something every so many seconds, for the first time after so many."""
        self.chores.append(Chore(work, every, self.runtime.monotonic() + every))

    async def begin_due(self) -> None:
        """Begin those that are due, unless some are still under way. It does not wait for them."""
        now = self.runtime.monotonic()
        due = [chore for chore in self.chores if now >= chore.due]
        if due and not self.busy:
            self.busy = True
            if await self.runtime.spawn(self._do(due), None, 0.0) is None:  # no thread is free: after the next one
                self.busy = False

    async def _do(self, due: list[Chore]) -> None:
        try:
            for chore in due:
                chore.due = self.runtime.monotonic() + chore.every
                try:
                    await chore.work()
                except RemoteFailed:  # what Redis does not answer is left out, and nothing depends on it
                    continue
        finally:
            self.busy = False
