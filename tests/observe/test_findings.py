"""Findings at run time: health().reasons has what a cache can tell by itself, and the log has each kind once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from nearcache import NearCacheWarning, advice, advisor
from nearcache.findings import KINDS
from nearcache.protocol.names import Names
from nearcache.testing import FakeServer
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.cases import each
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


@pytest.fixture
def always_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Advisor looks after each heartbeat, and does not wait for many loads."""
    monkeypatch.setattr(advisor, "EVERY", 0.0)
    monkeypatch.setattr(advice, "LOADS", 20)
    monkeypatch.setattr(advice, "TURNED_DOWN", 20)


def advised(kind: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log that tell of a kind."""
    return [line for record in caplog.records if f"event='{kind}'" in (line := record.getMessage())]


async def test_the_advisor_logs_without_being_asked(
    make_cache: MakeCache, always_advised: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind once."""
    caplog.set_level(logging.INFO, "nearcache")
    async with make_cache(namespace="nearcache", **FAST) as cache:
        await until(lambda: advised("default-namespace", caplog))
        await asyncio.sleep(2 * FAST["max_staleness"] / 4)
        assert len(advised("default-namespace", caplog)) == 1
        assert kinds(cache) == ["default-namespace"]


async def test_an_evicted_counter(make_cache: MakeCache, namespace: str) -> None:
    """Twice on one connection: a server that came back empty loses it once, with the connection.

    The first time a heartbeat tells of it, the second time the message of a write.
    """
    async with make_cache(**FAST) as cache:
        for times in (1, 2):
            await asyncio.sleep(0.2)  # a counter that begins anew stands at the time, and so is ahead by more than ANEW
            with redis_of(cache.url) as client:
                client.delete(Names(namespace).counters)
            if times == 2:
                await cache.set("a", 1)
            await until(lambda times=times: cache.stats().flushes_by_reason.get("counter") == times)  # type: ignore[misc]
            assert ("evicting-policy" in kinds(cache)) == (times == 2)
            await until(lambda: cache.healthy)


@each("copy, found", [("auto", True), ("none", False)])
async def test_large_values_that_are_decoded_at_each_hit(
    make_cache: MakeCache, always_advised: None, copy: str, found: bool
) -> None:
    """Where copy='none' promises that nobody changes them, nothing is decoded."""
    async with make_cache(copy=copy, **FAST) as cache:
        await cache.set("large", [list(range(100)) for _ in range(200)])
        await cache.get("large")
        await until(lambda: cache.health().round_trip)
        if found:
            await until(lambda: kinds(cache) == ["large-values"])
            assert "'large'" in cache.health().reasons[0].detail
        else:
            await advisor.Advisor(cache.cache._core, cache.cache._troubles, cache.cache._log, shared=True).run()
            assert kinds(cache) == []


async def test_a_function_that_is_cheaper_to_load(make_cache: MakeCache, always_advised: None) -> None:
    """Each of its values is used once; one that takes long and is hit often is no finding."""
    async with make_cache(**FAST) as cache:
        for number in range(20):
            await cache.get_or_set(f"a{number}", cache.loader(number))
        await until(lambda: kinds(cache) == ["function-cost"])
        assert "was loaded 20 times" in cache.health().reasons[0].detail
    async with make_cache(**FAST) as cache:

        async def slow() -> int:
            await asyncio.sleep(0.02)
            return 1

        for number in range(20):
            for _ in range(50):
                await cache.get_or_set(f"b{number}", cache.loader(slow))
        await advisor.Advisor(cache.cache._core, cache.cache._troubles, cache.cache._log, shared=True).run()
        assert kinds(cache) == []


async def test_a_function_whose_values_are_turned_down(make_cache: MakeCache, always_advised: None) -> None:
    """All of them; where one is kept, it is as it should be."""
    async with make_cache(**FAST) as cache:
        for _ in range(20):
            await cache.get_or_set("a", cache.loader(None), negative_ttl=0)
        await until(lambda: "never-stored" in kinds(cache))
        (told,) = [one.detail for one in cache.health().reasons if one.kind == "never-stored"]
        assert "none of the 20 values" in told


async def test_batches_that_are_too_large(make_fake: MakeCache, fake: FakeServer) -> None:
    """Those time out, and single keys do not."""
    async with make_fake(namespace="shop", breaker_reset=0.01, redis_timeout=0.02) as cache:
        for times in (1, 2):
            with fake.hung(only={"read"}):
                assert await cache.get_many(["a", "b", "c"]) == {}

            async def answered() -> bool:
                await cache.get("d")
                return bool(cache.health().breaker == "closed")

            await until(answered)
            assert kinds(cache) == (["large-batches"] if times == 2 else [])
        assert "such as 3" in cache.health().reasons[0].detail


async def test_values_that_are_never_stored(make_cache: MakeCache) -> None:
    """A loader of values that the codec does not carry."""
    async with make_cache() as cache:
        with pytest.warns(NearCacheWarning):
            await cache.get_or_set("a", cache.loader(object()))
        assert kinds(cache) == ["never-stored"]
