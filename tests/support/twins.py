"""One test for both classes: a Twin is used as an AsyncNearCache, and is one, or is a NearCache behind it.

Write a test of the API as ``async def``, take ``make_cache``, await what is awaited on AsyncNearCache, and pass loaders
through ``cache.loader``. A NearCache's methods then run in threads of their own, so that ``asyncio.gather`` over them
is as concurrent as over tasks; a loader's coroutine runs on the test's loop while the thread waits for it. Context
variables go along both ways.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import nearcache
from nearcache.testing import FakeServer

MODES = ("sync", "aio")

PLAIN = {"peek", "key", "clear_local", "stats", "health", "healthy", "on_event", "settings", "url"}
"""What is no coroutine on AsyncNearCache either."""

PLAIN_ON_FUNCTION = {"peek", "key", "__wrapped__"}
"""The same of a cached function."""

THREADS = 64


class MakeCache(Protocol):
    """What the fixture ``make_cache`` gives."""

    def __call__(self, url: str | None = None, **settings: object) -> Twin:
        """A cache of the class under test; the fixture closes it."""


def twin_of(mode: str, url: str, runner: asyncio.Runner, **settings: Any) -> Twin:
    """A cache of the class that the mode names, as a Twin on this loop."""
    if mode == "aio":
        return Twin(nearcache.AsyncNearCache.from_url(url, **settings))
    return SyncTwin(nearcache.NearCache.from_url(url, **settings), runner.get_loop())


def twin_on(fake: FakeServer, mode: str, runner: asyncio.Runner, **settings: Any) -> Twin:
    """The same on a fake server."""
    if mode == "aio":
        return Twin(fake.async_cache(**settings))
    return SyncTwin(fake.cache(**settings), runner.get_loop())


class Twin:
    """An AsyncNearCache as it is."""

    mode = "aio"

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    def loader(self, outcome: object) -> Callable[..., Any]:
        """A value, or a plain or coroutine function, as a loader of the kind that this class takes."""

        async def load(*args: object) -> object:
            result = outcome(*args) if callable(outcome) else outcome
            return await result if inspect.isawaitable(result) else result

        return load

    def cached(self, *args: Any, **options: Any) -> Any:
        """``cached`` of the class; decorate coroutine functions, and await what comes."""
        return self.cache.cached(*args, **options)

    async def close(self) -> None:
        """Close the cache."""
        await self.cache.close()

    async def __aenter__(self) -> Self:
        await self.cache.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.cache.__aexit__(*exc_info)


class SyncTwin(Twin):
    """A NearCache: each call in a thread, awaited."""

    mode = "sync"

    def __init__(self, cache: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(cache)
        self._loop = loop
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tests-twin")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.cache, name)
        return found if name in PLAIN or not callable(found) else self._awaited(found)

    def loader(self, outcome: object) -> Callable[..., Any]:
        """A plain function; a coroutine that it stands for runs on the test's loop."""
        load = super().loader(outcome)
        return lambda *args: self._on_loop(load(*args))

    def cached(self, *args: Any, **options: Any) -> Any:
        """Decorate a coroutine function's plain double, and give back what is awaited like the original."""
        if args and callable(args[0]):
            return self.cached(**options)(args[0])

        def decorate(function: Callable[..., Awaitable[Any]]) -> CachedTwin:
            return CachedTwin(self.cache.cached(*args, **options)(self._plain(function)), self._awaited)

        return decorate

    def _plain(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        # No closure, since one could not be cached under its name alone.
        @functools.wraps(function)
        def plain(*args: Any, _run: Any = self._on_loop, _function: Any = function, **keywords: Any) -> Any:
            return _run(_function(*args, **keywords))

        return plain

    async def close(self) -> None:
        """Close the cache, and the threads that called it."""
        await self._awaited(self.cache.close)()
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        await self._awaited(self.cache.__enter__)()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._awaited(self.cache.__exit__)(*exc_info)

    def _awaited(self, method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            work = functools.partial(contextvars.copy_context().run, method, *args, **options)
            return await self._loop.run_in_executor(self._threads, work)

        return call

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class CachedTwin:
    """A function cached by a NearCache, awaited like one cached by an AsyncNearCache."""

    def __init__(self, function: Any, awaited: Callable[[Any], Any]) -> None:
        self._function = function
        self._awaited = awaited

    def __call__(self, *args: Any, **keywords: Any) -> Awaitable[Any]:
        """Call it in a thread."""
        result: Awaitable[Any] = self._awaited(self._function)(*args, **keywords)
        return result

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._function, name)
        return found if name in PLAIN_ON_FUNCTION else self._awaited(found)
