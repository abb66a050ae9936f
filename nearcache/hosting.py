"""What the flows need from threads or tasks: the Host port, and what a loader did, as data.

Nothing here does anything; ``nearcache.hosts`` has the adapters. The threaded one never suspends, the asyncio one does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol


class Outcome(NamedTuple):
    """What a loader did, as data, so that it may raise anything, StopIteration too."""

    value: Any = None
    error: Exception | None = None
    stale: bool = False
    """Whether it is a value past its end: only for readers that take such."""

    def get(self) -> Any:
        """The value, or the loader's own exception raised."""
        if self.error is not None:
            raise self.error
        return self.value


class Wake(Protocol):
    """Something that waits once and is woken from anywhere."""

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        ...

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether it was woken."""
        ...


class Permits(Protocol):
    """A bounded number of permits."""

    async def acquire(self, timeout: float) -> bool:
        """Take one, waiting up to ``timeout`` seconds for it; whether there was one."""
        ...

    def release(self) -> None:
        """Give one back."""
        ...


class Behind(Protocol):
    """Work that goes on behind its caller's back."""

    def cancel(self, after: float) -> None:
        """Nobody waits for it any more: tasks are cancelled ``after`` so many seconds, threads can't be."""
        ...


class Host(Protocol):
    """Threads or tasks: the one thing that differs between the two classes."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def me(self) -> tuple[object, ...]:
        """The thread or task that runs this, last; inside a loader, before it those in whose names it was called.

        Two tasks of one loader have its names in common, but not the last one: they are two readers.
        """
        ...

    def wake(self) -> Wake:
        """A new Wake."""
        ...

    def permits(self, count: int) -> Permits:
        """So many permits."""
        ...

    async def behind(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> Behind | None:
        """Run something in a thread or task of its own.

        Args:
            work: runs in the caller's context.
            owner: a name for it, so that its asking for its own key is known; None: it is nobody's loader.
            timeout: how long to wait for a thread, in seconds, where their number is bounded.

        Returns:
            None if there was no thread for it; then nothing of it was run.
        """
        ...

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        """Call a loader; what is no Exception (a cancellation, KeyboardInterrupt) goes through."""
        ...

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do a short piece of work to its end, even though the caller is being cancelled, and may be again."""
        ...
