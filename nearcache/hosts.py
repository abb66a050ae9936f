"""Threads or tasks: how a flow waits, calls a loader, and leaves work behind. The threaded host never suspends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from nearcache.ports import Outcome

LOOK_AGAIN = 1.0
"""Seconds after which a waiting thread looks for itself whether it was woken."""


class ThreadWake:
    """A Wake for threads.

    Made of a flag and a lock in C, since threading.Event has code in Python under its lock: a signal handler or a
    finaliser that sets one on the thread that is in there waits for itself, and a KeyboardInterrupt leaves it locked.
    """

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        self._is_set = True
        self._open()

    async def wait(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while not self._is_set:
            left = until - time.monotonic()
            if left <= 0:
                return False
            # Looking again now and then: whoever was to open the gate for the next one may have been interrupted.
            if self._gate.acquire(timeout=min(left, LOOK_AGAIN)):
                self._open()
        return True

    def _open(self) -> None:
        with suppress(RuntimeError):  # it is open
            self._gate.release()


class ThreadHost:
    """Flows run in the caller's thread."""

    monotonic = staticmethod(time.monotonic)

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

    monotonic = staticmethod(time.monotonic)

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
