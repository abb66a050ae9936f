"""A server that answers commands but lets no bus listen as L1 needs it: L2 serves, and the reason is told once."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis
import redis.asyncio

from nearcache import AsyncNearCache, CoherenceFailed, ConfigError, Connected, NearCache, Settings
from nearcache.testing import FaultProxy
from tests.support import servers
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, until

FAST: dict[str, Any] = {"reconnect_max": 0.02, "breaker_reset": 0.02}
WITHOUT_PUBSUB = {"rename-command": 'SUBSCRIBE ""'}
NEEDS_RESP3 = r"speaks RESP2, and L1 needs RESP3: .* none was missed.* remove protocol=2 from the URL.* accept HELLO 3"


async def l2_alone(cache: Twin) -> str:
    """Writes and reads go to Redis, and nothing is kept in L1; the reason, which is told once in many attempts."""
    heard = Heard(cache)
    assert await cache.set("a", 1) is True
    await until(lambda: heard.of(CoherenceFailed))
    assert await cache.get("a") == 1
    assert await cache.get_or_set("b", cache.loader("loaded")) == "loaded"
    assert await cache.get("b") == "loaded"
    assert await cache.delete("a") is True
    assert await cache.get("a") is None
    assert await cache.wait_healthy(0.2) is False
    assert cache.healthy is False
    health, stats = cache.health(), cache.stats()
    assert (health.status, health.bus, health.breaker, health.journal) == ("degraded", "refused", "closed", 0)
    assert (stats.l1_entries, stats.loads) == (0, 1)
    assert stats.l2_hits >= 2
    assert not heard.of(Connected)
    (failure,) = heard.of(CoherenceFailed)
    return failure.reason


@pytest.mark.parametrize("kind", servers.KINDS)
@pytest.mark.parametrize(
    ("config", "option", "reason"),
    [
        (WITHOUT_PUBSUB, "", "refused to subscribe"),
        (servers.RESP2_ONLY, "", NEEDS_RESP3),
        ({}, "?protocol=2", NEEDS_RESP3),
    ],
    ids=["no pub/sub", "no HELLO", "protocol=2"],
)
async def test_l2_serves_alone(
    make_cache: MakeCache, kind: str, config: dict[str, str], option: str, reason: str
) -> None:
    """The server or proxy has no pub/sub, refuses RESP3, or the URL asks for RESP2."""
    with servers.make(kind, config) as own:
        told = await l2_alone(make_cache(own.url + option, **FAST))
        assert re.search(reason, told), told


async def test_l1_comes_back_with_resp3(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Each attempt to connect asks for RESP3 again, so a server that becomes another one is found out, both ways."""
    with servers.make("valkey", servers.RESP2_ONLY) as old:
        cache = make_cache(proxy.url, **FAST, max_staleness=0.4)
        new_port, proxy.target_port = proxy.target_port, old.port
        assert await cache.set("a", 1) is True
        await until(lambda: cache.health().bus == "refused")
        assert cache.peek("a") is None
        await move(cache, proxy, new_port)
        assert await cache.wait_healthy(5)
        assert await cache.get("a") is None
        assert await cache.set("a", 2) is True
        assert cache.peek("a") == 2
        await move(cache, proxy, old.port)
        await until(lambda: cache.health().bus == "refused")
        await until(lambda: cache.peek("a") is None)  # the proof that the lost connection gave has ended
        assert await cache.set("a", 3) is True


async def move(cache: Twin, proxy: FaultProxy, port: int) -> None:
    """The address leads to another server."""
    proxy.cut()
    await until(lambda: cache.health().bus == "lost")
    proxy.target_port = port
    proxy.heal()


async def test_a_journal_is_replayed_without_l1(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """A set that Redis did not acknowledge becomes a delete there, though no bus is ever proven."""
    async with make_cache(f"{proxy.url}?protocol=2", **FAST, redis_timeout=0.2) as cache:
        assert await cache.set("a", 1) is True
        proxy.cut()
        assert await cache.set("a", 2) is False
        assert cache.health().journal == 1
        proxy.heal()
        await until(lambda: not cache.health().journal)
        assert await cache.get("a") is None
        assert await cache.set("a", 3) is True
        assert await cache.get("a") == 3


@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_protocol_of_a_client_of_the_user(namespace: str, protocol: int) -> None:
    """Its connection settings are borrowed, but not its version of RESP: what the server speaks is found out."""
    with servers.make("valkey", servers.RESP2_ONLY) as old:
        with (
            redis.Redis(port=old.port, protocol=protocol) as client,
            NearCache(client, Settings(namespace=namespace)) as cache,
        ):
            assert cache.set("a", 1) is True
            assert (cache.get("a"), cache.healthy) == (1, False)
        async with (
            redis.asyncio.Redis(port=old.port, protocol=protocol) as async_client,
            AsyncNearCache(async_client, Settings(namespace=namespace)) as async_cache,
        ):
            assert await async_cache.set("b", 2) is True
            assert (await async_cache.get("a"), async_cache.healthy) == (1, False)


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_password_without_hello(make_cache: MakeCache, kind: str) -> None:
    """It is sent by AUTH: the right one works, a wrong one and none are refused, as on RESP3."""
    with servers.make(kind, {**servers.RESP2_ONLY, "requirepass": "right-secret"}) as own:
        async with make_cache(own.url) as cache:
            assert await cache.set("a", 1) is True
            assert await cache.get("a") == 1
        for credentials in (":wrong-secret@", ""):
            with pytest.raises(ConfigError, match="password") as caught:
                async with make_cache(f"redis://{credentials}127.0.0.1:{own.port}/0"):
                    pass
            assert "secret" not in str(caught.value)
