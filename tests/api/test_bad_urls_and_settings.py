"""Bad input when a cache is made: each its own clear error, whose text names the value and the way out."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.cluster

from nearcache import AsyncNearCache, ConfigError, NearCache
from tests.support.cases import each

CLASSES = [NearCache, AsyncNearCache]
SECRET = "s3cret"

SCHEMES = ["redis", "rediss", "unix", "http", "redis+sentinel", "redis+cluster", "REDIS"]
WITHOUT_HOST = [
    f"u:{SECRET}",
    f":{SECRET}",
    f"u:{SECRET}/0",
    f"u:1/{SECRET}/0/0",
    f"u:{SECRET}:6379/0",
    f"u:{SECRET}?db=1",
    f"u:{SECRET}#1",
    f"[u:{SECRET}",
    f"u:{SECRET},h:1",
    f"h:1,u:{SECRET}",
]
"""What stands behind the scheme where the host was forgotten, or the password unquoted."""

BAD_URLS = [
    ("", "must begin with one of redis://"),
    ("localhost:6379", "localhost:6379: the URL must begin with one of redis://, rediss://, unix://, memory://"),
    ("http://localhost", "http://localhost: the URL must begin with one of"),
    ("redis://", "the host is missing, as in redis://localhost:6379/0"),
    ("redis:///0", "the host is missing"),
    ("redis://localhost:zero/0", "redis://...: the port must be a number from 1 to 65535"),
    ("redis://localhost:0/0", "the port must be a number from 1 to 65535"),
    ("redis://local host", "the host is missing"),
    ("rediss://", "the host is missing, as in rediss://localhost:6379/0"),
    ("redis://localhost:65536/0", "localhost:65536/0: the port must be a number from 1 to 65535"),
    ("redis://localhost/first", "localhost/...: what follows the host must be the number of a database, as in /0"),
    ("redis://localhost/0/1", "must be the number of a database"),
    ("redis://localhost/-1", "must be the number of a database"),
    ("redis://localhost/0?db=first", "'db'"),
    ("redis://localhost/0?tracing=yes", "tracing"),
    ("redis://localhost/0?client_name=a@b", "an @ stands behind ? or #: special characters must be quoted"),
    ("unix://", "a unix URL needs a path and no host, as in unix:///"),
    ("unix://run/redis.sock", "unix://run/...: a unix URL needs a path and no host"),
    ("memory://somewhere", "nothing may follow memory:// in a URL"),
    ("embedded://somewhere", "nothing may follow embedded://"),
    ("redis+sentinel://", "the URL must be like redis+sentinel://host:26379,host:26379/service/0"),
    ("redis+sentinel://one:26379", "the URL must be like"),
    ("redis+sentinel://one:26379/", "the URL must be like"),
    ("redis+sentinel://one:26379,/service", "the URL must be like"),
    ("redis+sentinel://one,two:x/service", "the URL must be like"),
    ("redis+sentinel://one,two:0/service/0", "the port must be a number from 1 to 65535"),
    ("redis+sentinel://one,two:65536/service/0", "one:26379,two:65536/service/0: the port must be a number"),
    ("redis+sentinel://one/service/first", "the URL must be like"),
    ("redis+sentinel://one/service/0?db=first", "must be the number of a database"),
    ("redis+sentinel://one/service/0?tracing=yes", "one:26379/service/0: redis-py refuses these connection options"),
    (
        "redis+cluster://one:7000,two:7000/3",
        "redis+cluster://one:7000,two:7000/3: a cluster has one database, which is number 0",
    ),
    ("redis+cluster://one:7000,two:70000", "redis+cluster://one:7000,two:70000: the port must be a number"),
    ("redis+cluster://one:7000,two:port", "redis+cluster://...: the port must be a number"),
    ("redis+cluster://one:7000,", "redis+cluster://one:7000,: the host is missing, as in redis+cluster://localhost"),
    ("rediss+cluster://one?tracing=yes", "rediss+cluster://one: redis-py refuses these connection options"),
    (None, "a URL is a string, not a NoneType"),
    (b"redis://localhost", "a URL is a string, not a bytes"),
    (redis.Redis(), "for a client of yours use NearCache"),
]


@each("kind", CLASSES)
@each("url, words", BAD_URLS)
def test_a_wrong_url(kind: Any, url: Any, words: str) -> None:
    """A URL that can never work is refused when the cache is made, not when it is used."""
    with pytest.raises(ConfigError) as caught:
        kind.from_url(url)
    assert words in str(caught.value)


@each("kind", CLASSES)
@each(
    "url",
    [
        f"redis://:{SECRET}@localhost:zero/0",
        f"redis://{SECRET}:{SECRET}@localhost/first",
        f"redis://:{SECRET}@/0",
        f"redis://:{SECRET}@host@localhost:0",
        f"redis://localhost/0?password={SECRET}&tracing=yes",
        f"redis://localhost/0?tracing={SECRET}",
        f"redis://localhost/0?db={SECRET}",
        f"redis://localhost/0?password=x@{SECRET}&tracing=yes",
        f"redis://:x@localhost/0?password={SECRET}@{SECRET}&tracing=yes",
        f"http://:{SECRET}@localhost",
        f"redis://:{SECRET}#{SECRET}@localhost/0",
        f"redis://:{SECRET}?{SECRET}@localhost/0",
        f"redis://:{SECRET}/{SECRET}@localhost/0",
        f"redis+sentinel://:{SECRET}/{SECRET}@localhost/service/0",
        f"redis+sentinel://:{SECRET}@one,two/service/0?sentinel_password={SECRET}&tracing=yes",
        f"redis+sentinel://:{SECRET}@one,two/service/0?sentinel_password={SECRET}@{SECRET}&tracing=yes",
        f"redis+sentinel://:{SECRET}@one,two",
        *(f"{scheme}://{text}" for scheme in SCHEMES for text in WITHOUT_HOST),
        f"memory://{SECRET}",
        f"null://u:{SECRET}",
        f"embedded://{SECRET}",
        f"redis:/u:{SECRET}",
        f"u:{SECRET}",
        SECRET,
    ],
)
def test_no_secret_in_the_message(kind: Any, url: str) -> None:
    """What a wrong URL has as password or options is not in the error, nor in the one that it came from."""
    with pytest.raises(ConfigError) as caught:
        kind.from_url(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def plain_client() -> Any:
    """A client of redis-py for threads."""
    return redis.Redis()


def async_client() -> Any:
    """A client of redis-py for asyncio."""
    return redis.asyncio.Redis()


def cluster_client() -> Any:
    """A client for a cluster, without one."""
    return redis.cluster.RedisCluster.__new__(redis.cluster.RedisCluster)


def async_cluster_client() -> Any:
    """The same for asyncio."""
    return redis.asyncio.RedisCluster.__new__(redis.asyncio.RedisCluster)


def foreign_client() -> Any:
    """A client of another library that looks like redis-py's."""
    return type("Valkey", (), {"__module__": "valkey.client", "connection_pool": None})()


