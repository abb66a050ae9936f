"""The settings of loads: what is served stale, what is refreshed early, how long a load may take, how many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from nearcache import AsyncNearCache, LoaderTimeout
from nearcache.testing import FaultProxy, commands
from nearcache.transport.embedded import EmbeddedServer
from tests.api.test_loading import Source
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import redis_of, until, value_name

pytestmark = pytest.mark.one_server
"""What a setting does is the same on each kind of server."""

TTL = 0.15
"""Seconds; short, and waited for."""
LONG = 600.0


class Counting:
    """A loader that gives 1, 2, 3, and raises while ``broken``."""

    def __init__(self) -> None:
        self.calls = 0
        self.broken = False

    def __call__(self) -> int:
        """The next number."""
        self.calls += 1
        if self.broken:
            raise LookupError("the database is away")
        return self.calls


async def expired(cache: Twin, key: str = "k") -> None:
    """Wait until L1 serves a key no more."""
    await until(lambda: cache.peek(key) is None)


async def gone(cache: Twin, key: str = "k") -> None:
    """Wait until Redis has a key no more."""
    with redis_of(cache.url) as client:
        await until(lambda: not client.exists(value_name(cache.settings.namespace, key)))


# -------------------------------------------------------------------------------------------------- stale while loading


async def test_stale_while_revalidate_serves_at_once_and_refreshes_behind(make_cache: MakeCache) -> None:
    """A value past its ttl is served while a loader that hangs loads the next one; then that one is served."""
    async with make_cache(ttl=TTL, jitter=0, stale_while_revalidate=LONG) as cache:
        assert await cache.get_or_set("k", cache.loader(1), ttl=TTL) == 1
        await expired(cache)
        source = Source(2)
        for _ in range(5):
            assert await cache.get_or_set("k", cache.loader(source.load), ttl=LONG) == 1
        await until(lambda: source.calls)
        assert cache.stats().stale_served == 5
        source.go.set()
        await until(lambda: cache.peek("k") == 2)
        assert source.calls == 1


# --------------------------------------------------------------------------------------------- stale after an error


async def test_stale_if_error_serves_what_there_was(make_cache: MakeCache) -> None:
    """A loader that fails is not heard of while an old value may serve; else its exception is the caller's."""
    async with make_cache(stale_if_error=LONG) as cache:
        load = Counting()
        assert await cache.get_or_set("k", cache.loader(load), ttl=TTL) == 1
        await expired(cache)
        load.broken = True
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert cache.stats().stale_served == 1
        with pytest.raises(LookupError):
            await cache.get_or_set("other", cache.loader(load))


