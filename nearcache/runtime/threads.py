"""The engine's Runtime for threads: it blocks the caller's thread, and never suspends.

Background work has a thread of its own, not one of concurrent.futures: there a loader that hangs would keep the
interpreter from exiting. The number of threads is bounded; work that is begun inside background work needs no permit,
since it could wait for its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from time import monotonic
from typing import Any, TypeVar

from nearcache.engine.gathering import gather, unwrapped
from nearcache.local.interrupts import Permit, from_signal_handler
from nearcache.local.singleflight import Outcome
from nearcache.runtime.latches import ThreadLatch, ThreadPermits
from nearcache.runtime.loading import LOADING
from nearcache.runtime.run_sync import run_sync

_IN_BACKGROUND: ContextVar[bool] = ContextVar("nearcache-background", default=False)
"""Whether the present code runs in a thread of ThreadRuntime.spawn."""
_ENDING = "interpreter shutdown"
"""What Python 3.12 and later say when a thread is started while the interpreter ends."""

T = TypeVar("T")


class BackgroundThread:
    """Work in a thread of its own."""

    def __init__(
        self,
        work: Coroutine[Any, Any, object],
        names: tuple[object, ...],
        done: Callable[[BackgroundThread], None],
        permit: Permit | None = None,
    ) -> None:
        self.permit = permit
        """What it works by; None: it needs none, or has given it back."""
        self._work = work
        self._names = names
        self._done = done
        self.thread = threading.Thread(target=copy_context().run, args=(self.run,), name="nearcache-load", daemon=True)

    def run(self) -> None:
        """Do the work."""
        LOADING.set(self._names)
        _IN_BACKGROUND.set(True)
        try:
            run_sync(self._work)
        except BaseException:  # noqa: BLE001, S110  # as SystemExit, any exception of a loader ends the thread silently
            pass
        finally:
            self._done(self)

    def cancel(self, after: float) -> None:
        """Do nothing: a thread cannot be cancelled, and its value is stored if the put rule still allows it."""


class ThreadRuntime:
    """The caller's thread runs the engine's coroutines.

    Args:
        threads: the most threads for background work.
    """

    monotonic = staticmethod(monotonic)

    def __init__(self, threads: int = 32) -> None:
        self._threads = ThreadPermits(threads)
        self._working: set[BackgroundThread] = set()
        self.latch = ThreadLatch

    def callers(self) -> tuple[object, ...]:
        return (*LOADING.get(), threading.get_ident())

    def permits(self, count: int) -> ThreadPermits:
        return ThreadPermits(count)

    async def spawn(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> BackgroundThread | None:
        nested = _IN_BACKGROUND.get()
        permit = None if nested else await self._threads.acquire(timeout)
        if not nested and permit is None:
            work.close()
            return None
        names = () if owner is None else (*self.callers(), owner)
        background = BackgroundThread(work, names, self._ended, permit)
        try:
            self._working.add(background)
            if sys.is_finalizing():  # a thread that is started now never runs, and on 3.11 its start waits for that
                raise RuntimeError(_ENDING)
            background.thread.start()
        except RuntimeError as error:  # the system has no thread left, or the interpreter is ending
            if owner is not None and _ENDING in str(error):
                copy_context().run(background.run)  # in this thread, without a time limit: there will be no other
                return background
            work.close()
            self._ended(background)
            return None
        except BaseException:  # an interrupt
            if background.thread.ident is None:  # else it ends by itself
                self._ended(background)
            raise
        return background

    async def together(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        if len(works) == 1:  # as nearly always: keys of one bucket
            return [await works[0]]
        return unwrapped(gather(works))

    def start(self, work: Coroutine[Any, Any, object], name: str) -> BackgroundThread | None:
        """See Runtime."""
        background = BackgroundThread(work, (), lambda _: None)
        background.thread.name = name
        try:
            if sys.is_finalizing():
                raise RuntimeError(_ENDING)
            background.thread.start()
        except RuntimeError:
            work.close()
            return None
        return background

    def _ended(self, background: BackgroundThread) -> None:
        self._working.discard(background)
        permit, background.permit = background.permit, None
        if permit is not None:
            self._threads.release(permit)

    def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the background work."""
        until = monotonic() + timeout
        for background in tuple(self._working):
            if background.thread is not threading.current_thread():
                with suppress(RuntimeError):  # an interrupt came before it started
                    background.thread.join(max(0.0, until - monotonic()))

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        loading = LOADING.set(self.callers())
        try:
            value = loader()
            if isinstance(value, Coroutine):
                value.close()
                raise TypeError(f"the loader {loader!r} is a coroutine function; NearCache takes plain ones")
            return Outcome(value)
        except Exception as error:  # it is raised to the callers, later
            if from_signal_handler(error):  # it is this caller's alone: a follower leads
                raise
            return Outcome(error=error)
        finally:
            LOADING.reset(loading)

    async def give_way(self) -> None:
        pass

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        await work
