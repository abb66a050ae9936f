"""A server in plain Python that the caches of this process share, and whose faults a test starts and stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from datetime import timedelta
from functools import partial
from typing import TypeAlias, Unpack

from nearcache.aio import AsyncNearCache
from nearcache.checks import BUCKETS_MAX, seconds, whole
from nearcache.errors import ConfigError
from nearcache.local.snapshot import bucket_of
from nearcache.runtime.latches import ThreadLatch
from nearcache.runtime.tasks import TaskLatch
from nearcache.settings import Settings, SettingsOptions
from nearcache.sync import NearCache
from nearcache.testing.fake_buckets import FakeBuckets, primary_of
from nearcache.testing.fake_network import OPERATIONS, Client, Fault, Kind, Network
from nearcache.testing.fake_transport import FakeBus, FakeRemote
from nearcache.transport.backend import Backend, Buckets
from nearcache.transport.cluster import BUCKETS
from nearcache.transport.open import no_bus

AnyCache: TypeAlias = NearCache | AsyncNearCache

PAUSE = 0.001
"""Seconds between two checks whether the caches have settled."""

SHOWN = "fake://"
"""The address of a cache on a fake server."""


class FakeServer:
    """A Redis for tests: any number of caches of both classes share it, in one process and without a network.

    It behaves as a real one does with the library's scripts: versions, leases, tags, expiry, messages and proofs; a
    test compares it with Valkey and Redis. Its time is a :class:`ManualClock` while one is entered. It shows how *your*
    code and this library behave, not how fast a real server is.

    Each fault is an object with ``start`` and ``stop``, and is on inside a ``with``. Their common arguments:

    - ``only``: names of the operations that it concerns, as in ``only={"set"}``; by default all. They are those of the
      protocol (``OPERATIONS``): a ``get_or_set`` that loads is a "read", a "lease" and a "fill".
    - ``of``: the cache whose connections it concerns; by default every cache.
    - ``primary``: with several primaries, the number of the one that it concerns; by default all of them.

    Args:
        primaries: of a cluster; 1 is one server. A cache on several has 16 buckets, or as many as its setting
            ``buckets`` says, which are divided among them; ``primary_of`` tells which of them has a key.

    >>> server = FakeServer()
    >>> with server.cache(ttl=60) as here, server.cache(ttl=60) as there:
    ...     here.set("user:7", "Ada"), there.get("user:7")
    ...     with server.away():
    ...         here.set("user:7", "Grace")  # not acknowledged: a miss for all when the server is back
    ...     server.settle()
    ...     there.get("user:7", "absent")
    (True, 'Ada')
    False
    'absent'
    """

    def __init__(self, *, primaries: int = 1) -> None:
        self._network = Network()
        self._primaries: int = whole(1, BUCKETS_MAX)("primaries", primaries)

    # --------------------------------------------------------------------------------------------------------- caches

    def cache(self, **settings: Unpack[SettingsOptions]) -> NearCache:
        """A cache for threads on this server.

        Args:
            **settings: see :class:`~nearcache.Settings`. Caches of one namespace share their values.

        Raises:
            ConfigError: a setting can never work.
        """
        made = NearCache.__new__(NearCache)
        chosen = Settings(**settings)
        made._build(self._backend(chosen, asynchronous=False), chosen)  # noqa: SLF001  # as its from_url does
        return made

    def async_cache(self, **settings: Unpack[SettingsOptions]) -> AsyncNearCache:
        """A cache for asyncio on this server; arguments and errors are those of ``cache``."""
        made = AsyncNearCache.__new__(AsyncNearCache)
        chosen = Settings(**settings)
        made._build(self._backend(chosen, asynchronous=True), chosen)  # noqa: SLF001  # as its from_url does
        return made

    def behind(self, cache: AnyCache) -> Behind:
        """Connect a cache that your application has made to this server, inside ``with`` or ``async with``.

        The cache is closed before and after, and works here without being opened, or is opened by the application: it
        keeps its settings and its cached functions. Afterwards it is as it was made, and closed if it was.

        Args:
            cache: it is not in use now. An AsyncNearCache takes ``with`` too, as long as no event loop uses it that is
                not closed: around a TestClient, which runs the application on a loop of its own.

        Raises:
            ConfigError: it has an ``embedded://`` server of its own, which would end with it; or another event loop
                uses it.

        >>> cache = NearCache.from_url("redis://cache.example:6379/0")
        >>> with FakeServer().behind(cache):
        ...     cache.set("user:7", "Ada"), cache.get("user:7")
        (True, 'Ada')
        """
        if cache._backend.server is not None:  # noqa: SLF001
            raise ConfigError(f"{cache!r} has a server of its own, which ends with it; give it another URL")
        return Behind(cache, self, self._backend(cache.settings, asynchronous=isinstance(cache, AsyncNearCache)))

    def primary_of(self, cache: AnyCache, key: str) -> int:
        """The number of the primary that has the bucket of a key, from 0 on.

        >>> server = FakeServer(primaries=3)
        >>> with server.cache() as cache:
        ...     cache.set("user:7", "Ada")
        ...     with server.away(primary=server.primary_of(cache, "user:7")):
        ...         cache.set("user:7", "Grace")
        True
        False
        """
        return primary_of(bucket_of(key, len(cache._core.all)), self._primaries)  # noqa: SLF001

    def _backend(self, settings: Settings, *, asynchronous: bool, cache: object = None) -> Backend:
        network, name, timeout = self._network, settings.namespace, settings.redis_timeout
        new_latch = TaskLatch if asynchronous else ThreadLatch
        cache = cache or object()
        again = partial(self._backend, settings, asynchronous=asynchronous, cache=cache)
        count = settings.buckets or (BUCKETS if self._primaries > 1 else 1)
        if count > 1:
            parts = FakeBuckets(network, name, new_latch, timeout, cache, buckets=count, primaries=self._primaries)
            buckets = Buckets(parts.remotes, parts)
            return Backend(parts.remotes[0], no_bus, SHOWN, again, buckets=buckets)
        remote = FakeRemote(network, name, new_latch, timeout, Client(cache))
        bus = partial(FakeBus, network, remote.client, name, new_latch, timeout, lambda: remote.seen())  # noqa: PLW0108  # it is set later
        return Backend(remote, bus, SHOWN, again)

    # --------------------------------------------------------------------------------------------------------- faults

    def away(self, *, only: Collection[str] = (), of: AnyCache | None = None, primary: int | None = None) -> Fault:
        """The server is away: connections are closed and new ones refused. With ``only``, those operations fail so."""
        return self._fault(Kind.AWAY, only, of, primary)

    def hung(self, *, only: Collection[str] = (), of: AnyCache | None = None, primary: int | None = None) -> Fault:
        """The server hangs: each operation waits for ``redis_timeout``, and is executed when the fault ends."""
        return self._fault(Kind.HUNG, only, of, primary)

    def lost_replies(
        self, *, only: Collection[str] = (), of: AnyCache | None = None, primary: int | None = None
    ) -> Fault:
        """Operations are executed, but not answered: after ``redis_timeout`` their outcome is unknown."""
        return self._fault(Kind.LOST_REPLIES, only, of, primary)

    def slow(
        self,
        delay: float | timedelta,
        *,
        only: Collection[str] = (),
        of: AnyCache | None = None,
        primary: int | None = None,
    ) -> Fault:
        """Answers come ``delay`` seconds of real time later; from ``redis_timeout`` on they are lost."""
        return self._fault(Kind.DELAY, only, of, primary, seconds("delay", delay))

    def bus_cut(self, *, of: AnyCache | None = None, primary: int | None = None) -> Fault:
        """No cache hears of changes: the connections for messages are closed, and new ones refused."""
        return self._fault(Kind.BUS_CUT, (), of, primary)

    def bus_held(self, *, of: AnyCache | None = None, primary: int | None = None) -> Fault:
        """No cache hears of changes: messages and proofs are delayed until the fault ends."""
        return self._fault(Kind.BUS_HELD, (), of, primary)

    def restart_empty(self) -> None:
        """Lose all data and close every connection, as a crash without persistence does."""
        self._network.restart()

    # -------------------------------------------------------------------------------------------------------- waiting

    def settle(self, timeout: float | timedelta = 5.0) -> None:
        """Wait until every cache here is connected, has applied all messages, and is proven for the present time.

        It does not wait for a cache whose messages a fault holds back. It blocks: on the loop of an AsyncNearCache use
        ``async_settle``.

        Args:
            timeout: seconds of real time.

        Raises:
            TimeoutError: it took longer.
        """
        until = time.monotonic() + seconds("timeout", timeout)
        while not self._settled(until):
            time.sleep(PAUSE)

    async def async_settle(self, timeout: float | timedelta = 5.0) -> None:
        """As ``settle``, on a loop."""
        until = time.monotonic() + seconds("timeout", timeout)
        while not self._settled(until):  # noqa: ASYNC110  # threads do not wake a loop
            await asyncio.sleep(PAUSE)

    def _settled(self, until: float) -> bool:
        settled = self._network.settled()
        if not settled and time.monotonic() > until:
            raise TimeoutError("some cache on the fake server is not connected, or does not apply its messages")
        return settled

    def _fault(
        self, kind: Kind, only: Collection[str], of: AnyCache | None, primary: int | None, delay: float = 0.0
    ) -> Fault:
        if not set(only) <= OPERATIONS:
            raise ValueError(f"only={only!r}: must be some of {', '.join(sorted(OPERATIONS))}")
        if primary is not None and primary not in range(self._primaries):
            raise ValueError(f"primary={primary!r}: must be a number from 0 to {self._primaries - 1}")
        cache = None
        if of is not None:
            remote = of._backend.remote  # noqa: SLF001
            if not isinstance(remote, FakeRemote):
                raise ValueError(f"of={of!r}: is not on a fake server")
            cache = remote.client.cache
        return Fault(self._network, kind, frozenset(only), cache, delay, primary)


class Behind:
    """What ``FakeServer.behind`` returns: a context manager for both kinds of ``with``."""

    def __init__(self, cache: AnyCache, server: FakeServer, backend: Backend) -> None:
        self._cache = cache
        self._server = server
        self._backend = backend
        self._closed = cache._closed  # noqa: SLF001  # of this library, as all below

    def __enter__(self) -> FakeServer:
        self._close()
        return self._begin()

    def __exit__(self, *exc_info: object) -> None:
        self._close()
        self._end()

    async def __aenter__(self) -> FakeServer:
        await self._close_async()
        return self._begin()

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close_async()
        self._end()

    def _begin(self) -> FakeServer:
        before = self._cache._backend  # noqa: SLF001
        self._cache._begin_anew(self._backend)  # noqa: SLF001
        self._backend = before
        return self._server

    def _end(self) -> None:
        self._cache._begin_anew(self._backend.again())  # noqa: SLF001
        self._cache._closed = self._closed  # noqa: SLF001

    def _close(self) -> None:
        if isinstance(self._cache, NearCache):
            self._cache.close()
        else:
            self._cache._close_without_loop()  # noqa: SLF001

    async def _close_async(self) -> None:
        if isinstance(self._cache, NearCache):
            self._cache.close()
        else:
            await self._cache.close()
