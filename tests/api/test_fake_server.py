"""nearcache.testing's fake server: each of its faults does to a cache of either class what the real one would."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any

import pytest

from nearcache import (
    AsyncNearCache,
    BreakerOpened,
    CacheClosed,
    ConfigError,
    Disconnected,
    Drained,
    Flushed,
    Journalled,
    NearCache,
)
from nearcache.testing import FakeServer, ManualClock
from tests.support.twins import MakeCache, SyncTwin, Twin
from tests.support.waiting import Heard, until

SOON = 0.05
"""redis_timeout where it is waited for."""


async def test_caches_share_values_and_hear_of_changes(make_fake: MakeCache, fake: FakeServer) -> None:
    """What one writes the other reads; a change, a tag and a clear leave its L1."""
    async with make_fake() as here, make_fake() as there:
        for end in (
            lambda: here.set("a", 2),
            lambda: here.delete("a"),
            lambda: here.mark_stale("a"),
            lambda: here.invalidate_tags("t"),
            here.clear,
        ):
            assert await here.set("a", 1, tags=["t"])
            assert await there.get("a") == 1
            assert there.peek("a") == 1
            assert await end()
            await fake.async_settle()
            assert there.peek("a") is None
        assert there.healthy
        assert there.url == "fake://"


async def test_both_classes_share_one_server(fake: FakeServer, runner: asyncio.Runner) -> None:
    """A NearCache hears of an AsyncNearCache's writes, and the other way round."""
    async with SyncTwin(fake.cache(), runner.get_loop()) as one, Twin(fake.async_cache()) as other:
        for here, there in ((one, other), (other, one)):
            await here.set("a", here.mode)
            assert await there.get("a") == here.mode
            await here.delete("a")
            await fake.async_settle()
            assert there.peek("a") is None


async def test_namespaces_are_apart(make_fake: MakeCache) -> None:
    """As on a real server."""
    async with make_fake(namespace="one") as one, make_fake(namespace="two") as two:
        await one.set("a", 1)
        assert await two.get("a") is None
        await two.clear()
        assert await one.get("a") == 1


async def test_one_load_for_all_caches(make_fake: MakeCache) -> None:
    """While one loads under its lease, the other waits for the fill."""
    loads = 0
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> int:
        nonlocal loads
        loads += 1
        begun.set()
        await go_on.wait()
        return 7

    async with make_fake() as here, make_fake() as there:
        first = asyncio.create_task(here.get_or_set("a", here.loader(load)))
        await begun.wait()
        second = asyncio.create_task(there.get_or_set("a", there.loader(load)))
        await until(lambda: len(there.cache._core.waiters))
        go_on.set()
        assert (await first, await second, loads) == (7, 7, 1)


# -------------------------------------------------------------------------------------------------------------- faults


async def test_away_is_refused_at_once_and_journalled(make_fake: MakeCache, fake: FakeServer) -> None:
    """Writes say False and nothing waits; what was journalled is a miss for all when it is back."""
    async with make_fake(redis_timeout=30) as here, make_fake() as there:
        heard = Heard(here)
        await here.set("a", 1)
        with fake.away():
            await until(lambda: heard.of(Disconnected))
            assert await here.set("a", 2) is False
            assert await here.get("a") is None
            assert await here.get_or_set("b", here.loader(3)) == 3
        assert len(heard.of(Journalled)) == 1
        await fake.async_settle()
        assert len(heard.of(Drained)) == 1
        assert await there.get("a") is None
        assert await here.set("a", 4)
        assert await there.get("a") == 4


async def test_away_may_be_for_one_cache(make_fake: MakeCache, fake: FakeServer) -> None:
    """A partition: the other goes on."""
    async with make_fake() as here, make_fake() as there:
        with fake.away(of=here.cache):
            assert await here.set("a", 1) is False
            assert await there.set("a", 2)


async def test_a_fault_may_be_for_some_operations(make_fake: MakeCache, fake: FakeServer) -> None:
    """Sets fail, reads do not; the bus is left alone."""
    async with make_fake() as cache:
        with fake.away(only={"set"}):
            assert await cache.set("a", 1) is False
            assert await cache.delete("b")
            assert cache.healthy
        assert await cache.set("a", 1)
    with pytest.raises(ValueError, match=r"only=\['sets'\]: must be some of abort, clear"):
        fake.away(only=["sets"])
    with pytest.raises(ValueError, match="only='set': must be some of"):
        fake.away(only="set")


