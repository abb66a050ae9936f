"""Threads or tasks: how a flow waits, calls a loader, and leaves work behind. The threaded host never suspends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from time import monotonic
from typing import Any

from nearcache.ports import Outcome


class ThreadWake:
    """A Wake for threads."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds."""
        return self._event.wait(timeout)


class ThreadHost:
    """Flows run in the caller's thread."""

    def monotonic(self) -> float:
        """The monotonic clock."""
        return monotonic()

    def me(self) -> object:
        """The thread."""
        return threading.get_ident()

    def wake(self) -> ThreadWake:
        """A new Wake."""
        return ThreadWake()

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        """Call the loader in the caller's thread."""
        try:
            value = loader()
            if isinstance(value, Coroutine):
                value.close()
                raise TypeError(f"the loader {loader!r} is a coroutine function; NearCache takes plain ones")
            return Outcome(value)
        except Exception as error:  # noqa: BLE001  # it is the caller's, and travels as data
            return Outcome(error=error)

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it now."""
        await work


_LOADING: ContextVar[object] = ContextVar("nearcache-loading", default=None)
"""Inside a loader, the task that called it; tasks that the loader makes inherit it."""


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


class TaskHost:
    """Flows are awaited by the caller's task."""

    def monotonic(self) -> float:
        """The monotonic clock."""
        return monotonic()

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def me(self) -> object:
        """The task, or the one whose loader it was made by: a loader may ask from tasks of its own."""
        return _LOADING.get() or asyncio.current_task()

    def wake(self) -> TaskWake:
        """A new Wake."""
        return TaskWake()

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

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
        """Run something in a task that is kept until it has ended."""
        task = asyncio.get_running_loop().create_task(work, name=name)
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
