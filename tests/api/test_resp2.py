"""A server or proxy that speaks RESP2 alone: L2 serves, L1 stays off with a reason, and RESP3 turns it on."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import CoherenceFailed, ConfigError, Connected
from nearcache.testing import FaultProxy
from tests.support import servers
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, until

FAST: dict[str, Any] = {"reconnect_max": 0.02, "breaker_reset": 0.02}

WITHOUT_PUBSUB = {"rename-command": 'SUBSCRIBE ""'}


async def l2_alone(cache: Twin, heard: Heard, words: str) -> None:
    """Writes and reads go to Redis, nothing is kept here, and the reason is reported once."""
    assert await cache.set("a", 1) is True
    await until(lambda: heard.of(CoherenceFailed))
    assert await cache.get("a") == 1
    assert await cache.get_or_set("b", cache.loader("loaded")) == "loaded"
    assert await cache.get("b") == "loaded"
    assert await cache.delete("a") is True
    assert await cache.get("a") is None
    assert await cache.wait_healthy(0.2) is False
    assert cache.health().bus == "refused"
    assert cache.health().status == "degraded"
    assert cache.stats().l1_entries == 0
    assert cache.stats().l2_hits >= 2
    assert cache.stats().loads == 1
    (failure,) = heard.of(CoherenceFailed)
    assert words in failure.reason
    assert not heard.of(Connected)


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_server_that_speaks_resp2_alone(make_cache: MakeCache, kind: str) -> None:
    """L2 serves; the event names RESP3 as the way out."""
    with servers.make(kind, servers.RESP2_ONLY) as server:
        cache = make_cache(server.url, **FAST)
        await l2_alone(cache, Heard(cache), "use RESP3")


async def test_a_url_that_asks_for_resp2(make_cache: MakeCache) -> None:
    """The user's own word, for a proxy that hangs up on HELLO, costs L1."""
    cache = make_cache(None, **FAST)
    refused = make_cache(f"{cache.url}?protocol=2", **FAST)
    await l2_alone(refused, Heard(refused), "remove protocol=2 from the URL")


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_server_without_pub_sub(make_cache: MakeCache, kind: str) -> None:
    """As some proxies are: L1 is off, L2 serves."""
    with servers.make(kind, WITHOUT_PUBSUB) as server:
        cache = make_cache(server.url, **FAST)
        await l2_alone(cache, Heard(cache), "refused to subscribe")


async def test_resp3_turns_l1_on(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Each bus tries RESP3 first, so a server that speaks it is found out without a restart."""
    with servers.make("valkey", servers.RESP2_ONLY) as old:
        new, proxy.target_port = proxy.target_port, old.port
        cache = make_cache(proxy.url, **FAST)
        heard = Heard(cache)
        assert await cache.set("a", 1) is True
        await until(lambda: heard.of(CoherenceFailed))
        proxy.cut()
        proxy.target_port = new
        proxy.heal()
        assert await cache.wait_healthy(5)
        await until(lambda: cache._core.breaker.sends)
        assert await cache.set("a", 2) is True
        assert cache.peek("a") == 2


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_password_at_with(make_cache: MakeCache, kind: str) -> None:
    """AUTH in place of HELLO: the right password serves, a wrong one and none are refused."""
    with servers.make(kind, {**servers.RESP2_ONLY, "requirepass": "right-secret"}) as server:
        async with make_cache(server.url) as cache:
            assert await cache.set("a", 1) is True
        for credentials in (":wrong-secret@", ""):
            with pytest.raises(ConfigError, match="password") as caught:
                async with make_cache(f"redis://{credentials}127.0.0.1:{server.port}/0"):
                    pass
            assert "secret" not in str(caught.value)