async def test_stale_if_error_survives_redis(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """Redis killed, L1 flushed by the empty one that comes back, and the database away: the old value serves."""
    options: dict[str, Any] = {"stale_if_error": LONG, "max_staleness": 0.4}
    async with make_cache(fresh_server.url, **options) as cache:
        assert await cache.wait_healthy(5)
        load = Counting()
        assert await cache.get_or_set("k", cache.loader(load), ttl=LONG) == 1
        load.broken = True
        fresh_server.kill()
        await expired(cache)
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert load.calls == 2  # the loader came before the stale value
        fresh_server.start()
        await until(lambda: cache.healthy)
        assert await cache.get("k") is None
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert await cache.delete("k")
        with pytest.raises(LookupError):
            await cache.get_or_set("k", cache.loader(load))


async def test_stale_backoff_holds_for_refreshes_that_give_up(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Commands fail and the bus is whole: no reader begins a refresh that could load for nobody."""
    options: dict[str, Any] = {"stale_while_revalidate": LONG, "stale_backoff": LONG, "redis_timeout": 0.1}
    async with make_cache(proxy.url, **options) as cache:
        await cache.set("k", 1, ttl=TTL)
        await expired(cache)
        proxy.hold("replies", commands)
        load = cache.loader(2)
        assert await cache.get_or_set("k", load) == 1
        await until(lambda: cache.stats().l2_errors and not cache._core.loads.refreshing)
        begun: list[object] = []
        spawn = cache._core.runtime.spawn

        async def counted(*args: Any) -> Any:
            begun.append(args)
            return await spawn(*args)

        cache._core.runtime.spawn = counted
        for _ in range(5):
            assert await cache.get_or_set("k", load) == 1
        assert not begun
        proxy.release()


# -------------------------------------------------------------------------------------------------------- early refresh


async def test_early_refresh_loads_before_the_end(make_cache: MakeCache) -> None:
    """The first reader after that part of the ttl begins a load behind; nobody waits, and the fresh value stays."""
    async with make_cache(ttl=LONG, jitter=0, early_refresh=0.0001) as cache:
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        source = Source(2)

        async def begun() -> int:
            assert await cache.get_or_set("k", cache.loader(source.load)) == 1
            return source.calls

        await until(begun)
        assert await cache.get("k") == 1
        assert cache.peek("k") == 1
        source.go.set()
        await until(lambda: cache.peek("k") == 2)
        assert source.calls == 1
        assert cache.stats().stale_served == 0


# ---------------------------------------------------------------------------------------------------------- time limits


async def test_loader_soft_timeout_serves_the_stale_value_and_lets_the_load_end(make_cache: MakeCache) -> None:
    """A loader that hangs costs a reader so long at most; what it brings at last is kept."""
    options: dict[str, Any] = {"stale_if_error": LONG, "loader_soft_timeout": 0.05}
    async with make_cache(**options) as cache:
        assert await cache.get_or_set("k", cache.loader(1), ttl=TTL) == 1
        await expired(cache)
        source = Source(2)
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1  # it follows, and has the same patience
        assert source.calls == 1
        source.go.set()
        await until(lambda: cache.peek("k") == 2)
        assert not len(cache._core.flights)


async def test_loader_hard_timeout_raises(make_cache: MakeCache) -> None:
    """Who waits longer gets LoaderTimeout, leader and follower alike."""
    async with make_cache(loader_hard_timeout=0.05) as cache:
        source = Source(2)
        readers = [asyncio.create_task(cache.get_or_set("k", cache.loader(source.load))) for _ in range(3)]
        for outcome in await asyncio.gather(*readers, return_exceptions=True):
            assert isinstance(outcome, LoaderTimeout)
            assert "'k' was not loaded within loader_hard_timeout=0.05" in str(outcome)
        source.go.set()
        await until(lambda: not len(cache._core.flights))
        assert await cache.get_or_set("k", cache.loader(3)) in (2, 3)


async def test_loader_hard_timeout_prefers_a_stale_value(make_cache: MakeCache) -> None:
    """With stale_if_error it is an error like others."""
    async with make_cache(loader_hard_timeout=0.05, stale_if_error=LONG) as cache:
        assert await cache.get_or_set("k", cache.loader(1), ttl=TTL) == 1
        await expired(cache)
        source = Source(2)
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        source.go.set()
        await until(lambda: not len(cache._core.flights))


async def test_loader_hard_timeout_lets_quick_loads_be(make_cache: MakeCache) -> None:
    """In a thread or task of its own the loader sees the caller's context; what it raises is the caller's."""
    async with make_cache(loader_hard_timeout=LONG) as cache:
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        load = Counting()
        load.broken = True
        with pytest.raises(LookupError):
            await cache.get_or_set("other", cache.loader(load))
        inner = cache.loader(lambda: 2)

        async def outer() -> object:
            return await cache.get_or_set("inner", inner)

        assert await cache.get_or_set("outer", cache.loader(outer)) == 2
        assert await cache.get("inner") == 2


# ----------------------------------------------------------------------------------------------- while Redis is away


class Busiest:
    """A loader that knows how many of it have been under way at once."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0
        self.go = asyncio.Event()
        self._lock = threading.Lock()

    async def load(self) -> int:
        """Wait until let go."""
        with self._lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        await self.go.wait()
        with self._lock:
            self.now -= 1
        return self.calls


AWAY: dict[str, Any] = {"max_staleness": 0.6, "redis_timeout": 0.1, "redis_connect_timeout": 0.1, "lease": LONG}


async def away(cache: Twin, proxy: FaultProxy) -> None:
    """Redis goes away, and the cache knows it."""
    proxy.cut()
    await until(lambda: not cache.healthy)


async def test_max_concurrent_loads_bounds_loads_while_redis_is_away(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """The others wait for their turn; a loader that asks for another key does not wait for itself."""
    async with make_cache(proxy.url, max_concurrent_loads=2, **AWAY) as cache:
        await away(cache, proxy)
        busiest = Busiest()
        readers = [
            asyncio.create_task(cache.get_or_set(f"k{number}", cache.loader(busiest.load))) for number in range(8)
        ]
        await until(lambda: busiest.now >= 2)
        busiest.go.set()
        await asyncio.gather(*readers)
        assert busiest.calls == 8
        assert busiest.most == 2
        inner = cache.loader(5)

        async def outer() -> object:
            return await cache.get_or_set("inner", inner)

        outers = [cache.get_or_set(f"outer{number}", cache.loader(outer)) for number in range(4)]
        assert await asyncio.gather(*outers) == [5] * 4


async def test_max_concurrent_loads_holds_after_an_empty_restart(
    make_cache: MakeCache, fresh_server: EmbeddedServer
) -> None:
    """Redis has lost everything: each process loads at most so many keys at a time."""
    async with make_cache(fresh_server.url, max_concurrent_loads=2, **AWAY) as cache:
        await cache.set("k", 1)
        fresh_server.kill()
        await until(lambda: not cache.healthy)
        fresh_server.start()
        await until(lambda: cache.healthy)
        busiest = Busiest()
        readers = [
            asyncio.create_task(cache.get_or_set(f"k{number}", cache.loader(busiest.load))) for number in range(6)
        ]
        await until(lambda: busiest.now >= 2)
        busiest.go.set()
        await asyncio.gather(*readers)
        assert busiest.most == 2


async def test_max_concurrent_loads_is_told_when_no_turn_comes(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Who finds no slot within wait_timeout gets the stale value, or LoaderTimeout."""
    options: dict[str, Any] = {"max_concurrent_loads": 1, "wait_timeout": 0.05, "stale_if_error": LONG, **AWAY}
    async with make_cache(proxy.url, **options) as cache:
        await cache.set("old", 1)
        await away(cache, proxy)
        busiest = Busiest()
        first = asyncio.create_task(cache.get_or_set("k", cache.loader(busiest.load)))
        await until(lambda: busiest.now)
        with pytest.raises(LoaderTimeout, match="max_concurrent_loads=1"):
            await cache.get_or_set("new", cache.loader(2))
        assert await cache.get_or_set("old", cache.loader(2)) == 1
        busiest.go.set()
        assert await first == 1


async def test_outage_ttl_keeps_a_loaded_value_for_a_while(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """While Redis is away, a value that was loaded serves for so long, then is loaded again; a delete ends it."""
    async with make_cache(proxy.url, outage_ttl=0.3, **AWAY) as cache:
        await away(cache, proxy)
        load = Counting()
        begun = time.monotonic()
        values = [await cache.get_or_set("k", cache.loader(load)) for _ in range(3)]
        if time.monotonic() - begun < 0.3:
            assert values == [1, 1, 1]
            assert await cache.get("k") == 1

        async def again() -> bool:
            return bool(await cache.get_or_set("k", cache.loader(load)) != 1)

        await until(again)
        assert await cache.delete("k") is False
        calls = load.calls
        await cache.get_or_set("k", cache.loader(load))
        assert load.calls == calls + 1


async def test_outage_ttl_ends_when_redis_is_back(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """What others have written meanwhile is read at once."""
    options: dict[str, Any] = {**AWAY, "max_staleness": 60.0, "reconnect_max": 0.05}
    async with make_cache(proxy.url, **options) as cache, make_cache() as other:
        proxy.cut()
        await until(lambda: not cache._core.tier.synced)
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        assert await cache.get("k") == 1
        await other.set("k", 2)
        proxy.heal()
        await until(lambda: cache._core.tier.synced)
        assert await cache.get("k") == 2


async def test_outage_ttl_is_for_loads_that_redis_did_not_answer(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Commands fail and the bus is whole: the value is kept for a while, and a message of its key ends it."""
    options: dict[str, Any] = {**AWAY, "max_staleness": 60.0, "breaker_reset": LONG}
    async with make_cache(proxy.url, **options) as cache, make_cache() as other:
        proxy.hold("replies", commands)
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        assert await cache.get("k") == 1
        await other.set("k", 2)
        await until(lambda: cache._core.tier.last_resort("k", away=True) is None)
        assert await cache.get_or_set("k", cache.loader(3)) == 3
        proxy.release()


# ----------------------------------------------------------------------------------------------- limits under pressure


async def test_stale_backoff_holds_after_a_hard_timeout(make_cache: MakeCache) -> None:
    """A loader that hung is left alone as one that raised: the next readers do not wait for it again."""
    async with make_cache(loader_hard_timeout=0.05, stale_if_error=LONG, stale_backoff=LONG) as cache:
        assert await cache.get_or_set("k", cache.loader(1), ttl=TTL) == 1
        await expired(cache)
        source = Source(2)
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        for _ in range(3):
            assert await cache.get_or_set("k", cache.loader(source.load), loader_hard_timeout=LONG) == 1
        assert source.calls == 1
        source.go.set()
        await until(lambda: not len(cache._core.flights))


async def test_loader_soft_timeout_alone_raises_nothing(make_cache: MakeCache) -> None:
    """More readers than threads, and nothing stale to serve: each gets its value, however long it takes."""
    async with make_cache(max_concurrent_loads=1, loader_soft_timeout=0.01, stale_if_error=LONG) as cache:
        source = Source(1)
        readers = [asyncio.create_task(cache.get_or_set(f"k{n}", cache.loader(source.load))) for n in range(3)]
        await until(lambda: source.calls == 3)
        source.go.set()
        assert await asyncio.gather(*readers) == [1, 1, 1]


async def test_loader_hard_timeout_counts_from_one_beginning(make_cache: MakeCache) -> None:
    """What a reader waited for a thread is part of it; after the soft timeout the thread is waited for all the same."""
    options: dict[str, Any] = {"max_concurrent_loads": 1, "stale_if_error": LONG}
    async with make_cache(**options, loader_hard_timeout=LONG) as cache:
        source = Source(1)
        first = asyncio.create_task(cache.get_or_set("first", cache.loader(source.load)))
        await until(lambda: source.calls)
        limits: dict[str, Any] = {"loader_soft_timeout": 0.01, "loader_hard_timeout": 5}
        second = asyncio.create_task(cache.get_or_set("second", cache.loader(2), **limits))
        done, _ = await asyncio.wait([second], timeout=0.1)
        source.go.set()
        assert await first == 1
        assert await second == 2
        assert bool(done) is (cache.mode == "aio")


async def test_a_load_that_was_left_behind_ends_at_the_hard_timeout(server: EmbeddedServer, namespace: str) -> None:
    """Its reader has gone with the stale value, or was cancelled: a task that hangs is not kept for ever."""
    options: dict[str, Any] = {"loader_soft_timeout": 0.02, "loader_hard_timeout": 0.1, "stale_if_error": LONG}
    async with AsyncNearCache.from_url(server.url, namespace=namespace, **options) as cache:
        await cache.set("k", 1, ttl=TTL)
        await until(lambda: cache.peek("k") is None)
        source = Source(2)
        assert await cache.get_or_set("k", source.load) == 1
        await until(lambda: not len(cache._core.flights))
        reading = asyncio.create_task(cache.get_or_set("other", source.load))
        await until(lambda: source.calls == 2)
        reading.cancel()
        await until(lambda: not len(cache._core.flights))


async def test_time_limits_hold_while_another_instance_loads(make_cache: MakeCache) -> None:
    """Its load hangs: who waits for it has the same patience as for one of its own."""
    async with make_cache() as one, make_cache(stale_if_error=LONG, wait_timeout=LONG) as other:
        await other.set("k", 1, ttl=TTL)
        await expired(other)
        source = Source(2)
        first = asyncio.create_task(one.refresh("k", one.loader(source.load), lease=LONG))
        await until(lambda: source.calls)
        assert await other.get_or_set("k", other.loader(3), loader_soft_timeout=0.05) == 1
        with pytest.raises(LoaderTimeout, match=r"loader_hard_timeout=0\.05"):
            await other.get_or_set("k", other.loader(3), loader_hard_timeout=0.05, stale_if_error=0)
        source.go.set()
        assert await first == 2


@pytest.mark.parametrize("copy", ["auto", "serialized"])
async def test_each_follower_has_a_value_of_its_own(make_cache: MakeCache, copy: str) -> None:
    """What one reader of a shared load does to its value, the others do not see."""
    async with make_cache(copy=copy) as cache:
        source = Source([1])
        readers = [asyncio.create_task(cache.get_or_set("k", cache.loader(source.load))) for _ in range(3)]
        await until(lambda: source.calls)
        await asyncio.sleep(0.05)  # let them follow; those that come later have a hit
        source.go.set()
        values = await asyncio.gather(*readers)
        assert values == [[1]] * 3
        assert len({id(value) for value in values}) == 3


async def test_followers_take_a_stale_value_by_their_own_windows(make_cache: MakeCache) -> None:
    """A leader serves what is stale after its load failed; who gave no stale_if_error is told of the failure."""
    async with make_cache() as cache:
        await cache.get_or_set("k", cache.loader(1), ttl=TTL, stale_if_error=LONG)
        await expired(cache)
        source = Source(LookupError("the database is away"))
        leader = asyncio.create_task(cache.get_or_set("k", cache.loader(source.load), stale_if_error=LONG))
        await until(lambda: source.calls)
        follower = asyncio.create_task(cache.get_or_set("k", cache.loader(source.load), stale_while_revalidate=0.002))
        await asyncio.sleep(0.05)
        source.go.set()
        assert await leader == 1
        with pytest.raises(LookupError):
            await follower


async def test_a_reader_who_joins_a_refresh_that_gives_up_sees_for_himself(
    make_cache: MakeCache, proxy: FaultProxy
) -> None:
    """Redis does not answer, so a refresh behind is not worth it; who wants a value and has joined it loads."""
    options: dict[str, Any] = {**AWAY, "redis_timeout": 1, "max_staleness": 60.0, "stale_while_revalidate": LONG}
    async with make_cache(proxy.url, **options) as cache:
        await cache.set("k", 1, ttl=TTL)
        await expired(cache)
        proxy.hold("replies", commands)
        assert await cache.get_or_set("k", cache.loader(2)) == 1
        await until(lambda: len(cache._core.flights))
        assert await cache.get_or_set("k", cache.loader(3), stale_while_revalidate=0) == 3
        proxy.release()


async def test_a_refresh_of_a_held_key_is_not_worth_it(make_cache: MakeCache) -> None:
    """While `hold` refuses fills, a load would be kept by nobody, and cost the value that is there."""
    async with make_cache(ttl=LONG, early_refresh=1e-9) as cache:
        await cache.delete("k", hold=LONG)
        await cache.set("k", 1)
        assert await cache.get_or_set("k", cache.loader(2)) == 1
        await until(lambda: not cache._core.loads.refreshing)
        assert cache.stats().loads == 0
        assert cache.peek("k") == 1


async def test_stale_while_revalidate_knows_l1_ttl(make_cache: MakeCache) -> None:
    """What has ended under the cap of L1 alone is fresh in Redis, and read there."""
    async with make_cache(ttl=LONG, l1_ttl=TTL, stale_while_revalidate=LONG) as cache:
        await cache.set("k", 1)
        await expired(cache)
        assert await cache.get_or_set("k", cache.loader(2)) == 1
        assert cache.stats().stale_served == 0
        assert cache.stats().l2_hits == 1


async def test_stale_while_revalidate_needs_a_proof(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Redis is away, and L1 is trusted no more: the loader comes before the stale value."""
    async with make_cache(proxy.url, stale_while_revalidate=LONG, **AWAY) as cache:
        await cache.set("k", 1, ttl=TTL)
        await expired(cache)
        proxy.cut()
        await until(lambda: time.monotonic() > cache._core.tier.proof.until)
        assert await cache.get_or_set("k", cache.loader(2)) == 2
        assert cache.stats().stale_served == 0


async def test_refresh_gives_nothing_stale(make_cache: MakeCache) -> None:
    """The new value was asked for: when it can't be had, its reader is told, whatever else might serve."""
    async with make_cache(stale_if_error=LONG) as cache:
        await cache.set("k", 1)
        load = Counting()
        load.broken = True
        with pytest.raises(LookupError):
            await cache.refresh("k", cache.loader(load))
        assert cache.peek("k") == 1
