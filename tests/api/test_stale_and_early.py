"""What serves past its end, and what is refreshed before: decided by the clock, so without a server and without a wait.

A smoke test of each promise on real servers is in test_every_setting_of_loads.
"""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import LoadFailed
from nearcache.testing import ManualClock
from tests.api.test_every_setting_of_loads import LONG, TTL, Counting
from tests.api.test_loading import Source
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, until


@pytest.fixture
def make_cache(clock: ManualClock, make_fake: MakeCache) -> MakeCache:
    """Makes caches on the fake server whose time is the clock's."""
    return make_fake


async def test_stale_while_revalidate_serves_at_once_and_refreshes_behind(
    make_cache: MakeCache, clock: ManualClock
) -> None:
    """A value past its ttl is served while a loader that hangs loads the next one; then that one is served."""
    async with make_cache(ttl=TTL, jitter=0, stale_while_revalidate=LONG) as cache:
        assert await cache.get_or_set("k", cache.loader(1), ttl=TTL) == 1
        clock.advance(TTL)
        source = Source(2)
        for _ in range(5):
            assert await cache.get_or_set("k", cache.loader(source.load), ttl=LONG) == 1
        await until(lambda: source.calls)
        assert cache.stats().stale_served == 5
        source.go.set()
        await until(lambda: cache.peek("k") == 2)
        assert source.calls == 1


async def test_stale_while_revalidate_has_an_end(make_cache: MakeCache, clock: ManualClock) -> None:
    """Beyond the window readers wait for the loader."""
    async with make_cache(ttl=TTL, jitter=0, stale_while_revalidate=0.01) as cache:
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        clock.advance(TTL + 0.01)
        assert await cache.get_or_set("k", cache.loader(2)) == 2
        assert cache.stats().stale_served == 0


async def test_stale_while_revalidate_of_what_another_instance_stored(
    make_cache: MakeCache, clock: ManualClock
) -> None:
    """Redis keeps a value for ttl and window: who has nothing in L1 serves it from there."""
    async with make_cache(ttl=TTL, jitter=0, stale_while_revalidate=LONG) as one, make_cache() as other:
        await one.set("k", 1)
        assert await other.get("k") == 1
        other.clear_local()
        clock.advance(TTL)
        source = Source(2)
        window: dict[str, Any] = {"stale_while_revalidate": LONG}
        assert await other.get_or_set("k", other.loader(source.load), **window) == 1
        assert await other.get("k") is None  # without a loader, only what is fresh
        await until(lambda: source.calls)
        source.go.set()
        await until(lambda: other.peek("k") == 2)


async def test_stale_while_revalidate_is_one_load_in_the_fleet(make_cache: MakeCache, clock: ManualClock) -> None:
    """Two instances find it stale at the same time; one of them loads, the other takes what comes of it."""
    async with make_cache(stale_while_revalidate=LONG) as one, make_cache(stale_while_revalidate=LONG) as other:
        await one.set("k", 1, ttl=TTL)
        assert await other.get("k") == 1
        clock.advance(TTL)
        source = Source(2)
        for cache in (one, other) * 3:
            assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        await until(lambda: source.calls)
        source.go.set()
        await until(lambda: one.peek("k") == 2)
        await until(lambda: other.peek("k") == 2)
        assert source.calls == 1


async def test_stale_while_revalidate_ends_with_an_invalidation(make_cache: MakeCache, clock: ManualClock) -> None:
    """What was deleted, or marked stale, is served stale by nobody."""
    async with make_cache(stale_while_revalidate=LONG) as one, make_cache(stale_while_revalidate=LONG) as other:
        for end in ("delete", "mark_stale"):
            await one.set("k", end, ttl=TTL)
            await until(lambda: other._core.tier.last_resort("k", away=True) is None)
            assert await other.get("k") == end
            clock.advance(TTL)
            assert await getattr(one, end)("k")
            await until(lambda: other._core.tier.last_resort("k", away=True) is None)
            assert await other.get_or_set("k", other.loader(3)) == 3
            assert await one.get_or_set("k", one.loader(4)) == 3


async def test_stale_if_error_serves_what_there_was(make_cache: MakeCache, clock: ManualClock) -> None:
    """A loader that fails is not heard of while an old value may serve; else its exception is the caller's."""
    async with make_cache(stale_if_error=LONG) as cache:
        load = Counting()
        assert await cache.get_or_set("k", cache.loader(load), ttl=TTL) == 1
        clock.advance(TTL)
        load.broken = True
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert cache.stats().stale_served == 1
        with pytest.raises(LookupError):
            await cache.get_or_set("other", cache.loader(load))


async def test_stale_if_error_serves_what_was_marked_stale(make_cache: MakeCache, clock: ManualClock) -> None:
    """`mark_stale` ends stale_while_revalidate and keeps stale_if_error: the next read loads, and falls back."""
    async with (
        make_cache(stale_if_error=LONG, stale_while_revalidate=LONG) as one,
        make_cache(stale_if_error=LONG) as b,
    ):
        await one.set("k", 1, ttl=LONG)
        assert await one.mark_stale("k")
        load = Counting()
        load.broken = True
        for cache in (one, b):
            assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert load.calls == 2
        load.broken = False
        assert await one.refresh("k", one.loader(load)) == 3