async def test_hung_waits_for_the_timeout_and_executes_late(make_fake: MakeCache, fake: FakeServer) -> None:
    """The first operation waits, the next ones do not; the end executes what was taken."""
    async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
        await here.set("a", 1)
        heard = Heard(here)
        with fake.hung():
            began = time.monotonic()
            assert await here.set("a", 2) is False
            assert time.monotonic() - began >= SOON
            assert len(heard.of(BreakerOpened)) == 1
            assert await here.get("a") is None
        assert await there.get("a") == 2


async def test_a_set_that_a_hung_server_executes_after_its_deadline_is_a_delete(
    make_fake: MakeCache, fake: FakeServer
) -> None:
    """Else it would come over what was set meanwhile; a miss is the price."""
    with ManualClock() as clock:
        async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
            with fake.hung(of=here.cache):
                assert await here.set("a", 1) is False
                clock.advance(3)
                assert await there.set("a", 2)
            await fake.async_settle()
            assert await there.get("a") is None


async def test_what_a_hung_server_takes_is_answered_when_it_goes_on_in_time(
    make_fake: MakeCache, fake: FakeServer
) -> None:
    """The operation was only slow."""
    async with make_fake(redis_timeout=30) as cache:
        with fake.hung(only={"set"}) as fault:
            task = asyncio.create_task(cache.set("a", 1))
            await until(lambda: fault.late)
        assert await task
        assert cache.peek("a") == 1


async def test_nobody_connects_to_a_hung_server(make_fake: MakeCache, fake: FakeServer) -> None:
    """A cache that starts then does without; it connects when the server goes on."""
    with fake.hung():
        cache = make_fake(redis_timeout=SOON)
        assert await cache.get_or_set("a", cache.loader(1)) == 1
        assert not cache.healthy
    await fake.async_settle()
    assert cache.healthy


async def test_lost_replies_are_an_unknown_outcome(make_fake: MakeCache, fake: FakeServer) -> None:
    """The write says False, though it was done; the key is a miss here, and deleted in the end."""
    with ManualClock() as clock:
        async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
            with fake.lost_replies(only={"set"}):
                assert await here.set("a", 1) is False
            assert await here.get("a") is None
            assert await there.get("a") == 1
            clock.advance(3)
            await fake.async_settle()
            assert await there.get("a") is None
            assert await here.set("a", 2)


async def test_slow_answers_are_waited_for(make_fake: MakeCache, fake: FakeServer) -> None:
    """Up to redis_timeout; beyond it they are lost."""
    async with make_fake(redis_timeout=4 * SOON) as cache:
        with fake.slow(SOON):
            began = time.monotonic()
            assert await cache.set("a", 1)
            assert time.monotonic() - began >= SOON
        with fake.slow(60):
            assert await cache.set("a", 1) is False


async def test_bus_cut_leaves_l1_to_its_proof(make_fake: MakeCache, fake: FakeServer) -> None:
    """Commands work; L1 serves what it has until max_staleness, and then L2 answers."""
    with ManualClock() as clock:
        async with make_fake(max_staleness=2) as here, make_fake() as there:
            await here.set("a", 1)
            heard = Heard(here)
            with fake.bus_cut(of=here.cache):
                assert await there.set("a", 2)
                assert here.peek("a") == 1
                clock.advance(2)
                assert here.peek("a") is None
                assert await here.get("a") == 2
                await until(lambda: heard.of(Disconnected))
                assert not here.healthy
            await fake.async_settle()
            assert len(heard.of(Flushed)) == 1
            assert here.healthy


async def test_bus_held_brings_everything_at_the_end(make_fake: MakeCache, fake: FakeServer) -> None:
    """A change comes late, and nothing is flushed for it."""
    with ManualClock():
        async with make_fake() as here, make_fake() as there:
            await here.set_many({"a": 1, "b": 1})
            heard = Heard(here)
            with fake.bus_held(of=here.cache):
                assert await there.set("a", 2)
                assert here.peek("a") == 1
            await fake.async_settle()
            assert (here.peek("a"), here.peek("b")) == (None, 1)
            assert heard.all == []


async def test_nobody_subscribes_to_a_bus_that_is_held(make_fake: MakeCache, fake: FakeServer) -> None:
    """L2 serves, L1 does not."""
    with fake.bus_held():
        cache = make_fake(redis_timeout=SOON)
        assert await cache.set("a", 1)
        assert await cache.get("a") == 1
        assert cache.peek("a") is None
    await fake.async_settle()
    assert cache.healthy


async def test_restart_empty_forgets_everything(make_fake: MakeCache, fake: FakeServer) -> None:
    """Another server in its place: values are gone, and L1 is flushed."""
    async with make_fake() as cache:
        await cache.set("a", 1)
        heard = Heard(cache)
        fake.restart_empty()
        await fake.async_settle()
        assert len(heard.of(Flushed)) == 1
        assert await cache.get("a") is None
        assert await cache.set("a", 2)
        assert await cache.get("a") == 2


