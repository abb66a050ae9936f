"""Reads at the same time share requests to Redis: each has its own value, and a failure is one failure."""

from __future__ import annotations

import asyncio
from typing import Any

import redis

from nearcache import BreakerOpened
from nearcache.testing import FaultProxy
from nearcache.transport.batching import FEW
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, until

READERS = 40


def mgets(server: EmbeddedServer) -> int:
    """How often the server has executed MGET."""
    with redis.Redis(port=server.port) as client:
        stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_mget", {}).get("calls", 0))


async def test_reads_at_the_same_time_each_have_their_own_value(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """As tasks of one turn in one request beside the first's; keys are missing, are loaded, or asked for twice."""
    cache = make_cache(lease=5)
    values = {f"k{number}": number for number in range(READERS)}
    assert await cache.set_many(values)
    cache.clear_local()
    before = mgets(server)
    keys = [*values, *list(values)[:5], "missing"]
    assert await asyncio.gather(*map(cache.get, keys)) == [values.get(key) for key in keys]
    if cache.mode == "aio":
        assert mgets(server) <= before + 2, "the first one did not wait for the others"
        cache.clear_local()
        before = mgets(server)
        assert await asyncio.gather(*map(cache.get, keys)) == [values.get(key) for key in keys]
        assert mgets(server) == before + 1, "it did wait: there were others the last time"
    cache.clear_local()
    loads = [cache.get_or_set(key, cache.loader(-1)) for key in [*values, "new"]]
    assert await asyncio.gather(*loads) == [*values.values(), -1]
    assert cache.stats().loads == 1
    assert len(await cache.get_many(values)) == READERS


async def test_one_request_that_times_out_is_one_failure(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """All who asked with it miss within one timeout; nobody waits for a second one."""
    cache = make_cache(proxy.url, redis_timeout=0.3, max_staleness=20)
    assert await cache.wait_healthy()
    await cache.get("a connection")
    proxy.hold("replies")
    assert await asyncio.gather(*(cache.get(f"k{number}") for number in range(READERS))) == [None] * READERS
    assert 1 <= cache.stats().l2_errors <= (2 if cache.mode == "aio" else FEW + 2)
    assert cache.stats().misses == READERS + 1
    proxy.release()


async def test_a_failed_request_is_one_failure_for_the_breaker(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """However many asked with it: breaker_failures counts requests, of which threads make some, one after the other."""
    cache = make_cache(proxy.url, breaker_failures=4, max_staleness=20)
    assert await cache.wait_healthy()
    heard = Heard(cache)
    proxy.cut()
    for _ in range(2):
        assert await asyncio.gather(*(cache.get(f"k{number}") for number in range(READERS))) == [None] * READERS
    if cache.mode == "aio":
        assert cache.stats().l2_errors == 3, "the first read did not wait for the others, whose batch was the second"
        assert not heard.of(BreakerOpened)
    proxy.heal()
    await until(lambda: cache.healthy)
