"""A crew of worker processes: started together, given orders over pipes, and ended.

A worker process runs a module's coroutine function of its own arguments and a pipe; as a rule that makes a cache and
hands an object to ``serve``, whose methods are the orders. ``Crew.ask`` gives an order to all processes and waits for
all answers, so that it is a barrier. The processes may run on another interpreter than the one that gives the orders,
so they are started as a program (``python -m tests.support.processes``) and not by multiprocessing, which would give
them the paths of this interpreter's modules.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from nearcache import AsyncNearCache, NearCache
from nearcache.runtime.run_sync import run_sync

ANSWER_TIMEOUT = 60.0
"""Seconds that the crew waits for an answer of a process."""
ROOT = Path(__file__).parents[2]

Cache = NearCache | AsyncNearCache
T = TypeVar("T")


class Crew:
    """Some processes, each of which runs ``work(*arguments, pipe)``.

    Args:
        work: a coroutine function of a module, since a spawned process finds it by its name.
        arguments: of each process, by the name of the process.
    """

    python: ClassVar[str] = sys.executable
    """The interpreter of the processes; it needs the library's dependencies, and gets the library from this folder."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, None]], arguments: Mapping[str, Sequence[Any]]) -> None:
        self._work, self._arguments = work, arguments
        self._members: dict[str, tuple[subprocess.Popen[bytes], Connection]] = {}

    def __enter__(self) -> Self:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            for name, arguments in self._arguments.items():
                ours, theirs = multiprocessing.Pipe()
                with theirs:
                    process = subprocess.Popen(
                        [self.python, "-m", "tests.support.processes", str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        env={**os.environ, "PYTHONPATH": path},
                    )
                self._members[name] = process, ours
                ours.send((self._work, arguments))
            for name in self._members:
                self._answer(name)  # the process is ready
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def ask(self, order: str, *arguments: object) -> list[Any]:
        """Give an order to all processes, and wait for all answers, in the order of the processes.

        Raises:
            RuntimeError: a process has ended, or does not answer.
        """
        self.tell(order, *arguments)
        return [self._answer(name) for name in self._members]

    def tell(self, order: str, *arguments: object) -> None:
        """Give an order to all processes; ``answers`` waits for the answers."""
        for _, pipe in self._members.values():
            pipe.send((order, arguments))

    def answers(self) -> list[Any]:
        """The answers of the processes to what ``tell`` told them."""
        return [self._answer(name) for name in self._members]

    def kill(self, name: str) -> None:
        """End a process as a crash does."""
        process, pipe = self._members.pop(name)
        process.kill()
        process.wait()
        pipe.close()

    def pause(self, name: str) -> None:
        """Stop a process (SIGSTOP) until ``resume``."""
        self._members[name][0].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a stopped process go on (SIGCONT)."""
        self._members[name][0].send_signal(signal.SIGCONT)

    def name_of(self, pid: int) -> str:
        """The name of the process that has this number."""
        return next(name for name, (process, _) in self._members.items() if process.pid == pid)

    def _answer(self, name: str) -> Any:
        process, pipe = self._members[name]
        try:
            if pipe.poll(ANSWER_TIMEOUT):
                return pipe.recv()
        except (EOFError, ConnectionError):
            process.wait(5)
            raise RuntimeError(f"{name} ended with {process.returncode}; its traceback is above") from None
        raise RuntimeError(f"{name} has not answered for {ANSWER_TIMEOUT:.0f} s")

    def _end(self) -> None:
        for _, pipe in self._members.values():
            pipe.close()  # the worker's orders end here
        for process, _ in self._members.values():
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def serve(pipe: Connection, worker: object) -> None:
    """Say that the process is ready, and follow orders until the pipe is closed; an order names a coroutine method."""
    pipe.send(None)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    while True:
        loop.add_reader(pipe.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(pipe.fileno())
        readable.clear()
        try:
            order, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(await getattr(worker, order)(*arguments))


async def done(answer: Any) -> Any:
    """The result of a method of either class: it is plain, or has to be awaited."""
    return await answer if inspect.isawaitable(answer) else answer


async def side_by_side(cache: Cache, callers: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run callers of a cache together, and return what they return.

    Those of a NearCache run in a thread each, without a loop: they suspend nowhere, since ``done`` and ``pause`` block
    in them as the cache does. The loop of this process waits for them.
    """
    coroutines = list(callers)
    if isinstance(cache, NearCache):
        with ThreadPoolExecutor(len(coroutines)) as pool:
            return list(pool.map(run_sync, coroutines))
    return await asyncio.gather(*coroutines)


async def pause(cache: Cache, seconds: float) -> None:
    """Sleep as a caller of a cache does."""
    if isinstance(cache, NearCache):
        time.sleep(seconds)  # noqa: ASYNC251  # in a thread of its own
    else:
        await asyncio.sleep(seconds)


def loader_of(cache: Cache, begin: Callable[..., tuple[Any, float]]) -> Callable[..., Any]:
    """Make a loader of the kind that a cache takes; ``begin`` gives the value, and how many seconds the load takes."""

    @functools.wraps(begin)
    def load(*arguments: Any) -> Any:
        value, seconds = begin(*arguments)
        time.sleep(seconds)
        return value

    @functools.wraps(begin)
    async def load_async(*arguments: Any) -> Any:
        value, seconds = begin(*arguments)
        await asyncio.sleep(seconds)
        return value

    return load if isinstance(cache, NearCache) else load_async


@asynccontextmanager
async def connected(make: type[Cache], url: str, **settings: Any) -> AsyncIterator[Any]:
    """A healthy cache of either class, closed at the end.

    Raises:
        RuntimeError: it does not become healthy.
    """
    cache: Cache = make.from_url(url, **settings)
    try:
        if not await done(cache.wait_healthy(20)):
            raise RuntimeError(f"{cache!r} did not become healthy")
        yield cache
    finally:
        await done(cache.close())


if __name__ == "__main__":
    orders = Connection(int(sys.argv[1]))
    work, its_arguments = orders.recv()
    asyncio.run(work(*its_arguments, orders))
