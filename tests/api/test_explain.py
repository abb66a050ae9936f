"""explain(): where a value stands, what a read would do, and why; the same words on both classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nearcache import InvalidKey
from nearcache.protocol.names import Names
from nearcache.testing import FakeServer, ManualClock
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, until


async def test_where_it_stands(make_cache: MakeCache) -> None:
    """In L1, in L2 alone, nowhere; with what is known of the value, but not the value."""
    async with make_cache(ttl=60, jitter=0) as cache, make_cache() as other:
        await cache.set("user:7", {"secret": "Ada"}, tags=["users"])
        here, there, nowhere = (
            await cache.explain("user:7"),
            await other.explain("user:7"),
            await cache.explain("nobody"),
        )
        assert (here.tier, here.would, there.tier, there.would) == ("l1", "serve from L1", "l2", "serve from L2")
        assert here.version == there.version
        assert (here.tags, here.type, here.size) == (there.tags, there.type, there.size) == (("users",), "dict", 13)
        for one in (here, there):
            assert one.age is not None
            assert one.remaining is not None
            assert 0 <= one.age < 30 < one.remaining <= 60
            assert "Ada" not in f"{one} {one!r}"
        assert here.l1_remaining is not None
        assert there.l1_remaining is None
        assert (nowhere.tier, nowhere.would) == (None, "load")
        assert nowhere.why == "L1: it does not have the key; L2: it has nothing"
        before = cache.stats()
        await cache.explain("user:7")
        assert cache.stats() == before
        with pytest.raises(InvalidKey):
            await cache.explain("")


async def test_why_it_left(make_cache: MakeCache) -> None:
    """The last reason for each key: by a message, a tag, a clear, for want of room, here alone."""
    async with make_cache(l1_max_entries=3) as cache, make_cache() as other:
        steps: list[tuple[str, Any]] = [
            ("a message came that its key was written", lambda: other.set("a", 2)),
            ("its key was written", lambda: cache.delete("a")),
            ("tags was invalidated", lambda: other.invalidate_tags("t")),
            ("namespace was cleared", other.clear),
            ("clear_local", None),
        ]
        for why, step in steps:
            assert await cache.set("a", 1, tags=["t"])
            assert (await cache.explain("a")).tier == "l1"
            if step is None:
                cache.clear_local()
            else:
                await step()
            await until(lambda: cache.peek("a") is None)
            assert why in str((await cache.explain("a")).left_l1)
        for key in "abcd":
            await cache.set(key, 1)
        assert "evicted" in str((await cache.explain("a")).left_l1)
        for number in range(5000):
            cache._core.tier.drops.note((f"{number}", "other keys"))
        assert "evicted" not in str((await cache.explain("a")).left_l1), "the memory is bounded"


async def test_what_was_never_there_has_left_nothing(make_cache: MakeCache) -> None:
    """An L1 that was empty when all of it was dropped, as at the first proof; a key that is back is told so."""
    async with make_cache() as cache:
        cache.clear_local()
        assert await cache.set("a", 1)
        told = await cache.explain("a")
        assert (told.tier, told.left_l1) == ("l1", None)
        assert (await cache.explain("never")).left_l1 is None
        assert await cache.delete("a")
        gone = await cache.explain("a")
        assert f"  left L1: {gone.left_l1}" in str(gone)
        assert await cache.set("a", 2)
        back = await cache.explain("a")
        assert back.tier == "l1"
        assert f"  left L1 before: {back.left_l1}" in str(back)


async def test_why_l2_does_not_serve(make_cache: MakeCache) -> None:
    """A clear, a tag, a mark, an end, a foreign value: each has its words."""
    async with make_cache(stale_if_error=60) as cache:
        reasons = {
            "the tag 't' was invalidated": lambda: cache.invalidate_tags("t"),
            "the values of the tag 't' were made stale": lambda: cache.invalidate_tags("t", stale=True),
            "the namespace was cleared": cache.clear,
            "it was marked stale": lambda: cache.mark_stale("a"),
            "it has nothing": lambda: cache.delete("a"),
        }
        for reason, step in reasons.items():
            await cache.set("a", 1, tags=["t"])
            await step()
            told = await cache.explain("a")
            assert reason in told.why
            assert told.would == "load"
            assert await cache.get("a") is None


async def test_what_is_broken_in_redis(make_cache: MakeCache) -> None:
    """A foreign value, a damaged one, a tag's floor and a counter that were evicted: each has its words, too."""
    async with make_cache() as cache:
        names = Names(cache.settings.namespace)
        value, (floor,) = names.value("a"), names.tags(["t"])
        with redis_of(cache.url) as client:
            steps: dict[str, Callable[[], object]] = {
                "what it has is no record": lambda: client.set(value, b"garbage"),
                "the value can't be read": lambda: client.setrange(value, client.strlen(value) - 1, b"\xc1"),
                "the floor of the tag 't' is not there": lambda: client.delete(floor),
                "its number was never given out": lambda: client.hincrby(names.counters, "s", -1),
            }
            for reason, step in steps.items():
                await cache.set("a", 1, tags=["t"])
                cache.clear_local()
                step()
                told = await cache.explain("a")
                assert (told.would, told.tier) == ("load", None)
                assert reason in told.why
                if reason == "the value can't be read":
                    assert told.type is None


async def test_an_l1_without_a_proof(make_fake: MakeCache, clock: ManualClock, fake: FakeServer) -> None:
    """Its entry is there, and does not serve."""
    async with make_fake(ttl=60, jitter=0) as cache:
        await cache.set("a", 1)
        with fake.bus_held():
            clock.advance(2 * cache.settings.max_staleness)
            told = await cache.explain("a")
        assert (told.would, told.why) == ("serve from L2", "L1: nothing proves that no message was missed")


async def test_ends_and_outages(make_fake: MakeCache, clock: ManualClock, fake: FakeServer) -> None:
    """By the manual clock: a value past its end, and a server that is away."""
    async with make_fake(ttl=10, jitter=0, stale_if_error=60) as cache:
        await cache.set("a", 1)
        clock.advance(11)
        told = await cache.explain("a")
        assert "L2: the value ended 1.000 s ago" in told.why
        assert told.remaining == pytest.approx(-1.0)
        with fake.away():
            told = await cache.explain("a")
            assert "Redis did not answer" in told.why
            assert told.would == "load"
            await cache.set("a", 2)
            assert "a write waits in the journal for Redis" in (await cache.explain("a")).in_flight


async def test_what_is_in_flight(make_cache: MakeCache) -> None:
    """A load here, the lease of an instance, a hold."""
    async with make_cache() as cache:
        seen: list[Any] = []

        async def load() -> int:
            seen.append(await cache.explain("a"))
            return 1

        await cache.get_or_set("a", cache.loader(load))
        assert any("a load in this process" in one for one in seen[0].in_flight)
        assert any("has the lease for" in one for one in seen[0].in_flight)
        await cache.delete("a", hold=5)
        assert any("a hold refuses fills for" in one for one in (await cache.explain("a")).in_flight)
