"""get_or_set and refresh: one load at a time, whoever asks; what a loader raises or returns reaches the caller."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from nearcache import AsyncNearCache, LoadFailed, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, until

READERS = 50


class Source:
    """What is loaded from: counts the calls, and holds each back until it is let go."""

    def __init__(self, value: object = "loaded", *, open_at_once: bool = False) -> None:
        self.calls = 0
        self.value = value
        self.go = asyncio.Event()
        if open_at_once:
            self.go.set()

    async def load(self) -> object:
        """The value, when let go; an exception is raised."""
        self.calls += 1
        await self.go.wait()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


@pytest.fixture(params=["server", "memory"])
def cache(request: pytest.FixtureRequest, make_cache: MakeCache) -> Twin:
    """A cache on a server, and one without."""
    return make_cache("memory://" if request.param == "memory" else None)


async def test_a_missing_value_is_loaded_once_and_kept(cache: Twin) -> None:
    """The first `get_or_set` loads, the second one does not."""
    source = Source(7, open_at_once=True)
    assert await cache.get_or_set("a", cache.loader(source.load)) == 7
    assert await cache.get_or_set("a", cache.loader(source.load)) == 7
    assert await cache.get("a") == 7
    assert source.calls == 1


async def test_fifty_readers_share_one_load(cache: Twin) -> None:
    """Readers of one key at the same time wait for one load, and all get its value."""
    source = Source()
    readers = [asyncio.create_task(cache.get_or_set("a", cache.loader(source.load))) for _ in range(READERS)]
    await until(lambda: source.calls)
    source.go.set()
    assert await asyncio.gather(*readers) == ["loaded"] * READERS
    assert source.calls == 1


async def test_fifty_readers_share_one_failed_load(cache: Twin) -> None:
    """What the loader raises reaches its reader as it is, and the others as their own; the next read loads."""
    error = LookupError("no such user")
    source = Source(error)
    readers = [asyncio.create_task(cache.get_or_set("a", cache.loader(source.load))) for _ in range(READERS)]
    await until(lambda: cache.stats().loads and len(cache._core.flights) == 1)
    source.go.set()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert {(type(outcome), str(outcome)) for outcome in outcomes} == {(LookupError, "no such user")}
    assert len({id(outcome) for outcome in outcomes}) == READERS - source.calls + 1
    assert error in outcomes
    assert cache.stats().load_errors == source.calls
    assert await cache.get_or_set("a", cache.loader(8)) == 8


async def test_different_keys_load_at_the_same_time(cache: Twin) -> None:
    """A load of one key does not hold up another."""
    sources = [Source(number) for number in range(5)]
    readers = [
        asyncio.create_task(cache.get_or_set(f"key:{number}", cache.loader(source.load)))
        for number, source in enumerate(sources)
    ]
    await until(lambda: all(source.calls for source in sources))
    for source in sources:
        source.go.set()
    assert await asyncio.gather(*readers) == [0, 1, 2, 3, 4]


async def test_two_instances_share_one_load(make_cache: MakeCache) -> None:
    """While one instance loads, another waits for its value instead of loading."""
    async with make_cache() as one, make_cache() as other:
        source = Source()
        first = asyncio.create_task(one.get_or_set("a", one.loader(source.load)))
        await until(lambda: source.calls)
        second = asyncio.create_task(other.get_or_set("a", other.loader("its own")))
        await until(lambda: len(other._core.waiters))
        source.go.set()
        assert [await first, await second] == ["loaded", "loaded"]
        assert other.stats().loads == 0


async def test_a_follower_does_not_wait_for_ever(make_cache: MakeCache) -> None:
    """After wait_timeout another instance loads by itself, without filling."""
    async with make_cache() as one, make_cache() as other:
        source = Source()
        first = asyncio.create_task(one.get_or_set("a", one.loader(source.load)))
        await until(lambda: source.calls)
        assert await other.get_or_set("a", other.loader("its own"), wait_timeout=0.1) == "its own"
        source.go.set()
        assert await first == "loaded"
        assert await one.get("a") == "loaded"
        # It was made before what ``other`` has returned: there, it is loaded once more.
        assert await other.get("a") is None


async def test_a_follower_in_the_same_process_does_not_wait_for_ever(cache: Twin) -> None:
    """After wait_timeout a reader that joined a load in its own process loads by itself."""
    source = Source()
    first = asyncio.create_task(cache.get_or_set("a", cache.loader(source.load)))
    await until(lambda: source.calls)
    assert await cache.get_or_set("a", cache.loader("its own"), wait_timeout=0.1) == "its own"
    source.go.set()
    assert await first == "loaded"


async def test_a_lease_ends_by_itself(make_cache: MakeCache) -> None:
    """When an instance does not come back from its load, another may load and fill after `lease` seconds."""
    async with make_cache() as one, make_cache() as other:
        source = Source("late")
        first = asyncio.create_task(one.get_or_set("a", one.loader(source.load), lease=0.2))
        await until(lambda: source.calls)
        assert await other.get_or_set("a", other.loader("new"), wait_timeout=20) == "new"
        source.go.set()
        assert await first == "late"
        await until(lambda: other.peek("a") == "new")
        assert await other.get("a") == "new"
        assert await one.get("a") is None, "it was made before what this instance has returned"
        assert one.stats().fills_refused >= 1


async def test_refresh_loads_though_there_is_a_value(cache: Twin) -> None:
    """`refresh` loads, returns and keeps the new value."""
    await cache.set("a", "old")
    assert await cache.refresh("a", cache.loader("new")) == "new"
    assert await cache.get("a") == "new"


async def test_refresh_replaces_the_value_in_redis(make_cache: MakeCache) -> None:
    """Another instance that has to ask Redis sees what `refresh` loaded."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", "old")
        await one.refresh("a", one.loader("new"))
        assert await other.get("a") == "new"


