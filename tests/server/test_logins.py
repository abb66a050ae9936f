"""Users, passwords and who provides them: what docs/security.md says of each change and mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.credentials import CredentialProvider

from nearcache import AsyncNearCache, ConfigError, Connected, Flushed, NearCache, Settings
from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support import servers
from tests.support.twins import MakeCache, SyncTwin, Twin
from tests.support.waiting import Heard, redis_of, until

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
FAST: dict[str, Any] = {"reconnect_max": 0.05, "max_staleness": 1.0}
pytestmark = pytest.mark.filterwarnings("ignore::nearcache.NearCacheWarning")


def told(change: str) -> str:
    """The last column of the table."""
    (row,) = re.findall(rf"^\| {re.escape(change)}.* \| `?([^`|]*)`? \|$", PAGE, re.MULTILINE)
    return str(row)


class Provider(CredentialProvider):
    """What it gives may be replaced; None: it fails."""

    def __init__(self, password: str) -> None:
        self.password: str | None = password

    def get_credentials(self) -> tuple[str, str]:
        """User and password."""
        if self.password is None:
            raise KeyError("the vault is closed")
        return "app", self.password


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server of this test alone."""
    with servers.make("valkey") as own:
        yield own


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[Any]:
    """Its default user; the application's is made."""
    with redis_of(server.unix_url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">one", "~*", "&*", "+@all")
        yield client


def end_all(admin: Any) -> None:
    """End every connection but this one."""
    admin.client_kill_filter(_type="normal")
    admin.client_kill_filter(_type="pubsub")


async def test_a_password_that_is_replaced_and_a_user_that_is_deleted(
    make_cache: MakeCache, server: EmbeddedServer, admin: Any
) -> None:
    """Connections go on; then loaders answer, until the old password is right again."""
    async with make_cache(f"redis://app:one@{HOST}:{server.port}/0", **FAST) as cache:
        assert await cache.wait_healthy(5)
        assert await cache.set("a", 1)
        admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">two")
        assert await cache.set("a", 2)
        assert cache.healthy
        end_all(admin)
        await until(lambda: cache.health().reason == told("the password, while connections are open"))
        assert await cache.get_or_set("b", cache.loader(3)) == 3
        admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">one")
        await until(lambda: cache.healthy)
        admin.execute_command("ACL", "DELUSER", "app")
        await until(lambda: cache.health().reason == told("the user is deleted"))
        assert await cache.get_or_set("c", cache.loader(4)) == 4


@pytest.fixture(params=["sync", "aio"])
def provided(request: pytest.FixtureRequest, server: EmbeddedServer, admin: Any, runner: Any) -> tuple[Twin, Provider]:
    """A cache by a client with a provider."""
    provider, settings = Provider("one"), Settings(namespace="shop", **FAST)
    if request.param == "sync":
        client = redis.Redis(port=server.port, credential_provider=provider)
        return SyncTwin(NearCache(client, settings), runner.get_loop()), provider
    return Twin(AsyncNearCache(redis.asyncio.Redis(port=server.port, credential_provider=provider), settings)), provider


async def test_a_provider_that_rotates(provided: tuple[Twin, Provider], admin: Any) -> None:
    """It is asked at each connect, and one that fails is asked again."""
    cache, provider = provided
    async with cache:
        assert await cache.wait_healthy(5)
        assert await cache.set("a", 1)
        heard = Heard(cache)
        admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">two")
        provider.password = "two"
        end_all(admin)
        await until(lambda: heard.of(Connected) and cache.healthy)
        assert not heard.of(Flushed)
        assert cache.peek("a") == 1
        await until(lambda: cache.health().status == "ok")
        assert cache.health().reason is None
        provider.password = None
        end_all(admin)
        await until(lambda: cache.health().reason == told("the provider raises"))
        assert await cache.get_or_set("b", cache.loader(2)) == 2
        provider.password = "two"
        await until(lambda: cache.healthy)
    await cache.close()


async def test_a_unix_socket_with_a_password_and_a_database(make_cache: MakeCache, tmp_path: Path) -> None:
    """It works as over TCP; mistakes are told."""
    with servers.make("valkey", {"requirepass": "p@ss/1"}) as server:
        url = server.unix_url.replace("db=0", "db=2")
        async with make_cache(url, **FAST) as cache:
            assert await cache.wait_healthy(5)
            assert await cache.set("a", 1)
            assert "p@ss" not in cache.url
        with redis_of(url) as client:
            assert client.dbsize() > 0
        path = url.removeprefix("unix://").partition("@")[2]
        with pytest.raises(ConfigError, match=told("a wrong password for a Unix socket")):
            async with make_cache(f"unix://:wrong@{path}", **FAST):
                pass
        with pytest.raises(ConfigError, match=told("a database that the server does not have")):
            async with make_cache(url.replace("db=2", "db=99"), **FAST):
                pass
    async with make_cache(f"unix://:x@{tmp_path}/none.sock", **FAST) as cache:
        await until(lambda: cache.health().reason == told("a Unix socket that is not there"))
        assert await cache.get_or_set("a", cache.loader(1)) == 1
