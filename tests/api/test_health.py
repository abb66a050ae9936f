"""health(): what a cache knows of itself, in good times and bad; plain on both classes, and without a secret."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nearcache import Health
from nearcache.testing import FakeServer, FaultProxy, commands
from nearcache.transport.embedded import EmbeddedServer, free_port
from tests.support import servers
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, shut, until

FAST: dict[str, Any] = {"max_staleness": 0.4, "redis_timeout": 0.1, "reconnect_max": 0.05, "breaker_reset": 0.1}


async def test_all_is_well(make_cache: MakeCache) -> None:
    """Before the first use nothing is known against it; then both tiers work, and heartbeats say how far Redis is."""
    cache = make_cache(**FAST)
    before = cache.health()
    assert before == Health(status="ok", round_trip=None, bus="idle", proof_age=None, breaker="closed", journal=0)
    async with cache:
        now = cache.health()
        assert (now.status, now.bus, now.breaker, now.journal, now.refused) == ("ok", "proven", "closed", 0, ())
        assert 0 < now.round_trip < 5
        assert 0 <= now.proof_age < 5
        with pytest.raises(dataclasses.FrozenInstanceError):
            now.status = "down"
        await until(lambda: cache.health().round_trip != now.round_trip)
    await shut(cache)
    closed = cache.health()
    assert (closed.status, closed.bus, closed.reason) == ("down", "closed", "the cache is closed")


@pytest.mark.skipif(servers.FAKETIME is None, reason=servers.NO_FAKETIME)
async def test_redis_clock_is_set_back(make_cache: MakeCache) -> None:
    """health() shows it with the next heartbeat, and a write that fails from then on is replayed in time."""
    with servers.with_clock("valkey") as (server, clock), FaultProxy(server.port) as proxy:
        async with make_cache(proxy.url, **FAST) as cache:
            assert await cache.set("a", 0)  # on a connection that is used on
            assert abs(cache.health().clock_offset) < 5
            clock.write_text("-3600")
            await until(lambda: cache.health().clock_offset < -3590)
            proxy.hold("replies", commands)
            assert await cache.set("a", 1) is False
            assert cache.health().journal == 1
            proxy.heal()
            await until(lambda: cache.health().journal == 0)
            assert cache.health().clock_offset < -3590


async def test_an_own_write_tells_how_long_messages_take(make_cache: MakeCache) -> None:
    """From the server to this process; a cache that only reads has no such time."""
    async with make_cache() as writer, make_cache() as reader:
        await writer.set("a", 1)
        await until(lambda: writer.health().propagation)
        assert 0 < writer.health().propagation < 2
        stats = writer.stats()
        assert 0 < stats.propagation_seconds <= 2 * stats.propagations
        assert await reader.get("a") == 1
        assert reader.health().propagation is None


async def test_a_cache_that_was_closed_before_its_first_use(make_cache: MakeCache) -> None:
    """It is closed, too."""
    cache = make_cache(**FAST)
    await shut(cache)
    assert (cache.health().status, cache.health().bus) == ("down", "closed")


async def test_redis_hangs_and_l1_serves(make_fake: MakeCache, fake: FakeServer) -> None:
    """While L1 is proven, and the breaker is open, the cache is degraded: down is where neither tier answers."""
    async with make_fake(max_staleness=60) as cache:
        await cache.set("a", 1)
        with fake.hung(only={"read"}):
            assert await cache.get("b") is None
            assert await cache.get("a") == 1
            health = cache.health()
        assert (cache.healthy, health.status, health.breaker, health.bus) == (True, "degraded", "open", "proven")
        assert health.reason == "no answer in time"


async def test_memory_needs_no_redis(make_cache: MakeCache) -> None:
    """`memory://` is always well."""
    async with make_cache("memory://") as cache:
        assert cache.health() == Health(
            status="ok", round_trip=None, bus="none", proof_age=None, breaker="closed", journal=0
        )


async def test_redis_is_away(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Lost, then down; writes wait in the journal; all well again afterwards."""
    async with make_cache(proxy.url, **FAST) as cache:
        proxy.cut()
        await until(lambda: cache.health().bus == "lost")
        for number in range(5):
            await cache.set(f"a:{number}", number)
        away = cache.health()
        assert (away.status, away.breaker, away.journal) == ("down", "open", 5)
        assert away.reason
        await until(lambda: cache.health().proof_age > FAST["max_staleness"])
        proxy.heal()
        await until(lambda: cache.health().status == "ok")
        assert (cache.health().journal, cache.health().reason) == (0, None)


async def test_a_server_that_never_was(make_cache: MakeCache) -> None:
    """Down, with nothing ever proven."""
    cache = make_cache(f"redis://127.0.0.1:{free_port()}/0", **FAST)
    for _ in range(3):
        await cache.get("a")
    await until(lambda: cache.health().bus == "lost")
    assert cache.health() == Health(
        status="down", round_trip=None, bus="lost", proof_age=None, breaker="open", journal=0
    )


async def test_writes_that_are_refused(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """A full server is degraded, and health says what it refuses; it is well when something was stored."""
    async with make_cache(fresh_server.url, **FAST) as cache:
        with redis_of(fresh_server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            assert await cache.set("a", 1) is False
            assert (cache.health().status, cache.health().refused) == ("degraded", ("set: OOM",))
            assert cache.health().reason == "its memory is full; the keys were deleted instead"
            client.config_set("maxmemory", 0)
        assert await cache.set("a", 1) is True
        assert cache.health().status == "ok"


async def test_a_bus_that_is_refused(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """Who may not subscribe has L2: degraded. Nothing shows the password."""
    password = "pa55-w0rd"
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{password}", "~*", "+@all")
    cache = make_cache(f"redis://app:{password}@127.0.0.1:{fresh_server.port}/0", **FAST)
    await cache.get("a")
    await until(lambda: cache.health().bus == "refused")
    assert cache.health().status == "degraded"
    assert "refused to subscribe" in cache.health().reason
    assert password not in repr(cache.health())
