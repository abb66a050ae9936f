"""A cache behind Sentinel: failovers, Sentinels that are wrong, silent or few, and clients of redis-py."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.sentinel
from typer.testing import CliRunner

from nearcache import AsyncNearCache, ConfigError, Disconnected, NearCache, NearCacheWarning, Settings, cli
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support import servers
from tests.support.sentinels import SERVICE, Group, group, sentinel_of, url_of
from tests.support.twins import MODES, MakeCache, Twin, twin_of
from tests.support.waiting import Heard, redis_of, refused, shut, until

SYNC: Any = redis.sentinel.Sentinel  # not annotated by each release of redis-py
ASYNC: Any = redis.asyncio.sentinel.Sentinel
PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
FAST: dict[str, Any] = {"reconnect_max": 0.05, "max_staleness": 1.0}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of one kind: it is the Sentinels that differ here."""
    with servers.make("valkey") as shared:
        yield shared


@pytest.fixture(scope="module")
def steady() -> Iterator[Group]:
    """A group that nobody hurts."""
    with group() as made:
        yield made


@pytest.fixture(params=servers.KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group for one test, of each kind of server."""
    with group(request.param) as made:
        yield made


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """The loop of the test goes on: caches of asyncio live on it."""
    return await asyncio.to_thread(work, *args)


def role_of(server: EmbeddedServer) -> str:
    """What a server says of itself."""
    with redis_of(server.url) as client:
        return bytes(client.role()[0]).decode()


async def test_a_failover_by_hand(own: Group, runner: asyncio.Runner) -> None:
    """The old primary stays one for seconds, answers heartbeats and takes writes: everybody leaves it at once."""
    first = own.primary
    async with AsyncExitStack() as stack:

        async def entered(mode: str, buckets: int | None) -> Twin:
            settings = {**FAST, "namespace": f"{mode}-{buckets}", "buckets": buckets}
            return await stack.enter_async_context(twin_of(mode, own.url, runner, **settings))

        pairs = [
            (await entered(mode, buckets), await entered(mode, buckets)) for mode in MODES for buckets in (None, 16)
        ]
        heard = [Heard(reader) for _, reader in pairs]
        for writer, reader in pairs:
            assert await writer.wait_healthy(5)
            assert await reader.wait_healthy(5)
            assert await writer.set("a", 1)
            assert await reader.get("a") == 1
            assert reader.health().primary == f"{HOST}:{first.port}"
        await in_thread(own.fail_over)
        second = own.primary
        reason = f"the Sentinels name another primary: {HOST}:{second.port}"
        await until(lambda: all(reason in [event.reason for event in one.of(Disconnected)] for one in heard), within=3)
        assert role_of(first) == "master"
        caches = [cache for pair in pairs for cache in pair]
        await until(lambda: all(one.health().primary == f"{HOST}:{second.port}" for one in caches))
        await until(lambda: all(one.healthy for one in caches))
        for writer, reader in pairs:
            assert await writer.set("a", 2)
            await until(partial(has_dropped, reader))
            assert await reader.get("a") == 2
        assert role_of(first) == "master"


def has_dropped(reader: Twin) -> bool:
    """Whether it does not have the first value any more."""
    return bool(reader.peek("a") != 1)


async def test_a_failover_by_a_crash(own: Group, runner: asyncio.Runner) -> None:
    """Loaders answer until there is another primary; what was written meanwhile is written there."""
    first = own.primary
    async with AsyncExitStack() as stack:
        made = [twin_of(mode, own.url, runner, **FAST, namespace=mode) for mode in MODES]
        caches = [await stack.enter_async_context(cache) for cache in made]
        heard = [Heard(cache) for cache in caches]
        for cache in caches:
            assert await cache.wait_healthy(5)
            assert await cache.set("a", 1)
        first.kill()
        await until(lambda: all(one.of(Disconnected) for one in heard))
        for cache in caches:
            assert await cache.set("a", 2) is False
            assert await cache.get_or_set("a", cache.loader(2)) == 2
        await in_thread(own.wait_for_another, first)
        await until(lambda: all(cache.healthy and cache.health().journal == 0 for cache in caches))
        for cache in caches:
            assert cache.health().primary == f"{HOST}:{own.primary.port}"
            assert await cache.get_or_set("a", cache.loader(2)) == 2
            assert cache.healthy


async def test_the_reason_of_no_quorum_and_of_no_sentinel(make_cache: MakeCache) -> None:
    """The primary is dead, and a majority can't be had; then nobody answers: health and doctor say what to do."""
    with group(sentinels=2) as own:
        async with make_cache(own.url, **FAST) as cache:
            assert await cache.wait_healthy(5)
            own.sentinels[0].kill()
            report = doctor(own.url)
            assert {one["kind"] for one in report["findings"] if one["level"] != "note"} == {"quorum"}
            # On a busy machine the refusal may come later than redis_connect_timeout, and that is the reason then.
            dead = f"the Sentinel {HOST}:{own.sentinels[0].port}: "
            told = [one["detail"] for one in report["findings"] if one["kind"] == "quorum"]
            assert {f"{dead}the connection failed: ConnectionRefusedError", f"{dead}connecting took too long"} & set(
                told
            )
            assert report["server"]["watched"]["answering"] == "1 of 2"
            own.servers[0].kill()
            await until(lambda: "start more Sentinels, or mend their network" in str(cache.health().reason))
            assert "NOQUORUM" in str(cache.health().reason)
            assert [one.kind for one in cache.health().reasons] == ["sentinel"]
            assert [one["kind"] for one in doctor(own.url)["findings"]] == ["sentinel"]
            own.sentinels[1].kill()
            await until(lambda: str(cache.health().reason).count("ConnectionRefusedError") == 1)
            assert await cache.get_or_set("a", cache.loader(7)) == 7


async def test_a_connection_to_each_sentinel_is_kept_and_closed(make_cache: MakeCache, steady: Group) -> None:
    """Each heartbeat asks one of them; a new connection each time would cost more than the question."""

    def connections() -> list[int]:
        return [len(redis_clients(one)) for one in steady.sentinels]

    before = connections()
    async with make_cache(steady.url, **FAST, namespace="kept") as cache:
        assert await cache.wait_healthy(5)
        await until(lambda: connections() == [count + 1 for count in before])
        made = [accepted(one) for one in steady.sentinels]
        await asyncio.sleep(1.0)  # some heartbeats
        assert [accepted(one) for one in steady.sentinels] == [count + 1 for count in made]  # the one that asks here
    await until(lambda: connections() == before)


def redis_clients(sentinel: EmbeddedServer) -> list[Any]:
    """Its connections but those of other Sentinels and of the one that asks."""
    with redis_of(sentinel.url) as client:
        return [one for one in client.client_list() if "sentinel" not in one["name"]]


def accepted(sentinel: EmbeddedServer) -> int:
    """The connections that it has ever taken."""
    with redis_of(sentinel.url) as client:
        return int(client.info("stats")["total_connections_received"])


def doctor(url: str) -> Any:
    """What it reports."""
    return json.loads(CliRunner().invoke(cli.app(), ["doctor", "--url", url, "--namespace", "shop", "--json"]).stdout)


def test_doctor_names_the_service_and_its_primary(steady: Group) -> None:
    """All is well."""
    report = doctor(steady.url)
    assert report["ok"], report
    primary = f"{HOST}:{steady.primary.port}"
    told = {"service": SERVICE, "answering": "3 of 3", "primary": primary, "problems": []}
    assert report["server"]["watched"] == told
    shown = CliRunner().invoke(cli.app(), ["doctor", "--url", steady.url, "--namespace", "shop"]).stdout
    assert f"Sentinel: 3 of 3 answer, service main, primary {primary}" in shown


async def test_what_can_never_work(make_cache: MakeCache, steady: Group) -> None:
    """A wrong name of the service, and a port that is no Sentinel's: `with` raises, else one warning says it."""
    cases = {
        url_of(steady.sentinels, "mian"): r"it watches no service 'mian', but 'main'; mend the name in the URL",
        url_of([steady.servers[0]]): "this is no Sentinel; a URL of one server begins with redis://",
        url_of(steady.sentinels).replace("/0", "/99"): "a database that the server does not have",
        # The third Sentinel would say the same.
        url_of([*steady.sentinels[:2], EmbeddedServer(port=free_port())], "mian"): "it watches no service 'mian'",
    }
    for url, words in cases.items():
        with pytest.raises(ConfigError, match=words):
            async with make_cache(url, **FAST):
                pass
        cache = make_cache(url, **FAST)
        with pytest.warns(NearCacheWarning, match=words):
            await refused(cache)
        assert words in str(cache.health().reason)
        await shut(cache)


async def test_a_sentinel_and_its_servers_with_passwords(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """Each has its own; a wrong one is told without the password."""
    with sentinel_of("valkey", server.port) as sentinel:
        with redis_of(sentinel.url) as client:
            rights = re.findall(r"`(\+sentinel\S+ \+sentinel\S+)`", PAGE)[0]
            client.execute_command("ACL", "SETUSER", "watch", "on", ">p@ss/1", "-@all", *rights.split())
            client.execute_command("ACL", "SETUSER", "default", "off")
        with redis_of(server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">p@ss2", "~*", "&*", "+@all")
        try:
            url = f"redis+sentinel://app:p%40ss2@{HOST}:{sentinel.port}/{SERVICE}/3"
            async with make_cache(f"{url}?sentinel_username=watch&sentinel_password=p%40ss%2F1", **FAST) as cache:
                assert await cache.wait_healthy(5)
                assert cache.url == f"redis+sentinel://{HOST}:{sentinel.port}/{SERVICE}/3"
                assert await cache.set("a", 1)
                with redis_of(server.url.removesuffix("/0") + "/3") as client:
                    assert client.dbsize() > 0
                    client.flushdb()
            with pytest.raises(ConfigError, match="refused the user or password") as caught:
                async with make_cache(f"{url}?sentinel_username=watch&sentinel_password=wr0ng", **FAST):
                    pass
            assert "wr0ng" not in str(caught.value)
            with pytest.raises(ConfigError, match="user or password"):
                async with make_cache(url, **FAST):
                    pass
        finally:
            with redis_of(server.url) as client:
                client.acl_deluser("app")


async def test_a_sentinel_that_is_behind(make_cache: MakeCache, steady: Group) -> None:
    """It names a server that is a replica, which is refused; then the next one is asked."""
    with sentinel_of("valkey", steady.servers[1].port) as stale:
        async with make_cache(url_of([stale, *steady.sentinels]), **FAST) as cache:
            assert await cache.wait_healthy(5)
            assert cache.health().primary == f"{HOST}:{steady.servers[0].port}"
            assert await cache.set("a", 1)
        cache = make_cache(url_of([stale]), **FAST)
        words = f"the Sentinel {HOST}:{stale.port} names {HOST}:{steady.servers[1].port}, which is no primary"
        await cache.get("a")
        await until(lambda: words in str(cache.health().reason))
        await shut(cache)


async def test_sentinels_that_hang(make_cache: MakeCache, server: EmbeddedServer) -> None:
    """One costs a part of the time to connect, once; if all hang, nobody waits longer, and no loop is blocked."""
    with sentinel_of("valkey", server.port) as first, sentinel_of("valkey", server.port) as second:
        first.pause()
        url = url_of([first, second])
        async with make_cache(url, **FAST, redis_connect_timeout=0.6) as cache:
            assert await cache.wait_healthy(2)
            began = time.monotonic()
            assert await cache.set("a", 1)
            assert time.monotonic() - began < 0.2  # the one that answered is asked first
        second.pause()
        cache = make_cache(url, **FAST, redis_connect_timeout=0.6)
        lags: list[float] = []
        watch = asyncio.create_task(lags_of_the_loop(lags))
        began = time.monotonic()
        assert await cache.get_or_set("a", cache.loader(5)) == 5
        assert await cache.set("a", 1) is False
        assert time.monotonic() - began < 3 * 0.6
        await until(lambda: "no answer in time" in str(cache.health().reason) or cache.health().reason, within=2)
        watch.cancel()
        assert max(lags) < 0.1
        first.resume()
        second.resume()
        await until(lambda: cache.healthy)


async def lags_of_the_loop(lags: list[float]) -> None:
    """How much later than asked for a task comes on."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - began - 0.01)


def test_a_client_of_master_for(server: EmbeddedServer, steady: Group, namespace: str) -> None:
    """Its settings are lent, its Sentinels are asked, and its decoding does not matter."""
    places = [(HOST, one.port) for one in steady.sentinels]
    manager = SYNC(places, sentinel_kwargs={"socket_timeout": 1}, socket_timeout=1, decode_responses=True)
    client = manager.master_for(SERVICE, db=2)
    with NearCache(client, Settings(namespace=namespace, **FAST)) as cache:
        assert cache.url == f"{url_of(steady.sentinels).removesuffix('/0')}/2"
        assert cache.wait_healthy(5)
        assert cache.set("a", 1)
        assert cache.health().primary == f"{HOST}:{steady.primary.port}"
        assert client.dbsize() > 0
        client.flushdb()
    with pytest.raises(ConfigError, match="use master_for"):
        NearCache(manager.slave_for(SERVICE))
    with pytest.raises(ConfigError, match=r"needs a redis\.asyncio\.Redis"):
        AsyncNearCache(client)
    few = SYNC(places, min_other_sentinels=9).master_for(SERVICE)
    with NearCache(few, Settings(namespace=namespace, **FAST)) as cache:
        assert not cache.wait_healthy(0.2)
        assert "fewer other Sentinels than min_other_sentinels" in str(cache.health().reason)
    client.close()
    for one in manager.sentinels:
        one.close()


async def test_an_asyncio_client_of_master_for(server: EmbeddedServer, steady: Group, namespace: str) -> None:
    """The same."""
    manager = ASYNC([(HOST, one.port) for one in steady.sentinels], socket_timeout=1)
    client = manager.master_for(SERVICE)
    async with AsyncNearCache(client, Settings(namespace=namespace, **FAST)) as cache:
        assert cache.url == url_of(steady.sentinels)
        assert await cache.wait_healthy(5)
        assert await cache.set("a", 1)
    with pytest.raises(ConfigError, match="use master_for"):
        AsyncNearCache(manager.slave_for(SERVICE))
    await client.aclose()
