"""A server that speaks RESP2 alone is as good as any; one without pub/sub serves L2 alone, whatever it speaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from nearcache import AsyncNearCache, CoherenceFailed, ConfigError, Connected, Flushed, NearCache, Settings
from nearcache.testing import FaultProxy, subscribers
from nearcache.transport.aside import AsideProtocol
from nearcache.transport.embedded import EmbeddedServer

# What holds on RESP3 holds here: the same tests, run on the servers of this module.
from tests.api.test_coherence import (
    test_a_bus_killed_again_and_again_misses_nothing,
    test_a_gap_in_the_numbers_flushes,
    test_a_killed_bus_without_a_write_keeps_l1,
    test_a_lost_bus_and_a_write_meanwhile_flush,
    test_a_removal_is_seen_by_the_others,
    test_a_write_is_seen_by_the_others,
    test_flushall_is_noticed,
    test_garbage_on_the_channel_flushes,
    test_scripts_that_the_server_forgot_are_sent_again,
    test_two_namespaces_do_not_disturb_each_other,
)
from tests.api.test_journal_and_holds import (
    test_a_closing_cache_replays_what_it_can,
    test_a_demoted_primary_is_left,
    test_a_namespace_that_another_protocol_takes_over,
    test_a_write_made_while_redis_was_away_is_not_undone,
    test_commands_that_another_server_answers,
    test_messages_that_go_nowhere,
)
from tests.api.test_outages import (
    test_a_killed_server,
    test_a_write_that_is_not_acknowledged,
    test_a_write_whose_reply_is_lost,
    test_many_readers_while_the_server_comes_and_goes,
)
from tests.support import servers
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, until

__all__ = [
    "test_a_bus_killed_again_and_again_misses_nothing",
    "test_a_closing_cache_replays_what_it_can",
    "test_a_demoted_primary_is_left",
    "test_a_gap_in_the_numbers_flushes",
    "test_a_killed_bus_without_a_write_keeps_l1",
    "test_a_killed_server",
    "test_a_lost_bus_and_a_write_meanwhile_flush",
    "test_a_namespace_that_another_protocol_takes_over",
    "test_a_removal_is_seen_by_the_others",
    "test_a_write_is_seen_by_the_others",
    "test_a_write_made_while_redis_was_away_is_not_undone",
    "test_a_write_that_is_not_acknowledged",
    "test_a_write_whose_reply_is_lost",
    "test_commands_that_another_server_answers",
    "test_flushall_is_noticed",
    "test_garbage_on_the_channel_flushes",
    "test_many_readers_while_the_server_comes_and_goes",
    "test_messages_that_go_nowhere",
    "test_scripts_that_the_server_forgot_are_sent_again",
    "test_two_namespaces_do_not_disturb_each_other",
]

FAST: dict[str, Any] = {"reconnect_max": 0.02, "breaker_reset": 0.02}

WITHOUT_PUBSUB = {"rename-command": 'SUBSCRIBE ""'}


@pytest.fixture(scope="module", params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of each kind that refuses HELLO."""
    with servers.make(request.param, servers.RESP2_ONLY) as shared:
        yield shared


@pytest.fixture(params=servers.KINDS)
def fresh_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """The same for one test alone."""
    with servers.make(request.param, servers.RESP2_ONLY) as own:
        yield own


async def test_l1_is_proven_again_and_again_under_writes(make_cache: MakeCache) -> None:
    """Messages between a number and its PONG neither flush nor end the bus."""
    async with make_cache(max_staleness=0.8) as cache, make_cache() as writer:
        heard = Heard(cache)
        await writer.set("kept", 1)
        await until(lambda: cache.stats().invalidations_received)
        assert await cache.get("kept") == 1
        proofs: set[float] = set()
        while len(proofs) < 10:
            assert await writer.set("other", len(proofs)) is True
            proofs.add(cache._core.tier.fresh_until)
            assert "kept" in cache._core.tier.entries
        assert isinstance(cache._core.bus._talk, AsideProtocol)
        assert not heard.of(Flushed)
        assert "missing" not in repr(heard)


