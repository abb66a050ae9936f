"""Findings at run time: health().reasons has what a cache can tell by itself, and the log has each kind once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nearcache import NearCacheWarning
from nearcache.findings import KINDS
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import redis_of, until

FAST: dict[str, Any] = {"reconnect_max": 0.05, "redis_timeout": 0.2, "max_staleness": 0.5}
pytestmark = pytest.mark.filterwarnings("ignore::nearcache.NearCacheWarning")


def kinds(cache: Twin) -> list[str]:
    """What health tells."""
    reasons = cache.health().reasons
    for finding in reasons:
        assert finding.kind in KINDS
        assert finding.detail
        assert finding.todo == KINDS[finding.kind].todo
        assert finding.anchor.endswith(f"#{finding.kind}")
    return [finding.kind for finding in reasons]


def user_of(server: EmbeddedServer, *rules: str) -> str:
    """A user with these rules; its URL."""
    with redis_of(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
    return f"redis://app:pw@{HOST}:{server.port}/0"


async def test_nothing_is_wrong(make_cache: MakeCache) -> None:
    """Neither before nor after the first use, nor after close."""
    cache = make_cache()
    assert kinds(cache) == []
    async with cache:
        await cache.set("a", 1)
        assert kinds(cache) == []
    assert kinds(cache) == []
    assert kinds(make_cache("memory://")) == []


async def test_info_is_denied(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """L1 works, and is dropped at each reconnect."""
    async with make_cache(user_of(fresh_server, "~*", "&*", "+@all", "-info"), **FAST) as cache:
        await until(lambda: cache.healthy)
        assert kinds(cache) == ["no-info"]


async def test_a_right_is_missing(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """It is named."""
    cache = make_cache(user_of(fresh_server, "~*", "&*", "+@all", "-hincrby"), **FAST)
    await cache.get("a")
    await until(lambda: "rights" in kinds(cache))


async def test_resp2(make_cache: MakeCache) -> None:
    """L1 stays off."""
    cache = make_cache()
    cache = make_cache(f"{cache.url}?protocol=2", **FAST)
    await cache.get("a")
    await until(lambda: kinds(cache) == ["resp2"])


async def test_no_server(make_cache: MakeCache) -> None:
    """It is unreachable."""
    cache = make_cache(f"redis://{HOST}:{free_port()}/0", **FAST)
    await cache.get("a")
    await until(lambda: kinds(cache) == ["unreachable"])


async def test_the_default_namespace(make_cache: MakeCache) -> None:
    """On a server that others may use."""
    assert kinds(make_cache(namespace="nearcache")) == ["default-namespace"]
    assert kinds(make_cache("memory://", namespace="nearcache")) == []


async def test_an_l1_that_churns(make_cache: MakeCache, caplog: pytest.LogCaptureFixture) -> None:
    """Told once in the log, with what to do; an L1 that is large enough is no finding."""
    async with make_cache(l1_max_entries=2) as cache:
        for _ in range(4):
            for number in range(4):
                await cache.get_or_set(f"k{number}", cache.loader(number))
        with caplog.at_level(logging.INFO, "nearcache"):
            assert kinds(cache) == ["l1-churn"]
            assert kinds(cache) == ["l1-churn"]
    (line,) = [record.getMessage() for record in caplog.records if "l1-churn" in record.getMessage()]
    assert "raise l1_max_entries" in line
    assert "docs/operations.md#l1-churn" in line


async def test_values_that_are_never_stored(make_cache: MakeCache) -> None:
    """A loader of values that the codec does not carry."""
    async with make_cache() as cache:
        with pytest.warns(NearCacheWarning):
            await cache.get_or_set("a", cache.loader(object()))
        assert kinds(cache) == ["never-stored"]
