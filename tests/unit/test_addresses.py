"""URLs and clients of the user: what `cache.url` says, what is refused and how, and that no error holds a password."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio

from nearcache import AsyncNearCache, ConfigError, NearCache
from tests.support.cases import each

SECRET = "s3cret-pa55"
BOTH: tuple[Any, ...] = (NearCache, AsyncNearCache)


@each("kind", BOTH)
@each(
    "url, shown",
    [
        ("redis://h", "redis://h"),
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://h:1?db=3", "redis://h:1/3"),
        ("redis://h:1/2?db=3", "redis://h:1/3"),
        ("redis://h:1/?db=3&protocol=3", "redis://h:1/3"),
        (f"rediss://u:{SECRET}@[::1]:7/1?db=2", "rediss://[::1]:7/2"),
        (f"unix://u:{SECRET}@/tmp/a.sock?db=3", "unix:///tmp/a.sock?db=3"),
        ("unix:///tmp/a.sock", "unix:///tmp/a.sock"),
        ("redis://h:1/0?max_connections=5&timeout=3", "redis://h:1/0"),
        ("redis+sentinel://h/main", "redis+sentinel://h:26379/main/0"),
        (f"redis+sentinel://u:{SECRET}@h,[::1]:7/a%20b/3", "redis+sentinel://h:26379,[::1]:7/a%20b/3"),
        (f"rediss+sentinel://h:1,i:2/main/1?db=2&sentinel_password={SECRET}", "rediss+sentinel://h:1,i:2/main/2"),
    ],
)
def test_the_url_that_is_shown_leads_to_the_same_data(kind: Any, url: str, shown: str) -> None:
    """To the database, too; options of a pool are not ours, and are no mistake."""
    cache = kind.from_url(url)
    assert cache.url == shown
    again = kind.from_url(cache.url)
    assert again.url == shown
    assert database(again) == database(cache)


def database(cache: Any) -> Any:
    """What a cache's connections will SELECT."""
    endpoint = cache._backend.remote.transport._endpoint
    return endpoint.arguments.get("db") or 0


@each(
    "arguments, shown",
    [
        ({"unix_socket_path": "/tmp/a b.sock", "db": 4}, "unix:///tmp/a%20b.sock?db=4"),
        ({"host": "::1", "ssl": True}, "rediss://[::1]:6379/0"),
        ({"host": "h", "port": 3, "db": 1, "password": SECRET, "username": "u"}, "redis://h:3/1"),
        ({}, "redis://localhost:6379/0"),
    ],
)
@each("kind, client", [(NearCache, redis.Redis), (AsyncNearCache, redis.asyncio.Redis)])
def test_the_url_of_a_client(kind: Any, client: Any, arguments: Any, shown: str) -> None:
    """It leads there, too."""
    cache = kind(client(**arguments))
    assert cache.url == shown
    assert database(kind.from_url(cache.url)) == database(cache)


@each("kind", BOTH)
@each(
    "url",
    [
        f"redis://u:{SECRET}/x@h:1/0",
        f"redis://u:{SECRET}/@h:1/0",
        f"redis://u:{SECRET}#x@h:1/0",
        f"redis://u:{SECRET}?x@h:1/0",
        f"redis://:{SECRET}@h:port/0",
        f"redis://:{SECRET}@h:99999/0",
        f"redis://:{SECRET}@[h/0",
        f"redis://:{SECRET}@h/x",
        f"redis://:{SECRET}@h/0?db=x",
        f"redis://:{SECRET}@h/0?socket_timeout={SECRET}",
        f"redis://:{SECRET}@h/0?unknown={SECRET}",
        f"rediss://:{SECRET}@h/0?ssl_min_version={SECRET}",
        f"http://:{SECRET}@h/0",
    ],
)
def test_no_error_leads_to_a_password(kind: Any, url: str) -> None:
    """Neither its text nor what it was raised from, which trackers of errors send along."""
    with pytest.raises(ConfigError) as caught:
        kind.from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__context__ or error.__cause__


@each(
    "kind, client",
    [
        (NearCache, fakeredis.FakeRedis),
        (NearCache, fakeredis.FakeStrictRedis),
        (AsyncNearCache, fakeredis.FakeAsyncRedis),
    ],
)
def test_a_fake_client_is_refused(kind: Any, client: Any) -> None:
    """It has no connection that could be lent; the message names what to take."""
    with pytest.raises(ConfigError, match=r"in tests take nearcache\.testing\.FakeServer"):
        kind(client())


def test_a_connection_class_of_the_user_is_taken() -> None:
    """As long as it reads a socket as redis-py's does."""

    class Connection(redis.Connection):
        def connect(self) -> None:
            super().connect()  # type: ignore[no-untyped-call]

    pool = redis.ConnectionPool(connection_class=Connection, host="h", max_connections=3)
    assert NearCache(redis.Redis(connection_pool=pool)).url == "redis://h:6379/0"