async def test_refresh_of_what_fails_keeps_the_old_value(cache: Twin) -> None:
    """When the loader of `refresh` raises, the caller is told, and the value stays."""
    await cache.set("a", "old")
    with pytest.raises(ZeroDivisionError):
        await cache.refresh("a", cache.loader(lambda: 1 / 0))
    assert await cache.get("a") == "old"


@pytest.mark.parametrize("error", [KeyError("x"), ConnectionError("x"), ExceptionGroup("x", [OSError()])])
async def test_what_a_loader_raises_is_raised(cache: Twin, error: Exception) -> None:
    """Any Exception of a loader reaches the caller as it is."""

    def fail() -> object:
        raise error

    with pytest.raises(type(error)) as caught:
        await cache.get_or_set("a", cache.loader(fail))
    assert caught.value is error
    assert cache.stats().load_errors == 1


def test_a_plain_loader_may_raise_stop_iteration(server: EmbeddedServer, namespace: str) -> None:
    """StopIteration reaches the caller too, though it would mean something else inside a coroutine."""
    with NearCache.from_url(server.url, namespace=namespace) as cache, pytest.raises(StopIteration, match="the end"):
        cache.get_or_set("a", lambda: next(iter(_ends())))


def _ends() -> Any:
    class Ending:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> object:
            raise StopIteration("the end")

    return Ending()


async def test_a_write_during_a_load_wins(make_cache: MakeCache) -> None:
    """A value that was loaded while somebody set the key is its reader's alone."""
    async with make_cache() as one, make_cache() as other:
        source = Source("old row")
        reader = asyncio.create_task(one.get_or_set("a", one.loader(source.load)))
        await until(lambda: source.calls)
        await other.set("a", "new row")
        source.go.set()
        assert await reader == "old row"
        assert await other.get("a") == "new row"
        # The set came before the load's end, and nothing tells that its value is the newer one: it is loaded once more.
        assert await one.get_or_set("a", one.loader("newest row")) == "newest row"


@pytest.mark.parametrize("how", ["delete", "clear", "invalidate_tags"])
async def test_a_removal_during_a_load_wins(cache: Twin, how: str) -> None:
    """What was loaded before a delete, clear or invalidation of its tag is not kept."""
    source = Source("old row")
    reader = asyncio.create_task(cache.get_or_set("a", cache.loader(source.load), tags=["rows"]))
    await until(lambda: source.calls)
    await {"delete": cache.delete, "clear": cache.clear, "invalidate_tags": cache.invalidate_tags}[how](
        *{"delete": ["a"], "clear": [], "invalidate_tags": ["rows"]}[how]
    )
    source.go.set()
    assert await reader == "old row"
    assert await cache.get("a") is None


async def test_a_reader_after_a_write_does_not_join_an_older_load(cache: Twin) -> None:
    """A load that began before a delete answers nobody who came after it."""
    source = Source("old row")
    reader = asyncio.create_task(cache.get_or_set("a", cache.loader(source.load)))
    await until(lambda: source.calls)
    await cache.delete("a")
    assert await cache.get_or_set("a", cache.loader("new row")) == "new row"
    source.go.set()
    assert await reader == "old row"
    assert await cache.get("a") != "old row"


