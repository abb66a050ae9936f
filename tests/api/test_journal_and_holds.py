"""Writes while Redis was away, deletes that hold, stale marks, and servers whose coherence does not work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nearcache import CoherenceFailed, ConfigError, Connected, Drained, Flushed
from nearcache.engine.ports import BusRefused
from nearcache.protocol.answers import Peer
from nearcache.testing import FaultProxy, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.cases import each
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, shut, until, value_name


def settled(cache: Twin) -> bool:
    """Whether nothing is journalled, and L1 is proven."""
    return cache.healthy and not len(cache._core.tier.journal)


@pytest.mark.parametrize("method", ["set", "delete", "mark_stale", "invalidate_tags", "clear"])
async def test_a_write_made_while_redis_was_away_is_not_undone(
    make_cache: MakeCache, proxy: FaultProxy, method: str, server: EmbeddedServer
) -> None:
    """The old value is gone everywhere when the writer's link is back; other instances kept it until then (G6)."""
    arguments: dict[str, tuple[Any, ...]] = {"set": ("a", 2), "invalidate_tags": ("t",), "clear": ()}
    async with make_cache(proxy.url) as one, make_cache(server.url) as other:
        heard = Heard(one)
        assert await one.set("a", 1, tags=["t"]) is True
        await until(lambda: other._core.invalidation.last >= one._core.invalidation.last)
        assert await other.get("a") == 1
        proxy.cut()
        assert await getattr(one, method)(*arguments.get(method, ("a",))) is False
        assert await one.get("a") is None
        assert await one.get_or_set("a", one.loader("loaded")) == "loaded"
        assert await other.get("a") == 1
        proxy.heal()
        await until(lambda: settled(one))
        assert sum(event.replayed for event in heard.of(Drained)) >= 1
        await until(lambda: other.peek("a") is None)
        assert await other.get("a") is None
        assert await one.get_or_set("a", one.loader("new")) == "new"
        assert await one.get("a") == await other.get("a") == "new"