async def test_stale_if_error_serves_the_values_of_a_tag_that_was_made_stale(
    make_cache: MakeCache, clock: ManualClock
) -> None:
    """`invalidate_tags(stale=True)` is `mark_stale` for all that carry a tag: in this L1, in others, in Redis."""
    windows: dict[str, Any] = {"stale_if_error": LONG, "stale_while_revalidate": LONG}
    async with make_cache(**windows) as one, make_cache(**windows) as other, make_cache(**windows) as third:
        for key, tags in ({"a": ["t"], "b": ["t", "u"], "c": ["u"]}).items():
            await one.set(key, key, ttl=LONG, tags=tags)
            await until(lambda: other._core.invalidation.last >= one._core.invalidation.last)
            assert await other.get(key) == key
        assert await one.invalidate_tags("t", "unknown", stale=True) is True
        await until(lambda: other.peek("a") is None)
        load = Counting()
        load.broken = True
        for cache in (one, other, third):
            assert await cache.get_many(["a", "b", "c"]) == {"c": "c"}
            for key in "ab":
                assert await cache.get_or_set(key, cache.loader(load)) == key
        assert load.calls == 6, "each of them tries to load"
        load.broken = False
        assert await one.refresh("a", one.loader("new"), tags=["t"]) == "new"
        assert await third.get("a") == "new"
        await one.invalidate_tags("u")
        load.broken = True
        await until(lambda: other.peek("c") is None)
        for cache in (one, other, third):
            with pytest.raises(LookupError):
                await cache.get_or_set("b", cache.loader(load))


async def test_stale_backoff_is_a_pause_after_a_failed_load(make_cache: MakeCache, clock: ManualClock) -> None:
    """While a stale value serves, a loader that failed is left alone for so long; a write of the key ends that."""
    async with make_cache(stale_if_error=LONG, stale_backoff=LONG) as cache, make_cache() as other:
        load = Counting()
        await cache.get_or_set("k", cache.loader(load), ttl=TTL)
        clock.advance(TTL)
        load.broken = True
        for _ in range(5):
            assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert load.calls == 2
        await other.mark_stale("k")
        await until(lambda: cache._core.tier.last_resort("k", away=True) is None)
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert load.calls == 3


async def test_stale_backoff_ends(make_cache: MakeCache, clock: ManualClock) -> None:
    """Then the loader is tried again."""
    async with make_cache(stale_if_error=LONG, stale_backoff=0.5) as cache:
        load = Counting()
        await cache.get_or_set("k", cache.loader(load), ttl=TTL)
        clock.advance(TTL)
        load.broken = True
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        load.broken = False
        clock.advance(0.49)
        assert await cache.get_or_set("k", cache.loader(load)) == 1
        clock.advance(0.01)
        assert await cache.get_or_set("k", cache.loader(load)) == 3


async def test_stale_backoff_holds_for_refreshes_behind(make_cache: MakeCache, clock: ManualClock) -> None:
    """A refresh that fails is told once, and not tried again at each read."""
    async with make_cache(stale_while_revalidate=LONG, stale_backoff=LONG) as cache:
        heard = Heard(cache)
        load = Counting()
        await cache.get_or_set("k", cache.loader(load), ttl=TTL)
        clock.advance(TTL)
        load.broken = True
        await cache.get_or_set("k", cache.loader(load))
        await until(lambda: heard.of(LoadFailed))
        for _ in range(5):
            assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert load.calls == 2
        (failed,) = heard.of(LoadFailed)
        assert failed.reason.startswith("a refresh in the background: the loader raised LookupError")
        assert isinstance(failed.error, LookupError)
        assert "LookupError" in str(cache.health().load_error)


async def test_early_refresh_loads_before_the_end(make_cache: MakeCache, clock: ManualClock) -> None:
    """The first reader after that part of the ttl begins a load behind; nobody waits, and the fresh value stays."""
    async with make_cache(ttl=1, jitter=0, early_refresh=0.5) as cache:
        assert await cache.get_or_set("k", cache.loader(1)) == 1
        source = Source(2)
        clock.advance(0.49)
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        assert not cache._core.loads.refreshing
        clock.advance(0.01)
        assert await cache.get_or_set("k", cache.loader(source.load)) == 1
        await until(lambda: source.calls)
        assert await cache.get("k") == 1
        assert cache.peek("k") == 1
        source.go.set()
        await until(lambda: cache.peek("k") == 2)
        assert source.calls == 1
        assert cache.stats().stale_served == 0


async def test_xfetch_beta_refreshes_by_chance(make_cache: MakeCache, clock: ManualClock) -> None:
    """The longer a load takes for its ttl, the likelier it is made anew before the end; without it, not at all."""

    def slow() -> str:
        clock.advance(0.5)
        return "slow"

    async with make_cache(ttl=20, jitter=0, xfetch_beta=100) as cache:
        assert await cache.get_or_set("k", cache.loader(slow)) == "slow"
        load = Counting()

        async def refreshed() -> bool:
            await cache.get_or_set("k", cache.loader(load))
            return load.calls > 0

        await until(refreshed)  # the odds of each read are e^(-20/50)
    async with make_cache(ttl=20, jitter=0) as cache:
        assert await cache.get_or_set("other", cache.loader(slow)) == "slow"
        for _ in range(100):
            await cache.get_or_set("other", cache.loader(load))
        assert load.calls == 1
