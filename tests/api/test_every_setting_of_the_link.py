"""No dead options: a test for each setting that governs the link to Redis; see test_every_setting.py."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nearcache import BreakerOpened, Connected, Flushed, NearCache
from nearcache.testing import FaultProxy, black_hole, commands
from nearcache.transport.embedded import EmbeddedServer, free_port
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, redis_of, timed, until

pytestmark = pytest.mark.one_server
"""What a setting does is the same on each kind of server."""


@pytest.mark.parametrize("seconds", [0.3, 30.0])
async def test_max_staleness_is_how_long_l1_serves_without_a_proof(
    make_cache: MakeCache, proxy: FaultProxy, seconds: float
) -> None:
    """With the bus gone, L1 serves for so long, and not longer."""
    async with make_cache(proxy.url, max_staleness=seconds) as cache:
        await cache.set("a", 1)
        proxy.cut()
        await until(lambda: not cache._core.breaker.bus)
        if seconds > 1:
            await asyncio.sleep(0.5)
            assert cache.peek("a") == 1
        else:
            await until(lambda: cache.peek("a") is None, within=1)


async def test_redis_timeout_is_how_long_an_operation_waits(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """A read that Redis does not answer ends then."""
    async with make_cache(proxy.url, redis_timeout=0.05) as quick, make_cache(proxy.url, redis_timeout=0.6) as slow:
        proxy.hold("replies", only=commands)
        assert await timed(quick.get("a")) < 0.3
        assert await timed(slow.get("a")) > 0.5


async def test_redis_connect_timeout_is_how_long_connecting_waits(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that swallows every packet ends then."""
    with black_hole() as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", redis_connect_timeout=0.123)
        endpoint = cache._core.new_bus()._endpoint
        assert endpoint.connection().socket_connect_timeout == 0.123
        assert await timed(cache.get("a")) < 2
        # `with` waits for the first attempt as long as that may take, and two operations.
        entered = make_cache(f"redis://127.0.0.1:{port}/0", redis_connect_timeout=0.3, redis_timeout=0.1)
        assert await timed(entered.__aenter__()) < 0.3 + 2 * 0.1 + 0.5


def test_max_connections_bounds_the_pool(server: EmbeddedServer, namespace: str) -> None:
    """However many threads read, the server sees no more connections at a time; nobody fails for it."""
    name = f"pool-{namespace}"
    with NearCache.from_url(f"{server.url}?client_name={name}", namespace=namespace, max_connections=2) as cache:
        seen = []
        start = threading.Barrier(16)

        def read(number: int) -> None:
            start.wait()
            for step in range(50):
                assert cache.get(f"{number}:{step}") is None

        with redis_of(server.url) as client, ThreadPoolExecutor(16) as pool:
            readers = [pool.submit(read, number) for number in range(16)]
            while not all(reader.done() for reader in readers):
                seen.append(sum(one["name"] == name for one in client.client_list()))
            for reader in readers:
                reader.result()
        assert max(seen, default=0) <= 2 + 1  # and the bus
        assert cache.stats().l2_errors == 0


@pytest.mark.parametrize("retries", [0, 3])
async def test_retries_is_how_often_a_read_is_repeated(make_cache: MakeCache, proxy: FaultProxy, retries: int) -> None:
    """A read whose connection was just closed is repeated over a new one; with 0 it is a miss."""
    async with make_cache() as writer, make_cache(proxy.url, retries=retries, redis_timeout=0.5) as cache:
        await writer.set("a", 1)
        await cache.get("b")
        before = cache.stats()
        proxy.hold("replies", only=commands)
        reading = asyncio.create_task(cache.get("a"))
        await until(lambda: any(b":v:a" in one.head for one in proxy._connections))
        proxy.cut_connections(commands)
        proxy.heal()
        assert await reading == (1 if retries else None)
        assert cache.stats().l2_errors - before.l2_errors == (0 if retries else 1)


@pytest.mark.parametrize("failures", [1, 4])
async def test_breaker_failures_is_how_many_in_a_row_open_it(make_cache: MakeCache, failures: int) -> None:
    """Not fewer and not more."""
    cache = make_cache(f"redis://127.0.0.1:{free_port()}/0", breaker_failures=failures, retries=0)
    heard = Heard(cache)
    for number in range(failures):
        assert not heard.of(BreakerOpened)
        await cache.get(f"key:{number}")
    assert len(heard.of(BreakerOpened)) == 1


@pytest.mark.parametrize("reset", [0.1, 60.0])
async def test_breaker_reset_is_how_long_redis_is_left_alone(
    make_cache: MakeCache, proxy: FaultProxy, reset: float
) -> None:
    """Then, with the bus up, one operation tries."""
    async with make_cache(proxy.url, breaker_reset=reset, redis_timeout=0.1, max_staleness=20) as cache:
        proxy.hold("replies", only=commands)
        assert await cache.get("a") is None
        proxy.heal()

        async def answered() -> bool:
            return bool(await cache.set("a", 1))

        if reset > 1:
            with pytest.raises(AssertionError):
                await until(answered, within=0.5)
        else:
            await until(answered, within=0.9)  # the default is a second


@pytest.mark.parametrize("longest", [0.05, 60.0])
async def test_reconnect_max_bounds_the_pauses_of_the_bus(
    make_cache: MakeCache, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses between attempts double up to it."""
    monkeypatch.setattr("nearcache.engine.subscriber.random.uniform", lambda _low, high: high)
    cache = make_cache(f"redis://127.0.0.1:{free_port()}/0", reconnect_max=longest)
    attempts: list[float] = []
    new_bus = cache._core.new_bus

    def count() -> Any:
        attempts.append(time.monotonic())
        return new_bus()

    cache._core.new_bus = count
    await cache.get("a")
    if longest < 1:
        await until(lambda: len(attempts) >= 12, within=3)  # doubling alone: 0.02 s * 2**11
    else:
        await until(lambda: len(attempts) >= 4)
        assert attempts[3] - attempts[2] > 0.1


@pytest.mark.parametrize("choice", ["prove", "flush"])
async def test_on_reconnect_flush_drops_l1_in_any_case(make_cache: MakeCache, proxy: FaultProxy, choice: str) -> None:
    """prove: nothing was written meanwhile, so L1 stays; flush: it goes."""
    async with make_cache(proxy.url, on_reconnect=choice, max_staleness=20) as cache:
        await cache.set("a", 1)
        await until(lambda: cache.stats().invalidations_received == 1)
        heard = Heard(cache)
        proxy.cut_connections()
        await until(lambda: heard.of(Connected))
        assert cache.peek("a") == (1 if choice == "prove" else None)
        assert len(heard.of(Flushed)) == (0 if choice == "prove" else 1)
