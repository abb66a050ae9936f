"""The engine's Runtime for asyncio: the caller's task awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, TypeVar

from nearcache.engine.gathering import ended, unwrapped
from nearcache.local.singleflight import Outcome
from nearcache.runtime.loading import LOADING


class TaskLatch:
    """A Latch for tasks of one loop; it may be set from other threads."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001  # public since 3.7's C API, and never raises
            self._event.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                return await self._event.wait()
        except TimeoutError:
            return self._event.is_set()


class TaskPermits:
    """Permits for tasks."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    def release(self, permit: object) -> None:
        del permit
        self._free.release()

    def more(self) -> object:
        return True

    def retire(self, permit: object) -> None:
        pass

    async def acquire(self, timeout: float) -> object | None:
        if not self._free.locked():
            return await self._free.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await self._free.acquire()
        except TimeoutError:
            return None


T = TypeVar("T")


class BackgroundTask:
    """Work in a task of its own."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task

    def cancel(self, after: float) -> None:
        timer = self._task.get_loop().call_later(after, self._task.cancel)
        self._task.add_done_callback(lambda _: timer.cancel())


class TaskRuntime:
    """The caller's task awaits the engine's coroutines."""

    monotonic = staticmethod(monotonic)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def callers(self) -> tuple[object, ...]:
        # Before the task the callers of the loaders around it: a loader may read from tasks of its own.
        return (*LOADING.get(), asyncio.current_task())

    def latch(self) -> TaskLatch:
        return TaskLatch()

    def permits(self, count: int) -> TaskPermits:
        return TaskPermits(count)

    async def spawn(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> BackgroundTask:
        """See Runtime; a task can always be made."""
        del timeout
        context = copy_context()
        context.run(LOADING.set, () if owner is None else (*self.callers(), owner))
        task = self.create_task(work, "nearcache-load", context)
        task.add_done_callback(_retrieve)
        return BackgroundTask(task)

    async def together(self, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """See Runtime; the connections are multiplexed."""
        if len(works) == 1:  # as nearly always: keys of one bucket
            return [await works[0]]
        return unwrapped(await asyncio.gather(*map(ended, works)))

    def start(self, work: Coroutine[Any, Any, object], name: str) -> BackgroundTask:
        """See Runtime; a task can always be made."""
        task = self.create_task(work, name)
        task.add_done_callback(_retrieve)
        return BackgroundTask(task)

    async def load(self, loader: Callable[[], Any]) -> Outcome:
        loading = LOADING.set(self.callers())
        try:
            value = loader()
            if not isinstance(value, Awaitable):
                raise TypeError(f"the loader {loader!r} gave no awaitable; AsyncNearCache takes coroutine functions")
            return Outcome(await value)
        except Exception as error:  # noqa: BLE001  # it is raised to the callers, later
            return Outcome(error=error)
        finally:
            LOADING.reset(loading)

    async def give_way(self) -> None:
        await asyncio.sleep(0)

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        # In a task of its own, which a second cancellation of the caller does not cancel.
        await asyncio.shield(self.create_task(work, "nearcache-settle"))

    def create_task(
        self, work: Coroutine[Any, Any, object], name: str, context: Context | None = None
    ) -> asyncio.Task[object]:
        """Run a coroutine in a task, with a reference to it until it has ended."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the tasks that still run, then cancel them."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _retrieve(task: asyncio.Task[object]) -> None:
    """Retrieve the exception, so that asyncio does not log it: the callers that waited may be gone."""
    if not task.cancelled():
        task.exception()
