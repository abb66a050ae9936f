"""The engine's Runtime for threads: it blocks the caller's thread, and never suspends.

Background work has a thread of its own, and not one of concurrent.futures: a loader that hangs would keep the
interpreter from exiting. The number of threads is bounded; work that is begun inside such work needs no permit, since
it would wait for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from time import monotonic
from typing import Any

from nearcache.local.singleflight import Outcome
from nearcache.runtime.latches import ThreadLatch, ThreadPermits
from nearcache.runtime.loading import LOADING
from nearcache.runtime.run_sync import run_sync

_IN_BACKGROUND: ContextVar[bool] = ContextVar("nearcache-background", default=False)
"""Whether this runs in a thread of ThreadRuntime.spawn."""


class BackgroundThread:
    """Work in a thread of its own."""

    def __init__(
        self, work: Coroutine[Any, Any, object], names: tuple[object, ...], done: Callable[[BackgroundThread], None]
    ) -> None:
        self._work = work
        self._names = names
        self._done = done
        self.thread = threading.Thread(target=copy_context().run, args=(self._run,), name="nearcache-load", daemon=True)

    def _run(self) -> None:
        LOADING.set(self._names)
        _IN_BACKGROUND.set(True)
        try:
            run_sync(self._work)
        except BaseException:  # noqa: BLE001, S110  # SystemExit ends a thread silently, and so does all else of a loader's
            pass
        finally:
            self._done(self)

    def cancel(self, after: float) -> None:
        """A thread can't be cancelled: it goes on, and what it loads is kept if it still may be."""


class ThreadRuntime:
    """Flows run in the caller's thread.

    Args:
        threads: for work behind the caller's back.
    """

    def monotonic(self) -> float:
        """The monotonic clock."""
        return monotonic()

    def __init__(self, threads: int = 32) -> None:
        self._threads = ThreadPermits(threads)
        self._working: set[BackgroundThread] = set()

    def callers(self) -> tuple[object, ...]:
        """The thread; before it, those in whose names the loaders were called that this runs in."""
        return (*LOADING.get(), threading.get_ident())

    def latch(self) -> ThreadLatch:
        """A new Latch."""
        return ThreadLatch()

    def permits(self, count: int) -> ThreadPermits:
        """Permits for threads."""
        return ThreadPermits(count)

    async def spawn(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> BackgroundThread | None:
        """Run it in a thread, if one comes free in time."""
        nested = _IN_BACKGROUND.get()
        if not nested and not await self._threads.acquire(timeout):
            work.close()
            return None
        names = () if owner is None else (*self.callers(), owner)
        behind = BackgroundThread(work, names, self._ended if nested else self._ended_with_permit)
        self._working.add(behind)
        try:
            behind.thread.start()
        except RuntimeError:  # no thread to be had now
            work.close()
            (self._ended if nested else self._ended_with_permit)(behind)
            return None
        return behind

    def _ended(self, behind: BackgroundThread) -> None:
        self._working.discard(behind)

    def _ended_with_permit(self, behind: BackgroundThread) -> None:
        self._ended(behind)
        self._threads.release()

    def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for what runs behind."""
        until = monotonic() + timeout
        for behind in tuple(self._working):
            if behind.thread is not threading.current_thread():
                behind.thread.join(max(0.0, until - monotonic()))

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        """Call the loader in this thread."""
        loading = LOADING.set(self.callers())
        try:
            value = loader()
            if isinstance(value, Coroutine):
                value.close()
                raise TypeError(f"the loader {loader!r} is a coroutine function; NearCache takes plain ones")
            return Outcome(value)
        except Exception as error:  # noqa: BLE001  # it is the caller's, and travels as data
            return Outcome(error=error)
        finally:
            LOADING.reset(loading)

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it now."""
        await work
