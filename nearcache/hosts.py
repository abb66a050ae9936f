"""Threads or tasks: how a flow waits, calls a loader, and leaves work behind. The threaded host never suspends.

Work that runs behind its caller's back has a thread of its own, and not one of concurrent.futures: a loader that hangs
would keep the interpreter from exiting. Their number is bounded; work that is begun inside such work needs no permit,
since it would wait for itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from time import monotonic
from typing import Any

from nearcache.flows.run import run_sync
from nearcache.hosting import Outcome
from nearcache.wakes import ThreadPermits, ThreadWake

_LOADING: ContextVar[tuple[object, ...]] = ContextVar("nearcache-loading", default=())
"""Inside a loader, in whose names it was called; what the loader makes with a copy of its context inherits it."""
_BEHIND: ContextVar[bool] = ContextVar("nearcache-behind", default=False)
"""Whether this runs in a thread of ThreadHost.behind."""


class ThreadBehind:
    """Work in a thread of its own."""

    def __init__(
        self, work: Coroutine[Any, Any, object], names: tuple[object, ...], done: Callable[[ThreadBehind], None]
    ) -> None:
        self._work = work
        self._names = names
        self._done = done
        self.thread = threading.Thread(target=copy_context().run, args=(self._run,), name="nearcache-load", daemon=True)

    def _run(self) -> None:
        _LOADING.set(self._names)
        _BEHIND.set(True)
        try:
            run_sync(self._work)
        except BaseException:  # noqa: BLE001, S110  # SystemExit ends a thread silently, and so does all else of a loader's
            pass
        finally:
            self._done(self)

    def cancel(self, after: float) -> None:
        """A thread can't be cancelled: it goes on, and what it loads is kept if it still may be."""


class ThreadHost:
    """Flows run in the caller's thread.

    Args:
        threads: for work behind the caller's back.
    """

    def monotonic(self) -> float:
        """The monotonic clock."""
        return monotonic()

    def __init__(self, threads: int = 32) -> None:
        self._threads = ThreadPermits(threads)
        self._working: set[ThreadBehind] = set()

    def me(self) -> tuple[object, ...]:
        """The thread; before it, those in whose names the loaders were called that this runs in."""
        return (*_LOADING.get(), threading.get_ident())

    def wake(self) -> ThreadWake:
        """A new Wake."""
        return ThreadWake()

    def permits(self, count: int) -> ThreadPermits:
        """Permits for threads."""
        return ThreadPermits(count)

    async def behind(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> ThreadBehind | None:
        """Run it in a thread, if one comes free in time."""
        nested = _BEHIND.get()
        if not nested and not await self._threads.acquire(timeout):
            work.close()
            return None
        names = () if owner is None else (*self.me(), owner)
        behind = ThreadBehind(work, names, self._ended if nested else self._ended_with_permit)
        self._working.add(behind)
        try:
            behind.thread.start()
        except RuntimeError:  # no thread to be had now
            work.close()
            (self._ended if nested else self._ended_with_permit)(behind)
            return None
        return behind

    def _ended(self, behind: ThreadBehind) -> None:
        self._working.discard(behind)

    def _ended_with_permit(self, behind: ThreadBehind) -> None:
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
        loading = _LOADING.set(self.me())
        try:
            value = loader()
            if isinstance(value, Coroutine):
                value.close()
                raise TypeError(f"the loader {loader!r} is a coroutine function; NearCache takes plain ones")
            return Outcome(value)
        except Exception as error:  # noqa: BLE001  # it is the caller's, and travels as data
            return Outcome(error=error)
        finally:
            _LOADING.reset(loading)

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it now."""
        await work


class TaskWake:
    """A Wake for tasks of one loop; it may be set from other threads."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001  # public since 3.7's C API, and never raises
            self._event.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._event.wait()
        except TimeoutError:
            return self._event.is_set()


class TaskPermits:
    """Permits for tasks."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self.release = self._free.release

    async def acquire(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds."""
        if not self._free.locked():
            return await self._free.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await self._free.acquire()
        except TimeoutError:
            return False


class TaskBehind:
    """Work in a task of its own."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task

    def cancel(self, after: float) -> None:
        """Cancel it, unless it ends before."""
        timer = self._task.get_loop().call_later(after, self._task.cancel)
        self._task.add_done_callback(lambda _: timer.cancel())


class TaskHost:
    """Flows are awaited by the caller's task."""

    def monotonic(self) -> float:
        """The monotonic clock."""
        return monotonic()

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def me(self) -> tuple[object, ...]:
        """The task; before it, those in whose names loaders were called: a loader may ask from tasks of its own."""
        return (*_LOADING.get(), asyncio.current_task())

    def wake(self) -> TaskWake:
        """A new Wake."""
        return TaskWake()

    def permits(self, count: int) -> TaskPermits:
        """Permits for tasks."""
        return TaskPermits(count)

    async def behind(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> TaskBehind:
        """Run it in a task; there is always room for one."""
        del timeout
        context = copy_context()
        context.run(_LOADING.set, () if owner is None else (*self.me(), owner))
        task = self.spawn(work, "nearcache-load", context)
        task.add_done_callback(_retrieved)
        return TaskBehind(task)

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        """Await the loader in the caller's task; a cancellation goes through."""
        loading = _LOADING.set(self.me())
        try:
            value = loader()
            if not isinstance(value, Awaitable):
                raise TypeError(f"the loader {loader!r} gave no awaitable; AsyncNearCache takes coroutine functions")
            return Outcome(await value)
        except Exception as error:  # noqa: BLE001  # it is the caller's, and travels as data
            return Outcome(error=error)
        finally:
            _LOADING.reset(loading)

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it in a task of its own, so that a second cancellation leaves it alone."""
        await asyncio.shield(self.spawn(work, "nearcache-settle"))

    def spawn(
        self, work: Coroutine[Any, Any, object], name: str, context: Context | None = None
    ) -> asyncio.Task[object]:
        """Run something in a task that is kept until it has ended."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for what was left behind, then cancel it."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _retrieved(task: asyncio.Task[object]) -> None:
    """Who waited for it may be gone; asyncio shall not complain."""
    if not task.cancelled():
        task.exception()