async def test_what_cannot_be_stored_is_returned_all_the_same(cache: Twin) -> None:
    """A loaded value that can't be encoded reaches the caller uncached, with an event that says why."""
    heard = Heard(cache)
    value = object()
    assert await cache.get_or_set("a", cache.loader(value)) is value
    (event,) = heard.of(LoadFailed)
    assert event.key == "a"
    assert "object" in event.reason
    assert await cache.get("a") is None


async def test_what_is_too_large_is_returned_all_the_same(make_cache: MakeCache) -> None:
    """The same for a loaded value over max_value_bytes."""
    async with make_cache(max_value_bytes=100) as cache:
        heard = Heard(cache)
        assert await cache.get_or_set("a", cache.loader("x" * 200)) == "x" * 200
        (event,) = heard.of(LoadFailed)
        assert "max_value_bytes=100" in event.reason
        assert await cache.get("a") is None


@pytest.mark.parametrize("option", ["condition", "ttl"])
async def test_an_option_that_raises_does_not_cost_the_value(cache: Twin, option: str) -> None:
    """When a condition or a ttl function fails on a loaded value, the caller gets it uncached, with an event."""
    heard = Heard(cache)
    assert await cache.get_or_set("a", cache.loader(7), **{option: lambda _: 1 / 0}) == 7
    (event,) = heard.of(LoadFailed)
    assert "division by zero" in event.reason
    assert await cache.get("a") is None
    assert await cache.get_or_set("a", cache.loader(8), wait_timeout=30) == 8
    assert await cache.get("a") == 8


def test_a_loader_that_asks_for_its_own_key_runs_through(server: EmbeddedServer, namespace: str) -> None:
    """No deadlock: the inner call loads without caching, and an event says so."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        heard = Heard(cache)
        assert cache.get_or_set("a", lambda: cache.get_or_set("a", lambda: "inner") + ", outer") == "inner, outer"
        assert [event.key for event in heard.of(LoadFailed)] == ["a"]
        assert cache.get("a") is None, "the inner value was returned after the outer load began"


@pytest.mark.parametrize(("outer", "inner"), [("get_or_set", "refresh"), ("refresh", "get_or_set")])
def test_a_loader_that_refreshes_its_own_key_runs_through(
    server: EmbeddedServer, namespace: str, outer: str, inner: str
) -> None:
    """get_or_set and refresh of one key nested in each other do not wait for their own lease."""
    with NearCache.from_url(server.url, namespace=namespace, lease=60) as cache:
        nested = getattr(cache, inner)
        assert getattr(cache, outer)("a", lambda: nested("a", lambda: "inner") + ", outer") == "inner, outer"


async def test_a_loader_that_awaits_its_own_key_runs_through(server: EmbeddedServer, namespace: str) -> None:
    """The same for asyncio."""
    async with AsyncNearCache.from_url(server.url, namespace=namespace) as cache:
        heard = Heard(cache)

        async def inner() -> str:
            return "inner"

        async def outer() -> str:
            return await cache.get_or_set("a", inner) + ", outer"

        assert await cache.get_or_set("a", outer) == "inner, outer"
        assert [event.key for event in heard.of(LoadFailed)] == ["a"]


def test_a_plain_loader_runs_in_the_caller_s_thread(server: EmbeddedServer, namespace: str) -> None:
    """No pool thread comes between: thread-local state is there."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        assert cache.get_or_set("a", threading.get_ident) == threading.get_ident()


async def test_a_cancelled_reader_hands_its_load_over(server: EmbeddedServer, namespace: str) -> None:
    """When the task that loads is cancelled, one of those that wait loads instead."""
    async with AsyncNearCache.from_url(server.url, namespace=namespace) as cache:
        source = Source()
        leader = asyncio.create_task(cache.get_or_set("a", source.load))
        await until(lambda: source.calls == 1)
        follower = asyncio.create_task(cache.get_or_set("a", source.load))
        await asyncio.sleep(0)
        leader.cancel()
        await until(lambda: source.calls == 2)
        source.go.set()
        assert await follower == "loaded"
        assert leader.cancelled()


def test_keyboard_interrupt_goes_through(server: EmbeddedServer, namespace: str) -> None:
    """What is no Exception is raised as it is, and the lease is given back at once."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:

        def interrupted() -> object:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.get_or_set("a", interrupted)
        assert cache.get_or_set("a", lambda: 1, wait_timeout=30) == 1
        assert cache.get("a") == 1
