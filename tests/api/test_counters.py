"""stats(): each field counts what it says, right, on both classes."""

from __future__ import annotations

import dataclasses

import pytest

from nearcache import Stats
from nearcache.testing import FaultProxy
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import channel_name, redis_of, until, value_name


def counted(cache: Twin) -> dict[str, int]:
    """The fields that are not 0."""
    return {name: value for name, value in dataclasses.asdict(cache.stats()).items() if value}


async def test_a_new_cache_has_counted_nothing(make_cache: MakeCache) -> None:
    """Every counter begins at 0; the snapshot is frozen, and does not change."""
    cache = make_cache("memory://")
    before = cache.stats()
    await cache.set("a", 1)
    assert before == Stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.loads = 1


async def test_reads_are_counted_by_who_answers(make_cache: MakeCache) -> None:
    """l1_hits, l2_hits and misses add up to the reads; `peek` is none."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1)
        await other.get("a")  # L2
        await other.get("a")  # L1
        await other.get_many(["a", "b"])  # L1, miss
        await other.get("c")  # miss
        await other.get_or_set("a", other.loader(2))  # L1
        other.peek("a")
        other.peek("d")
        stats = other.stats()
        assert (stats.l1_hits, stats.l2_hits, stats.misses, stats.loads) == (3, 1, 2, 0)


async def test_a_load_is_a_miss_and_a_load(make_cache: MakeCache) -> None:
    """`get_or_set` counts one miss and one load when neither tier has the value; load_errors those that raised."""
    async with make_cache() as cache:
        await cache.get_or_set("a", cache.loader(1))
        some = {"l1_bytes": 0, "load_seconds": 0}
        assert 0 < cache.stats().load_seconds < 5
        assert counted(cache) | some == {"misses": 1, "loads": 1, "l1_entries": 1, **some}
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_set("b", cache.loader(lambda: 1 / 0))
        stats = cache.stats()
        assert (stats.misses, stats.loads, stats.load_errors) == (2, 2, 1)


async def test_entries_and_bytes_are_what_l1_holds(make_cache: MakeCache) -> None:
    """l1_entries and l1_bytes rise and fall with L1; a key counts with its value."""
    async with make_cache() as cache:
        await cache.set("a" * 10, b"x" * 1000)
        assert cache.stats().l1_entries == 1
        assert 1010 <= cache.stats().l1_bytes < 1030
        await cache.set("b", 1)
        assert cache.stats().l1_entries == 2
        await cache.delete("a" * 10, "b")
        assert (cache.stats().l1_entries, cache.stats().l1_bytes) == (0, 0)


async def test_evictions_are_those_for_want_of_room(make_cache: MakeCache) -> None:
    """Entries that had to leave count; deleted and cleared ones do not, and a clear does not lose the count."""
    async with make_cache(l1_max_entries=2) as cache:
        await cache.set_many({"a": 1, "b": 2, "c": 3})
        assert cache.stats().evictions == 1
        await cache.delete("c")
        cache.clear_local()
        assert cache.stats().evictions == 1
        await cache.set_many({"a": 1, "b": 2, "c": 3})
        assert cache.stats().evictions == 2


async def test_invalidations_are_counted_on_both_sides(make_cache: MakeCache) -> None:
    """Each acknowledged write is sent once, many keys in one; each message that comes is received."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1)
        await one.set_many({"a": 1, "b": 2})
        await one.delete("a")
        await one.invalidate_tags("t")
        await one.clear()
        assert one.stats().invalidations_sent == 5
        await until(lambda: other.stats().invalidations_received == 5)
        await until(lambda: one.stats().invalidations_received == 5)
        assert other.stats().invalidations_sent == 0


async def test_a_refused_fill_is_counted(make_cache: MakeCache) -> None:
    """A value that was loaded while its key was deleted is refused, and counted."""
    async with make_cache() as one, make_cache() as other:

        async def load() -> int:
            await other.delete("a")
            return 1

        await one.get_or_set("a", one.loader(load))
        assert one.stats().fills_refused == 1
        assert other.stats().fills_refused == 0


async def test_a_flush_is_counted(make_cache: MakeCache, namespace: str) -> None:
    """Garbage on the channel flushes L1 once."""
    async with make_cache() as cache:
        with redis_of(cache.url) as client:
            client.publish(channel_name(namespace), b"garbage")
        await until(lambda: cache.stats().flushes == 1)
        assert cache.stats().invalidations_received == 1


async def test_unacknowledged_keys_and_errors_are_counted(make_cache: MakeCache, proxy: FaultProxy) -> None:
    """Journalled counts keys of writes that were not acknowledged; l2_errors operations that were not answered."""
    async with make_cache(proxy.url) as cache:
        await cache.set("a", 1)
        proxy.cut()
        assert await cache.set_many({"a": 2, "b": 3}) is False
        assert cache.stats().journalled == 2
        assert cache.stats().l2_errors >= 1
        assert cache.stats().invalidations_sent == 1


async def test_a_corrupt_value_is_counted_each_time(make_cache: MakeCache, namespace: str) -> None:
    """corrupt_values counts every record that could not be read."""
    async with make_cache() as cache:
        with redis_of(cache.url) as client:
            client.set(value_name(namespace, "a"), b"garbage")
        await cache.get("a")
        await cache.get("a")
        stats = cache.stats()
        assert (stats.corrupt_values, stats.misses, stats.l2_hits) == (2, 2, 0)


async def test_hits_that_are_no_plain_ones_are_counted(make_cache: MakeCache) -> None:
    """A fresh value whose refresh is due is a hit in L1 too."""
    async with make_cache(ttl=600, early_refresh=1e-9) as cache:
        await cache.set("k", 1)
        before = cache.stats().l1_hits
        assert await cache.get("k") == 1
        assert cache.stats().l1_hits == before + 1
