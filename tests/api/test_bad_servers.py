"""Servers that can never be used as set up: a foreign protocol, a wrong password, missing rights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache import BreakerOpened, CoherenceFailed, ConfigError, Connected
from nearcache.transport.embedded import EmbeddedServer
from tests.support import servers
from tests.support.faults import HttpServer
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, shut, until

pytestmark = pytest.mark.one_server
"""The shared server is not asked; those here are."""

PASSWORD = "s3cret-pa55"
WRONG = "wr0ng-pa55"

FAST: dict[str, Any] = {"reconnect_max": 0.02, "breaker_reset": 0.02}


@pytest.fixture(scope="module", params=servers.KINDS)
def locked(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server that asks for a password."""
    with servers.make(request.param, {"requirepass": PASSWORD}) as server:
        yield server


def with_password(server: EmbeddedServer, password: str) -> str:
    """A server's URL with this password."""
    return f"redis://:{password}@127.0.0.1:{server.port}/0"


async def unusable(cache: Twin, heard: Heard, words: str) -> None:
    """Nothing is raised into a read, writes are False, and the reason is told once, however often it tries."""
    assert await cache.get("a", "missing") == "missing"
    assert await cache.get_many(["a"]) == {}
    assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
    assert await cache.set("a", 1) is False
    assert await cache.delete("a") is False
    await until(lambda: heard.of(CoherenceFailed))
    assert await cache.wait_healthy(0.2) is False
    (failure,) = heard.of(CoherenceFailed)
    assert words in failure.reason
    assert not heard.of(Connected)


async def test_a_web_server(make_cache: MakeCache) -> None:
    """`with` on a port where no Redis is raises ConfigError; without `with` it is told by one event."""
    with HttpServer() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        words = "the server does not speak Redis' protocol; check host and port of the URL"
        with pytest.raises(ConfigError) as caught:
            async with make_cache(url):
                pass
        assert str(caught.value) == f"{url}: {words}"
        cache = make_cache(url, **FAST)
        await unusable(cache, Heard(cache), words)


