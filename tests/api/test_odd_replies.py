"""A server whose replies are well-formed, but not what was asked for: no error but the library's own gets out."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from nearcache import RemoteUnavailable
from nearcache.transport.embedded import EmbeddedServer
from tests.support.odd_replies import OddServer, attack
from tests.support.twins import MakeCache


@pytest.mark.parametrize("seed", range(3))
def test_every_operation_fails_as_the_port_says(seed: int) -> None:
    """RemoteFailed, or an answer of the right types."""
    _, failed, answered = attack(seed, 400)
    assert failed > 100
    assert answered > 20


@pytest.mark.one_server  # what replies come is not of its making
@pytest.mark.parametrize("seed", range(4))
async def test_a_cache_lives_through_it(make_cache: MakeCache, server: EmbeddedServer, seed: int) -> None:
    """Reads miss, writes are not acknowledged, loads load; close ends; the next connection is right again."""
    with OddServer(server.port, seed, 0.3) as odd:
        cache = make_cache(odd.url, breaker_reset=0.001, reconnect_max=0.01, redis_timeout=0.1)
        for number in range(25):
            key = f"k{number % 5}"
            assert await cache.get(key) in (None, "loaded", number - 5, number - 10)
            assert await cache.set(key, number) in (True, False)
            assert await cache.get_or_set(f"l{number}", cache.loader("loaded"), tags=["t"]) == "loaded"
            assert isinstance(await cache.get_many(["a", key]), dict)
            for outcome in (cache.delete("a"), cache.mark_stale("b"), cache.invalidate_tags("t"), cache.clear()):
                assert await outcome in (True, False)
            for outcome in (cache.add(f"a{number}", 1), cache.touch(key, 60), cache.delete_existing("a")):
                assert await outcome in (True, False)
            with suppress(RemoteUnavailable):
                assert type(await cache.incr("n")) is int
        assert odd.odd > 3
        began = time.monotonic()
        await cache.__aexit__(None, None, None)
        assert time.monotonic() - began < 5


async def test_afterwards_all_is_well(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """The connection with the odd reply is ended, so no later command gets the reply of another one."""
    with OddServer(server.port, 1, 1.0) as odd:
        cache = make_cache(odd.url, breaker_reset=0.001, reconnect_max=0.01, redis_timeout=0.1)
        for _ in range(5):
            assert await cache.get("k") is None
            await cache.set("k", 1)
        odd.share = 0.0
        assert await cache.wait_healthy(10)
        for number in range(20):
            assert await cache.set("k", number)
            assert await cache.get("k") == number