async def test_a_question_that_is_not_answered_ends_the_proof(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """The subscription goes on, and messages come; without the number they prove nothing."""
    async with make_cache(proxy.url, max_staleness=0.4) as cache:
        await cache.set("a", 1)
        assert cache.peek("a") == 1
        proxy.hold("replies", lambda head: not subscribers(head))
        await until(lambda: cache.peek("a") is None)
        assert cache.healthy is False
        proxy.release()
        assert await cache.wait_healthy(5)


async def test_a_server_that_becomes_another_one(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """RESP2 alone, then RESP3, then RESP2 alone again: coherent each time, and nothing of the one before is served."""
    with servers.make("valkey") as other:
        cache = make_cache(proxy.url, **FAST)
        first = proxy.target_port
        for target, aside in ((first, True), (other.port, False), (first, True)):
            proxy.cut()
            await cache.get("a")
            await until(lambda: not cache._core.breaker.bus)
            proxy.target_port = target
            proxy.heal()
            assert await cache.wait_healthy(5)
            assert cache._core.bus._talk.aside is aside
            assert cache.peek("a") is None
            assert await cache.set("a", target) is True
            assert await cache.get("a") == target


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_of_the_user(server: EmbeddedServer, namespace: str, protocol: int) -> None:
    """Its connection settings are borrowed, the protocol is found out."""
    with (
        redis.Redis(port=server.port, protocol=protocol) as client,
        NearCache(client, Settings(namespace=namespace)) as cache,
    ):
        assert cache.set("a", 1) is True
        assert cache.healthy


@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_asyncio_client_of_the_user(server: EmbeddedServer, namespace: str, protocol: int) -> None:
    """The same."""
    async with (
        redis.asyncio.Redis(port=server.port, protocol=protocol) as client,
        AsyncNearCache(client, Settings(namespace=namespace)) as cache,
    ):
        assert await cache.set("a", 1) is True
        assert cache.healthy


async def l2_alone(cache: Twin, heard: Heard, words: str) -> None:
    """Writes and reads go to Redis, nothing is kept here, and it is told once, however often it is tried."""
    assert await cache.set("a", 1) is True
    await until(lambda: heard.of(CoherenceFailed))
    assert await cache.get("a") == 1
    assert await cache.get_or_set("b", cache.loader("loaded")) == "loaded"
    assert await cache.get("b") == "loaded"
    assert await cache.delete("a") is True
    assert await cache.get("a") is None
    assert await cache.wait_healthy(0.2) is False
    assert cache.healthy is False
    assert cache.stats().l1_entries == 0
    assert cache.stats().l2_hits >= 2
    assert cache.stats().loads == 1
    (failure,) = heard.of(CoherenceFailed)
    assert words in failure.reason
    assert not heard.of(Connected)


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
@pytest.mark.parametrize("kind", servers.KINDS)
@pytest.mark.parametrize("option", ["", "?protocol=2"], ids=["resp3", "resp2"])
async def test_a_server_without_pub_sub(make_cache: MakeCache, kind: str, option: str) -> None:
    """As some proxies are: L1 is off, L2 serves."""
    with servers.make(kind, WITHOUT_PUBSUB) as server:
        cache = make_cache(server.url + option, **FAST)
        await l2_alone(cache, Heard(cache), "refused to subscribe")


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
async def test_a_server_that_hides_its_name(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """In RESP2 there is no proof without INFO, so L2 serves alone."""
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", ">pw", "~*", "&*", "+@all", "-info")
    cache = make_cache(f"redis://shy:pw@127.0.0.1:{fresh_server.port}/0", **FAST)
    await l2_alone(cache, Heard(cache), "needs INFO")


@pytest.mark.parametrize("server", ["valkey"], indirect=True)  # not asked
@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_password_at_with(make_cache: MakeCache, kind: str) -> None:
    """The right one works, a wrong one and none are refused, as on RESP3."""
    with servers.make(kind, {**servers.RESP2_ONLY, "requirepass": "right-secret"}) as server:
        async with make_cache(server.url) as cache:
            assert await cache.set("a", 1) is True
            assert cache.healthy
        for credentials in (":wrong-secret@", ""):
            with pytest.raises(ConfigError, match="password") as caught:
                async with make_cache(f"redis://{credentials}127.0.0.1:{server.port}/0"):
                    pass
            assert "secret" not in str(caught.value)
