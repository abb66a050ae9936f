"""NearCache.shared: one cache of a process for class, URL and namespace; and null://, which keeps nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import AsyncNearCache, CacheClosed, ConfigError, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache, SyncTwin, Twin

CLASSES: dict[str, Any] = {"sync": NearCache, "aio": AsyncNearCache}


@pytest.fixture(params=CLASSES)
def share(
    request: pytest.FixtureRequest, server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> Callable[..., Twin]:
    """Asks for the shared cache of a class, on the server."""

    def ask(**settings: Any) -> Twin:
        cache = CLASSES[request.param].shared(server.url, **{"namespace": namespace, **settings})
        return SyncTwin(cache, runner.get_loop()) if request.param == "sync" else Twin(cache)

    return ask


async def test_there_is_one(share: Callable[..., Twin], server: EmbeddedServer, namespace: str) -> None:
    """For class, URL and namespace; each other one has its own."""
    cache = share(ttl=60).cache
    assert share(ttl=60).cache is cache
    assert share(namespace=f"{namespace}-other").cache is not cache
    assert type(cache).shared("memory://", namespace=namespace) is not cache
    other = NearCache if type(cache) is AsyncNearCache else AsyncNearCache
    assert type(other.shared(server.url, namespace=namespace, ttl=60)) is other


async def test_other_settings_are_an_error(share: Callable[..., Twin]) -> None:
    """It names them; what was made stays."""
    cache = share(ttl=60, copy="none").cache
    with pytest.raises(ConfigError, match=r"another ttl, copy"):
        share(ttl=61)
    with pytest.raises(ConfigError, match="another ttl"):
        share(copy="none")
    with pytest.raises(ConfigError, match="ttl=-1"):
        share(ttl=-1)
    assert share(ttl=60, copy="none").cache is cache


async def test_the_last_to_leave_closes_it(share: Callable[..., Twin]) -> None:
    """And not the first one."""
    one, other = share(), share()
    async with one:
        async with other:
            assert await other.set("a", 1)
        assert one.healthy
        assert one.peek("a") == 1
    assert not one.healthy
    assert one.health().bus == "closed"


@pytest.mark.parametrize("how", ["with", "close"])
async def test_the_next_use_opens_it_again(share: Callable[..., Twin], how: str) -> None:
    """After its last `with`, or a close, each word works, with an empty L1."""
    cache = share()
    words: list[Callable[[], Any]] = [
        lambda: cache.get("a"),
        lambda: cache.get_many(["a"]),
        lambda: cache.set("b", 1),
        lambda: cache.get_or_set("b", cache.loader(2)),
        cache.wait_healthy,
    ]
    assert await cache.set("a", 1)
    for word in words:
        if how == "with":
            async with share():
                assert await cache.get("a") == 1
        else:
            await type(cache).close(cache) if cache.mode == "aio" else cache.cache.close()
        assert cache.health().bus == "closed"
        assert cache.peek("a") is None
        await word()
        assert await cache.get("a") == 1
    assert await cache.wait_healthy()
    await cache.close()


async def test_one_that_is_not_shared_stays_closed(make_cache: MakeCache) -> None:
    """As ever."""
    async with make_cache() as cache:
        await cache.get("a")
    with pytest.raises(CacheClosed):
        await cache.get("a")


def test_threads_that_come_and_go(server: EmbeddedServer, namespace: str) -> None:
    """No `with` ever sees a closed cache, whoever leaves meanwhile."""
    wrong: list[object] = []

    def come_and_go() -> None:
        for number in range(15):
            try:
                with NearCache.shared(server.url, namespace=namespace) as cache:
                    if not cache.set("a", number) or cache.get("a") is None:
                        wrong.append((number, cache.health()))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert NearCache.shared(server.url, namespace=namespace).health().bus == "closed"


def test_a_child_has_its_own(server: EmbeddedServer, namespace: str) -> None:
    """Behind the same object; its `with` closes nothing of the parent's."""
    with NearCache.shared(server.url, namespace=namespace) as cache:
        assert cache.set("a", 1)
        child = os.fork()
        if not child:
            code = 1
            try:
                with NearCache.shared(server.url, namespace=namespace) as own:
                    code = 0 if own is cache and own.get("a") == 1 and own.set("b", 2) else 2
                code = code or (0 if own.health().bus == "closed" else 3)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.wait_healthy()
        assert cache.get("b") == 2


# --------------------------------------------------------------------------------------------------------------- null://


@pytest.fixture
def nothing(make_cache: MakeCache) -> Twin:
    """A cache that keeps nothing."""
    return make_cache("null://")


async def test_null_keeps_nothing(nothing: Twin) -> None:
    """Writes are acknowledged, reads miss, and all is well."""
    async with nothing as cache:
        assert await cache.set("a", 1) is True
        assert await cache.set_many({"a": 1, "b": 2}, tags=["t"]) is True
        assert await cache.get("a", "absent") == "absent"
        assert await cache.get_many(["a", "b"]) == {}
        assert await cache.delete("a") is True
        assert await cache.mark_stale("a") is True
        assert await cache.invalidate_tags("t") is True
        assert await cache.clear() is True
        assert await cache.add("a", 1) is True
        assert await cache.add("a", 1) is True
        assert await cache.touch("a", 5) is False
        assert await cache.delete_existing("a") is False
        assert await cache.incr("n", 2, initial=5) == 7
        assert await cache.incr("n", 2, initial=5) == 7
        with pytest.raises(KeyError):
            await cache.incr("n", initial=None)
        assert cache.peek("a") is None
        assert cache.healthy
        assert cache.health().status == "ok"
        assert cache.stats().l1_entries == 0
        assert cache.stats().fills_refused == 0


async def test_null_loads_each_time(nothing: Twin) -> None:
    """Whatever is allowed to be served stale; an error reaches its caller."""
    loads: list[int] = []

    async def load(number: int = 7) -> int:
        loads.append(number)
        if len(loads) > 3:
            raise LookupError("gone")
        return number

    stale = {"stale_while_revalidate": 60, "stale_if_error": 60}
    load_it = nothing.loader(load)
    assert [await nothing.get_or_set("a", load_it, **stale) for _ in range(2)] == [7, 7]
    cached = nothing.cached("b:{number}", early_refresh=0.5, stale_if_error=60)(load)
    assert await cached(8) == 8
    with pytest.raises(LookupError):
        await cached(8)
    assert loads == [7, 7, 8, 8]


def test_null_is_all_of_its_url() -> None:
    """As of memory://."""
    with pytest.raises(ConfigError, match="nothing may follow null://"):
        NearCache.from_url("null://host")
    with pytest.raises(ConfigError, match="null://"):
        NearCache.from_url("nil://")