@pytest.mark.parametrize(
    ("kind", "client", "words"),
    [
        (NearCache, async_client, "NearCache needs a redis.Redis, got redis.asyncio.client.Redis"),
        (AsyncNearCache, plain_client, "AsyncNearCache needs a redis.asyncio.Redis, got redis.client.Redis"),
        (AsyncNearCache, cluster_client, "AsyncNearCache needs a redis.asyncio.RedisCluster, got redis.cluster."),
        (NearCache, async_cluster_client, "NearCache needs a redis.RedisCluster, got redis.asyncio.cluster."),
        (NearCache, foreign_client, "valkey.client.Valkey is no redis-py client for this"),
        (AsyncNearCache, foreign_client, "valkey.client.Valkey is no redis-py client for this"),
        (NearCache, lambda: "redis://localhost", "builtins.str is no redis-py client for this; pass a redis.Redis or"),
        (AsyncNearCache, lambda: None, "NoneType is no redis-py client for this; pass a redis.asyncio.Redis"),
    ],
)
def test_a_wrong_client(kind: Any, client: Callable[[], Any], words: str) -> None:
    """A client of another library, of the other kind or of a cluster is refused by name."""
    with pytest.raises(ConfigError) as caught:
        kind(client())
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_unknown_setting(kind: Any) -> None:
    """A misspelt setting is told, with the one that may have been meant."""
    with pytest.raises(ConfigError, match="unknown setting 'max_stalenes'; did you mean 'max_staleness'"):
        kind.from_url("memory://", max_stalenes=1)
    with pytest.raises(ConfigError, match=r"unknown setting 'zzz'; known are: .*namespace"):
        kind.from_url("memory://", zzz=1)


@each("kind", CLASSES)
@each("value", [-1, 0, math.inf, math.nan, True, "60", timedelta(0), 10**400])
@each("name", ["ttl", "l1_ttl", "max_staleness", "lease", "redis_timeout", "reconnect_max"])
def test_a_wrong_duration_in_the_settings(kind: Any, name: str, value: Any) -> None:
    """A duration that is negative, zero, not finite, no number or a bool is refused with its name and value."""
    with pytest.raises(ConfigError) as caught:
        kind.from_url("memory://", **{name: value})
    assert f"{name}={value!r}: must be " in str(caught.value)


@pytest.mark.parametrize("kind", CLASSES)
def test_clashing_settings(kind: Any) -> None:
    """Two settings that contradict each other are both named."""
    with pytest.raises(ConfigError, match=r"l1_ttl=60\.0, ttl=30\.0: .*must be at most ttl"):
        kind.from_url("memory://", ttl=30, l1_ttl=60)