async def test_a_wrong_password_at_with(
    make_cache: MakeCache, locked: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """`with` raises ConfigError, which does not show the password, nor do log and events; the cache is closed."""
    caplog.set_level(logging.DEBUG)
    cache = make_cache(with_password(locked, WRONG))
    heard = Heard(cache)
    with pytest.raises(ConfigError, match="the server refused the user or password; check both in the URL") as caught:
        async with cache:
            pass
    assert str(caught.value).startswith(f"redis://127.0.0.1:{locked.port}/0: ")
    assert WRONG not in str(caught.value) + repr(heard) + caplog.text + repr(cache.cache)
    assert caught.value.__cause__ is None
    with pytest.raises(RuntimeError, match="closed"):
        cache.peek("a")


async def test_no_password_at_with(make_cache: MakeCache, locked: EmbeddedServer) -> None:
    """A server that wants a password, and none is given: the same."""
    with pytest.raises(ConfigError, match=r"password|NOAUTH"):
        async with make_cache(f"redis://127.0.0.1:{locked.port}/0"):
            pass


async def test_a_wrong_password_without_with(
    make_cache: MakeCache, locked: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads never raise, writes are False, CoherenceFailed comes once, nothing shows the password."""
    caplog.set_level(logging.DEBUG)
    cache = make_cache(with_password(locked, WRONG), **FAST)
    heard = Heard(cache)
    await unusable(cache, heard, "refused the user or password")
    assert WRONG not in repr(heard) + caplog.text
    assert "coherence failed" in caplog.text


async def test_the_right_password(make_cache: MakeCache, locked: EmbeddedServer) -> None:
    """With the right one everything works."""
    async with make_cache(with_password(locked, PASSWORD)) as cache:
        assert await cache.set("a", 1) is True
        assert cache.healthy


async def test_a_password_that_becomes_right(make_cache: MakeCache, locked: EmbeddedServer) -> None:
    """A refusal is not for ever: when the server takes the password after all, the cache connects."""
    cache = make_cache(with_password(locked, WRONG), **FAST)
    heard = Heard(cache)
    await cache.get("a")
    await until(lambda: heard.of(CoherenceFailed))
    with redis_of(locked.url) as client:
        client.config_set("requirepass", WRONG)
        try:
            await until(lambda: heard.of(Connected))

            async def works() -> bool:
                return bool(await cache.set("a", 1))

            await until(works)
        finally:
            await shut(cache)
            client.config_set("requirepass", PASSWORD)


@pytest.mark.parametrize(
    ("rights", "words"), [(["~*", "+@all"], "NOPERM"), (["~*", "&*", "+@all", "-eval", "-evalsha"], "NOPERM")]
)
async def test_a_user_without_rights(
    make_cache: MakeCache, locked: EmbeddedServer, rights: list[str], words: str
) -> None:
    """Who may not subscribe, or not run scripts: told once, nothing raised into a read, L1 never trusted."""
    with redis_of(locked.url) as client:
        client.execute_command("ACL", "SETUSER", "reader", "reset", "on", f">{PASSWORD}", *rights)
    cache = make_cache(f"redis://reader:{PASSWORD}@127.0.0.1:{locked.port}/0", **FAST)
    heard = Heard(cache)
    assert await cache.get("a", "missing") == "missing"
    assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
    await until(lambda: heard.of(CoherenceFailed))
    assert await cache.wait_healthy(0.2) is False
    (failure,) = heard.of(CoherenceFailed)
    assert words in failure.reason
    assert not heard.of(Connected)
    assert cache.stats().l1_entries == 0


async def test_a_foreign_counter(make_cache: MakeCache, server: EmbeddedServer, namespace: str) -> None:
    """When the name of the counters is taken by something else: told once, reads go on, nothing is overwritten."""
    name = f"{{{namespace}:0}}:m"
    with redis_of(server.url) as client:
        client.set(name, "somebody's")
        cache = make_cache(**FAST)
        heard = Heard(cache)
        assert await cache.set("a", 1) is False
        assert await cache.get("a") is None
        assert await cache.get_or_set("a", cache.loader("loaded")) == "loaded"
        await until(lambda: heard.of(CoherenceFailed))
        assert await cache.wait_healthy(0.2) is False
        assert len(heard.of(CoherenceFailed)) == 1
        assert client.get(name) == b"somebody's"


async def test_a_user_with_the_namespace_alone(make_cache: MakeCache, locked: EmbeddedServer, namespace: str) -> None:
    """One pattern for keys and channel, `{namespace:*`, is enough for everything."""
    pattern = f"{{{namespace}:*"
    with redis_of(locked.url) as client:
        client.execute_command(
            "ACL", "SETUSER", "app", "reset", "on", f">{PASSWORD}", f"~{pattern}", f"&{pattern}", "+@all"
        )
    async with make_cache(f"redis://app:{PASSWORD}@127.0.0.1:{locked.port}/0") as cache:
        assert await cache.set("a", 1, tags=["t"]) is True
        assert await cache.get_or_set("b", cache.loader(2), tags=["t"]) == 2
        assert await cache.invalidate_tags("t") is True
        assert await cache.delete("a") is True
        assert await cache.clear() is True
        assert cache.healthy
        assert cache.stats().l2_errors == 0


async def test_a_full_server(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """Out of memory: sets are False, deletes, stale marks, tags and clears still work, reads never raise."""
    async with make_cache(fresh_server.url) as cache:
        heard = Heard(cache)
        assert await cache.set_many({"a": 1, "marked": 1}, tags=["t"]) is True
        with redis_of(fresh_server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            assert await cache.set("a", 2) is False
            assert await cache.get_or_set("b", cache.loader("loaded")) == "loaded"
            await until(lambda: not len(cache._core.tier.journal))
            assert await cache.mark_stale("marked") is True
            assert await cache.delete("a") is True
            assert await cache.invalidate_tags("t") is True
            assert await cache.clear() is True
            assert len(heard.of(BreakerOpened)) <= 1
            client.config_set("maxmemory", 0)

        async def works() -> bool:  # until the last message of the clear has come, the value need not stay in L1
            return bool(await cache.set("a", 3) and cache.peek("a") == 3)

        await until(works)
