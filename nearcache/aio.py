"""AsyncNearCache: the look into L1, else the flow, awaited. The same words as NearCache."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from nearcache.base import BaseCache, warned_of_default
from nearcache.checks import Duration, Ttl, seconds
from nearcache.engine import atomic, load, read, write
from nearcache.engine.ports import MISSING
from nearcache.engine.replay import replay_journal
from nearcache.engine.subscriber import Subscriber
from nearcache.errors import ConfigError
from nearcache.local.s3fifo import USES_MAX
from nearcache.policy import (
    STORING,
    CachedOptions,
    LoadOptions,
    Policy,
    WriteOptions,
    check_counts,
    check_key,
    check_tags,
)
from nearcache.runtime.lifetime import end_of_tasks, live, subscriber_of
from nearcache.runtime.tasks import TaskRuntime
from nearcache.settings import Settings
from nearcache.transport.backend import AsyncClient, Backend

if TYPE_CHECKING:
    from nearcache.explanation import Explanation
    from nearcache.functions.wrapper import AsyncCachedFunction

D = TypeVar("D")
P = ParamSpec("P")
T = TypeVar("T")


class AsyncNearCache(BaseCache):
    """A near cache for asyncio. It serves one running event loop at a time: the one on which it is first used.

    When that loop is closed, the next one that uses the cache takes it over, with an empty L1 and new connections: so
    a cache of a module serves each test's loop in turn, and one ``asyncio.run`` after the other.

    ``peek``, ``clear_local``, ``stats``, ``health``, ``healthy``, ``settings``, ``codec``, ``url``, ``on_event`` and
    ``cached`` are plain, and so are ``key`` and ``peek`` of a cached function; everything else is awaited.

    Args:
        client: a ``redis.asyncio.Redis`` or ``RedisCluster``; its connection settings are borrowed, the client itself
            is left alone.
        settings: see :class:`Settings`.

    Raises:
        ConfigError: it is no such client.

    >>> async def main():
    ...     async with AsyncNearCache.from_url("memory://", ttl=60) as cache:
    ...         await cache.set("user:7", {"name": "Ada"})
    ...         return await cache.get("user:7")
    >>> asyncio.run(main())
    {'name': 'Ada'}
    """

    _asynchronous = True
    _with = "async with cache:"

    def __init__(self, client: AsyncClient, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        from nearcache.transport.open import open_client  # noqa: PLC0415  # as in NearCache

        self._build(warned_of_default(open_client(client, settings, asynchronous=True), settings), settings)

    def _build(self, where: Backend, settings: Settings) -> None:
        self._runtime = TaskRuntime()
        super().__init__(where, settings, self._runtime)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscriber: Subscriber | None = None
        self._bus: asyncio.Task[object] | None = None
        self._finalizer = None

    # ------------------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        """Start, and wait for the first attempt to connect, as :meth:`NearCache.__enter__`.

        Raises:
            ConfigError: as there; or the cache is in use on another event loop that is not closed.
        """
        self._reopen_closed()
        self._check_loop()
        self._enter()
        refusal: object = None
        self._troubles.opening = True
        try:
            refusal = await (await self._ready()).first_attempt()
            if refusal is not None:
                raise ConfigError(f"{self.url}: {refusal}")
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        finally:
            self._troubles.opened(raised=refusal is not None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave_with():
            await self.close()

    async def close(self) -> None:
        """As :meth:`NearCache.close`.

        Raises:
            ConfigError: the cache is in use on another event loop that is not closed.
        """
        if not self._check_loop():
            self._close_without_loop()
            return
        self._end()
        # A task may open a shared cache again while this one waits, and then it has new ones of all these.
        core, runtime, server = self._core, self._runtime, self._backend.server
        if self._subscriber is not None:
            if self._bus is not None:
                self._bus.cancel()
            settings = core.settings
            await runtime.drain(settings.redis_connect_timeout + 2 * settings.redis_timeout)
            for one in core.all:
                await replay_journal(one)
        await core.remote.close()
        if server is not None:
            server.stop()

    def _close_without_loop(self) -> None:
        """Close a cache that was never used, or whose loop is closed, and the connections with it."""
        self._check_loop()
        self._end()
        if self._backend.server is not None:
            self._backend.server.stop()

    def _end(self) -> None:
        if self._subscriber is not None:
            self._subscriber.end()
        if self._finalizer is not None:
            self._finalizer.detach()
        self._stop_serving()

    async def wait_healthy(self, timeout: Duration = 2.0) -> bool:
        """As :meth:`NearCache.wait_healthy`."""
        return await (await self._ready()).wait_healthy(seconds("timeout", timeout))

    def _check_loop(self) -> bool:
        """Whether the cache has no loop yet, or the running one; False if its loop is closed.

        Raises:
            ConfigError: its loop is another one, which is not closed.
        """
        if self._loop is None or self._loop is asyncio._get_running_loop():  # noqa: SLF001  # None: there is none
            return True
        if self._loop.is_closed():
            return False
        raise ConfigError(
            f"{self!r} belongs to another event loop; make one cache per loop, close this one there before another "
            "loop uses it, or share a NearCache between threads"
        )

    async def _ready(self) -> Subscriber:
        """Before anything that may ask Redis: the bus starts at the first use, on the loop that runs then."""
        self._check_open()
        with self._opening:
            if not self._check_loop():
                self._reopen()
            subscriber = self._subscriber
            if subscriber is not None:
                return subscriber
            self._loop = loop = asyncio.get_running_loop()
            self._subscriber = subscriber = subscriber_of(self._core, self._backend)
            if self._core.new_bus is None:
                return subscriber
            self._bus = self._runtime.create_task(live(subscriber), "nearcache-bus")
            self._finalizer = weakref.finalize(self, end_of_tasks, self._bus, loop)
            self._finalizer.atexit = False
        await subscriber.first_use()
        return subscriber

    # ---------------------------------------------------------------------------------------------- reading

    @overload
    async def get(self, key: str) -> Any | None: ...
    @overload
    async def get(self, key: str, default: D) -> Any | D: ...
    async def get(self, key: str, default: Any = None) -> Any:
        """As :meth:`NearCache.get`."""
        # The look of BaseCache._look written out, as there.
        tier = self._tier
        try:
            entry = tier.entries[key]
            now = monotonic()
            if now < entry.deadline and now < entry.proof.until:
                touch = tier.touch
                if touch is not None:
                    touch(key)
                elif entry.uses < USES_MAX:
                    entry.uses += 1
                tier.hits += 1
                return entry.value if entry.decode is None else self._decoded(key, entry)
        except (KeyError, TypeError):
            pass
        if self._closed or self._loop is not asyncio.get_running_loop():  # a coroutine less, on the way to Redis
            await self._ready()
        core = self._core
        most = core.settings.max_key_bytes
        if (
            type(key) is not str or not key.isascii() or not 0 < len(key) <= most
        ):  # as check_key: nearly always a call less
            key = check_key(key, most)
        value = await read.get(core, key)
        return default if value is MISSING else value

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """As :meth:`NearCache.get_many`."""
        await self._ready()
        found, absent = self._look_many(keys)
        return found | await read.get_many(self._core, absent) if absent else found

    async def get_or_set(self, key: str, loader: Callable[[], Awaitable[T]], **options: Unpack[LoadOptions]) -> T:
        """As :meth:`NearCache.get_or_set`; the loader is anything that returns an awaitable, awaited in this task."""
        value = self._look(key)
        if value is not MISSING:
            if options:  # wrong ones are told at each call, and not only where the value is absent
                self._policy.check(options)
            return value  # type: ignore[no-any-return]  # what was stored under the key is what the loader gives
        return await self._load(key, loader, self._policy.over(options), replace=False)

    async def get_or_set_many(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]:
        """As :meth:`NearCache.get_or_set_many`; ``load_many`` is awaited in this task."""
        policy = self._policy.over(options)
        await self._ready()
        found, absent = self._look_many(keys)
        if not absent:
            return found
        from nearcache.engine.load_many import get_or_load_many, values_of  # noqa: PLC0415  # few need it

        return found | values_of(await get_or_load_many(self._core, absent, load_many, policy))

    async def refresh(self, key: str, loader: Callable[[], Awaitable[T]], **options: Unpack[LoadOptions]) -> T:
        """As :meth:`NearCache.refresh`."""
        return await self._load(key, loader, self._policy.over(options), replace=True)

    async def _load(self, key: str, loader: Callable[[], Awaitable[T]], policy: Policy, *, replace: bool) -> T:
        await self._ready()
        outcome = await load.get_or_load(self._core, self._checked(key), loader, policy, replace=replace)
        return outcome.get()  # type: ignore[no-any-return]  # as above

    # ---------------------------------------------------------------------------------------------- writing

    async def set(self, key: str, value: object, **options: Unpack[WriteOptions]) -> bool:
        """As :meth:`NearCache.set`; cancelled, its outcome is unknown, and it counts as not acknowledged."""
        await self._ready()
        policy = self._policy.over(options, STORING)
        return await write.store_one(self._core, self._checked(key), value, policy)

    async def set_many(self, values: Mapping[str, object], **options: Unpack[WriteOptions]) -> bool:
        """As :meth:`NearCache.set_many`."""
        await self._ready()
        policy = self._policy.over(options, STORING)
        return await write.store(self._core, self._checked_items(values), policy)

    async def delete(self, *keys: str, hold: Duration | None = None) -> bool:
        """As :meth:`NearCache.delete`."""
        await self._ready()
        return await write.delete(self._core, [self._checked(key) for key in keys], self._hold_ms(hold))

    async def delete_existing(self, key: str) -> bool:
        """As :meth:`NearCache.delete_existing`."""
        await self._ready()
        return await write.delete_existing(self._core, self._checked(key))

    async def add(self, key: str, value: object, **options: Unpack[WriteOptions]) -> bool:
        """As :meth:`NearCache.add`; cancelled, its outcome is unknown."""
        await self._ready()
        policy = self._policy.over(options, STORING)
        return await atomic.add(self._core, self._checked(key), value, policy)

    async def touch(self, key: str, ttl: Ttl | None = None) -> bool:
        """As :meth:`NearCache.touch`; cancelled, its outcome is unknown."""
        await self._ready()
        return await atomic.touch(self._core, self._checked(key), self._policy.over({"ttl": ttl}))

    async def incr(self, key: str, delta: int = 1, initial: int | None = 0, ttl: Ttl | None = None) -> int:
        """As :meth:`NearCache.incr`; cancelled, its outcome is unknown."""
        await self._ready()
        policy = self._policy.over({"ttl": ttl})
        return await atomic.incr(self._core, self._checked(key), *check_counts(delta, initial), policy)

    async def mark_stale(self, *keys: str) -> bool:
        """As :meth:`NearCache.mark_stale`."""
        await self._ready()
        return await write.mark_stale(self._core, [self._checked(key) for key in keys])

    async def invalidate_tags(self, *tags: str, stale: bool = False) -> bool:
        """As :meth:`NearCache.invalidate_tags`."""
        await self._ready()
        checked = check_tags(tags, self._core.settings.max_key_bytes, None)
        return await write.invalidate_tags(self._core, checked, stale=stale)

    async def explain(self, key: str) -> Explanation:
        """As :meth:`NearCache.explain`."""
        await self._ready()
        from nearcache.engine.explain import explain  # noqa: PLC0415  # few need it

        return await explain(self._core, self._checked(key))

    async def clear(self) -> bool:
        """As :meth:`NearCache.clear`."""
        await self._ready()
        return await write.clear(self._core)

    # --------------------------------------------------------------------------------------------- functions

    @overload
    def cached(self, target: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncCachedFunction[P, T]: ...
    @overload
    def cached(
        self, target: str | None = None, /, **options: Unpack[CachedOptions]
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], AsyncCachedFunction[P, T]]: ...
    def cached(self, target: Any = None, /, **options: Any) -> Any:
        """As :meth:`NearCache.cached`, for coroutine functions; ``invalidate`` and ``refresh`` are awaited too."""
        from nearcache.functions.cached import cached_async  # noqa: PLC0415  # not every program decorates

        return cached_async(self, target, **options)
