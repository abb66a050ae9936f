"""audit_fraction: L1's hits are compared with Redis; nothing is stale, unless somebody writes without the library."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.engine import audit
from nearcache.events import StaleFound
from nearcache.protocol.names import Names
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, until, value_name

STALENESS = 0.4
Foreign = Callable[[Any, Names], object]
"""What a plain client does to the value of "a", with its names."""


def another_record(client: Any, names: Names) -> None:
    """A newer record."""
    client.set(names.value("a"), client.get(names.value("b")))


def same_head(client: Any, names: Names) -> None:
    """Another value behind the same head."""
    raw = client.get(names.value("a"))
    client.set(names.value("a"), raw.replace(b"old", b"new"))


def garbage(client: Any, names: Names) -> None:
    """No record."""
    client.set(names.value("a"), b"new")


def marked_stale(client: Any, names: Names) -> None:
    """What mark_stale does, without its message."""
    client.setrange(names.value("a"), 17, bytes(8))


def cleared(client: Any, names: Names) -> None:
    """The floor of the namespace rises, without a message."""
    client.hset(names.counters, "f", client.hget(names.counters, "s"))


def tag_invalidated(client: Any, names: Names) -> None:
    """The floor of a tag rises, without a message."""
    client.set(names.tags(["t"])[0], client.hget(names.counters, "s"))


FOREIGN = [another_record, same_head, garbage, marked_stale, cleared, tag_invalidated]


@pytest.mark.parametrize("eviction", ["lru", "s3fifo"])
async def test_a_foreign_writer_is_found(make_cache: MakeCache, eviction: str) -> None:
    """It sends no message, so L1 serves the old value; the audit counts that, tells it once, and drops the entry."""
    await asyncio.gather(*(is_found(make_cache, foreign, eviction) for foreign in FOREIGN))


async def is_found(make_cache: MakeCache, foreign: Foreign, eviction: str) -> None:
    """What one of them does; each has a namespace of its own."""
    namespace = f"{foreign.__name__}-{uuid.uuid4().hex}"
    settings: dict[str, Any] = {"max_staleness": STALENESS, "audit_fraction": 1, "eviction": eviction}
    async with make_cache(**settings, namespace=namespace) as cache:
        heard = Heard(cache)
        await cache.set("a", ["old"], tags=["t"])
        await cache.set("b", ["new"])
        with redis_of(cache.url) as client:
            await audited(cache, 1)
            assert cache.stats().audit_stale == 0
            foreign(client, Names(namespace))
        begun = time.monotonic()

        async def found() -> bool:
            await cache.get("a")
            return bool(cache.stats().audit_stale)

        await until(found)
        assert time.monotonic() - begun > STALENESS
        await until(lambda: cache.peek("a") != ["old"])
        (event,) = heard.of(StaleFound)
        assert (event.key, event.explanation.key, event.explanation.tier) == ("a", "a", "l1")
        assert STALENESS <= event.age < 10
        assert cache.stats().audit_stale_age == pytest.approx(event.age)


async def audited(cache: Twin, count: int) -> None:
    """Hit "a" until so many entries were compared."""
    before = cache.stats().audited

    async def compared() -> bool:
        await cache.get("a")
        return bool(cache.stats().audited >= before + count)

    await until(compared)


async def test_nothing_is_stale_by_promise(make_cache: MakeCache) -> None:
    """Two instances write, fill, refresh, delete and invalidate what the other one has in L1."""
    settings: dict[str, Any] = {"max_staleness": STALENESS, "audit_fraction": 1}
    async with make_cache(**settings, eviction="lru") as one, make_cache(**settings, eviction="s3fifo") as other:
        keys = [f"key:{number}" for number in range(10)]
        ends = time.monotonic() + 3

        async def write(cache: Twin) -> None:
            number = 0
            while time.monotonic() < ends:
                number += 1
                key = keys[number % len(keys)]
                await cache.set(key, [number], tags=["t"])
                await cache.refresh(keys[(number + 3) % len(keys)], cache.loader([-number]), tags=["t"])
                await cache.delete(keys[(number + 5) % len(keys)])
                if number % 20 == 0:
                    await cache.invalidate_tags("t")
                await asyncio.sleep(0.02)

        async def read(cache: Twin) -> None:
            while time.monotonic() < ends or cache.stats().audited < 20:
                for key in keys:
                    await cache.get_or_set(key, cache.loader([0]), tags=["t"])
                await asyncio.sleep(0.005)

        await asyncio.gather(*(work(cache) for cache in (one, other) for work in (write, read)))
        assert all(cache.stats().audited >= 20 for cache in (one, other))
        assert all(cache.stats().audit_stale == 0 for cache in (one, other))


async def test_what_a_refresh_filled_and_what_redis_lost_is_not_stale(make_cache: MakeCache, namespace: str) -> None:
    """A fill sends no message, and a value may be evicted from Redis."""
    async with make_cache(max_staleness=STALENESS, audit_fraction=1) as cache, make_cache() as other:
        await cache.set("a", 1)
        await other.refresh("a", other.loader(2))
        assert cache.peek("a") == 1
        await audited(cache, 6)
        assert cache.peek("a") == 1
        with redis_of(cache.url) as client:
            client.delete(value_name(namespace, "a"))
        hits, beats = cache.stats().l1_hits, cache.health().round_trip
        await until(lambda: cache.health().round_trip != beats)
        for _ in range(20):
            assert await cache.get("a") == 1
            await asyncio.sleep(STALENESS / 10)
        assert cache.stats().l1_hits == hits + 20
        assert cache.stats().audit_stale == 0


def test_the_rate_is_bounded(server: Any, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hits there are."""
    monkeypatch.setattr(audit, "RATE_MAX", 20.0)
    with NearCache.from_url(server.url, namespace=namespace, max_staleness=STALENESS, audit_fraction=1) as cache:
        keys = [f"key:{number}" for number in range(1000)]
        cache.set_many(dict.fromkeys(keys, 1))
        begun = time.monotonic()
        while time.monotonic() < begun + 1.5:
            for key in keys:
                cache.get(key)
        took = time.monotonic() - begun
        assert 1 <= cache.stats().audited <= 20 * took + 5