async def test_a_closing_cache_replays_what_it_can(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """A write that failed a moment ago is made up for before the connections are closed."""
    async with make_cache(server.url) as other:
        async with make_cache(server.url) as one:
            await one.set("a", 1)
            one._core.tier.journal_keys(["a"])
        assert await other.get("a") is None


class RefusedBus:
    """A bus that a server never lets subscribe."""

    async def open(self) -> None:
        """Be refused."""
        raise BusRefused("no messages here")

    def interrupt(self) -> None:
        """It has no connection."""

    async def close(self) -> None:
        """It has no connection."""


async def test_without_a_bus_the_journal_is_replayed_all_the_same(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """L2 serves, L1 is off, and a write that failed is made up for."""
    cache = make_cache(proxy.url, max_staleness=1)
    cache._core.new_bus = RefusedBus
    async with cache:
        assert await cache.set("a", 1) is True
        proxy.cut()
        assert await cache.delete("a") is False
        assert await cache.get("a") is None
        proxy.heal()
        await until(lambda: not len(cache._core.tier.journal))
        assert cache.healthy is False
        assert await cache.get("a") is None
        assert await cache.set("a", 2) is True
        assert await cache.get("a") == 2


async def test_one_process_alone_journals_nothing(make_cache: MakeCache) -> None:
    """A write that was interrupted has nobody to be replayed to; its key is used again."""
    cache = make_cache("memory://")
    cache._core.tier.journal_keys(["a"])
    cache._core.tier.journal_floors(())
    assert await cache.get_or_set("a", cache.loader(1)) == 1
    assert cache.peek("a") == 1


async def test_closing_releases_what_was_put_off(make_cache: MakeCache) -> None:
    """Nobody reads any more, and no bus would do it."""
    cache = make_cache("memory://")
    await cache.set_many({f"k{number}": number for number in range(1000)})
    await cache.clear()
    assert cache._core.tier._deferred
    await shut(cache)
    assert not cache._core.tier._deferred


async def test_a_delete_that_holds(make_cache: MakeCache) -> None:
    """For so long nobody's loaded value is kept; a set is."""
    async with make_cache() as one, make_cache() as other:
        assert await one.delete("a", "b", hold=30) is True
        assert await other.get_or_set("a", other.loader("from a replica")) == "from a replica"
        assert other.peek("a") is None
        assert await one.get("a") is None
        assert await one.set("b", 2) is True
        assert await other.get("b") == 2
        assert await one.delete("c", hold=0.05) is True

        async def kept() -> bool:
            await other.get_or_set("c", other.loader("new"))
            return bool(other.peek("c") == "new")

        await until(kept)


@each("hold", [0, -1, "1", True, float("inf")])
async def test_a_wrong_hold(make_cache: MakeCache, hold: Any) -> None:
    """As every duration; nothing is deleted."""
    cache = make_cache("memory://")
    await cache.set("a", 1)
    with pytest.raises(ConfigError, match=r"hold=.*: must be "):
        await cache.delete("a", hold=hold)
    assert cache.peek("a") == 1


async def test_a_value_marked_stale(make_cache: MakeCache) -> None:
    """The next read loads, on every instance; Redis keeps the record for who may serve it stale."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1)
        await until(lambda: other._core.invalidation.last >= one._core.invalidation.last)
        assert await other.get("a") == 1
        assert await one.mark_stale("a", "absent") is True
        assert await one.get("a") is None
        await until(lambda: other.peek("a") is None)
        with redis_of(one.url) as client:
            assert client.exists(value_name(one.settings.namespace, "a"))
        assert await other.get_or_set("a", other.loader("new")) == "new"
        assert await one.get("a") == "new"


async def test_a_namespace_of_another_protocol(make_cache: MakeCache, server: EmbeddedServer, namespace: str) -> None:
    """Neither tier is used: loaders answer, writes are False, and it is told once; it heals with the namespace."""
    with redis_of(server.url) as client:
        client.hset(f"{{{namespace}:0}}:m", "p", "9/16")
        async with make_cache(server.url) as cache:
            heard = Heard(cache)
            assert cache.healthy is False
            assert await cache.set("a", 1) is False
            assert await cache.get("a") is None
            assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
            assert cache.peek("a") is None
            assert client.hgetall(f"{{{namespace}:0}}:m") == {b"p": b"9/16"}
            assert len(list(client.scan_iter(f"{{{namespace}:0}}*"))) == 1
            client.delete(f"{{{namespace}:0}}:m")
            await until(lambda: heard.of(Connected))
            await until(lambda: settled(cache))
            assert await cache.set("a", 2) is True
            assert await cache.get("a") == 2
            assert client.hget(f"{{{namespace}:0}}:m", "p") == b"2/1"


async def test_a_namespace_that_another_protocol_takes_over(
    make_cache: MakeCache, proxy: FaultProxy, namespace: str, server: EmbeddedServer
) -> None:
    """Connections for commands were welcome before: from the bus's greeting on nothing is written over them."""
    proxy.hold("requests", only=subscribers)
    cache = make_cache(proxy.url, redis_timeout=2, max_staleness=2)
    heard = Heard(cache)
    assert await cache.set("a", 1) is True
    with redis_of(server.url) as client:
        client.hset(f"{{{namespace}:0}}:m", "p", "9/16")
        proxy.release()
        await until(lambda: heard.of(CoherenceFailed))
        number = client.hget(f"{{{namespace}:0}}:m", "s")
        assert await cache.set("a", 2) is False
        assert await cache.get("a") is None
        assert client.hget(f"{{{namespace}:0}}:m", "s") == number


async def test_a_large_tag_is_dropped_by_the_bus_alone(make_cache: MakeCache) -> None:
    """Nothing need be done with the cache for what was put out of sight to be released, and the rest to come back."""
    async with make_cache() as one, make_cache() as other:
        await one.set_many({f"t{number}": number for number in range(400)}, tags=["t"])
        await one.set_many({f"k{number}": number for number in range(400)})
        await until(lambda: other._core.invalidation.last >= one._core.invalidation.last)
        assert len(await other.get_many([f"{kind}{number}" for kind in "tk" for number in range(400)])) == 800
        await one.invalidate_tags("t")
        await until(lambda: other.peek("t0") is None)
        await until(lambda: other.peek("k0") == 0)
        await until(lambda: not other._core.tier._deferred)
        assert other.stats().l1_entries == 400


async def test_it_is_told_what_to_do_about_another_protocol(
    server: EmbeddedServer, namespace: str, make_cache: MakeCache
) -> None:
    """The event names both protocols and the way out."""
    with redis_of(server.url) as client:
        client.hset(f"{{{namespace}:0}}:m", "p", "9/16")
    cache = make_cache(server.url)
    heard = Heard(cache)
    async with cache:
        await until(lambda: heard.of(CoherenceFailed))
        (event,) = heard.of(CoherenceFailed)
        assert "kept by protocol 9/16, this is 2/1; use another namespace" in event.reason


async def test_messages_that_go_nowhere(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that does not come back: L1 stays off, L2 serves, and it is told."""
    cache = make_cache()
    heard = Heard(cache)

    async def swallow(_nonce: str) -> None:
        """As a proxy that takes PUBLISH and passes nothing on."""

    monkeypatch.setattr(cache._core.remote, "probe", swallow)
    async with cache:
        await until(lambda: heard.of(CoherenceFailed))
        assert "a probe published through the server did not come back" in heard.of(CoherenceFailed)[0].reason
        assert await cache.set("a", 1) is True
        assert await cache.get("a") == 1
        assert cache.peek("a") is None
        assert cache.healthy is False
        monkeypatch.undo()
        await until(lambda: cache.healthy)
        assert await cache.get("a") == 1
        assert cache.peek("a") == 1


async def test_commands_that_another_server_answers(make_cache: MakeCache) -> None:
    """A failover that the bus has not seen: L1 is flushed, and the bus connects anew."""
    async with make_cache() as cache:
        heard = Heard(cache)
        await cache.set("a", 1)
        cache._core.connected(Peer("another/server", 0.0))
        assert cache.peek("a") is None
        assert "another server" in heard.of(Flushed)[0].reason
        await until(lambda: heard.of(Connected))
        await until(lambda: cache.healthy)
        assert await cache.get("a") == 1


@pytest.mark.parametrize("writable", [False, True], ids=["read-only", "writable"])
async def test_a_demoted_primary_is_left(
    make_cache: MakeCache, fresh_server: EmbeddedServer, *, writable: bool
) -> None:
    """It would answer for ever: neither the bus nor a new command connection takes a replica for its server."""
    async with make_cache(fresh_server.url, max_staleness=1, redis_timeout=0.2) as cache:
        await cache.set("a", 1)
        with redis_of(fresh_server.url) as client:
            client.config_set("replica-read-only", "no" if writable else "yes")
            heard = Heard(cache)
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            try:
                await until(lambda: cache.peek("a") is None)
                assert not heard.of(Connected)
                assert await cache.get("a") is None
                assert await cache.set("a", 2) is False
            finally:
                client.execute_command("REPLICAOF", "NO", "ONE")
        await until(lambda: settled(cache))
        assert await cache.set("a", 3) is True
        assert await asyncio.wait_for(asyncio.ensure_future(cache.get("a")), 5) == 3