async def test_a_fault_is_started_and_stopped(make_fake: MakeCache, fake: FakeServer) -> None:
    """Without a `with`, and again; stopped twice is no harm, started twice is a mistake."""
    fault = fake.away(only={"set"})
    async with make_fake() as cache:
        for _ in range(2):
            fault.start()
            assert await cache.set("a", 1) is False
            fault.stop()
            fault.stop()
            assert await cache.set("a", 1)
        fault.start()
        with pytest.raises(RuntimeError, match=r"Fault\(kind=.* has been started already"):
            fault.start()


async def test_a_cancelled_set_is_journalled(fake: FakeServer) -> None:
    """It waits for its answer in the task, as on a real server."""
    async with fake.async_cache(redis_timeout=30) as cache:
        with fake.lost_replies(only={"set"}):
            task = asyncio.create_task(cache.set("a", 1))
            await until(lambda: fake._network.server("nearcache").values)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await cache.get("a") is None
        assert cache.stats().journalled == 1


async def test_settling_gives_up(make_fake: MakeCache, fake: FakeServer) -> None:
    """A cache that never comes back is told of."""
    async with make_fake() as cache:
        cache.cache._core.new_bus = functools.partial(_never, cache.cache._core.new_bus)
        fake.restart_empty()
        with pytest.raises(TimeoutError, match="is not connected"):
            await fake.async_settle(0.05)
        with pytest.raises(TimeoutError, match="is not connected"):
            await asyncio.to_thread(fake.settle, 0.05)


def _never(new_bus: Any) -> Any:
    bus = new_bus()
    bus.closed = True
    return bus


# -------------------------------------------------------------------------------------- caches of the application's own

shop = NearCache.from_url("redis://cache.invalid:6379/0", ttl=60)


@shop.cached(ttl=30)
def price(item: int) -> list[int]:
    """A function of an application."""
    return [item]


def test_a_server_behind_a_cache_that_is_there_already(fake: FakeServer) -> None:
    """Its functions are cached there, its listeners stay; afterwards it is where it was, and unused."""
    for _ in range(2):
        heard = Heard(shop)
        with FakeServer().behind(shop) as server, server.cache() as other:
            assert shop.url == "fake://"
            assert price(7) is price(7)
            assert other.get(price.key(7)) == [7]
            assert heard.all
            server.settle()
        assert shop.url == "redis://cache.invalid:6379/0"
        assert shop.stats().l1_entries == 0
        assert not buses()
    with pytest.raises(ValueError, match="is not on a fake server"):
        fake.away(of=shop)


def buses() -> list[threading.Thread]:
    """The threads that listen."""
    return [thread for thread in threading.enumerate() if thread.name == "nearcache-bus"]


def test_a_server_behind_a_cache_in_use(fake: FakeServer) -> None:
    """What listens is stopped, and afterwards the cache works again where it was."""
    with fake.cache() as cache:
        assert cache.set("a", 1)
        with FakeServer().behind(cache):
            assert cache.get("a") is None
            assert len(buses()) == 1
        assert cache.get("a") == 1
        assert cache.set("a", 2)
        assert len(buses()) == 1


async def test_a_server_behind_an_async_cache_in_use(fake: FakeServer) -> None:
    """The same."""
    async with fake.async_cache() as cache:
        assert await cache.set("a", 1)
        async with FakeServer().behind(cache):
            assert await cache.get("a") is None
            assert len(asyncio.all_tasks()) == 2
        assert await cache.get("a") == 1
        assert await cache.set("a", 2)
        assert len(asyncio.all_tasks()) == 2


def test_a_server_behind_an_async_cache() -> None:
    """The same with `async with`, on one loop after the other."""
    cache = AsyncNearCache.from_url("redis://cache.invalid:6379/0")

    async def use() -> None:
        async with FakeServer().behind(cache) as server:
            assert await cache.set("a", 1)
            with server.away():
                assert await cache.set("a", 2) is False
        assert cache.url == "redis://cache.invalid:6379/0"

    asyncio.run(use())
    asyncio.run(use())


def test_a_server_behind_a_closed_cache_or_one_with_a_server(fake: FakeServer) -> None:
    """Neither could be put back."""
    cache = NearCache.from_url("memory://")
    cache.close()
    with pytest.raises(CacheClosed):
        fake.behind(cache)
    with NearCache.from_url("embedded://") as cache, pytest.raises(ConfigError, match="has a server of its own"):
        fake.behind(cache)
