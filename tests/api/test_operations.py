"""add, touch, incr and delete_existing: what is promised on a server, on the fake one, without one, and in outages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from nearcache import CodecError, ConfigError, InvalidKey, RemoteUnavailable, ValueTooLarge
from nearcache.testing import FakeServer
from tests.support.cases import each
from tests.support.twins import MakeCache, Twin, twin_on
from tests.support.waiting import gone, until


@pytest.fixture(params=["server", "fake", "memory"])
def make(
    request: pytest.FixtureRequest, make_cache: MakeCache, fake: FakeServer, runner: asyncio.Runner
) -> Iterator[MakeCache]:
    """Makes caches on a server, on the fake one, or without a server."""
    made: list[Twin] = []

    def on_fake(url: str | None = None, **settings: object) -> Twin:
        assert url is None
        made.append(twin_on(fake, make_cache("memory://").mode, runner, **settings))
        return made[-1]

    def alone(url: str | None = None, **settings: object) -> Twin:
        return make_cache(url or "memory://", **settings)

    yield {"server": make_cache, "fake": on_fake, "memory": alone}[request.param]
    for cache in made:
        runner.run(cache.close())


@pytest.fixture
def cache(make: MakeCache) -> Twin:
    """One of these."""
    return make()


# ---------------------------------------------------------------------------------------------------------------- add


async def test_add_stores_once(cache: Twin) -> None:
    """True for the first, False while its value lives, and the value is as of a set."""
    assert await cache.add("job", {"by": 1}, ttl=30) is True
    assert await cache.add("job", {"by": 2}) is False
    assert await cache.get("job") == {"by": 1}
    await cache.delete("job")
    assert await cache.add("job", None) is True
    assert await cache.add("job", 3) is False, "a cached None is a value"


@pytest.mark.parametrize("end", ["clear", "tag", "stale tag", "mark_stale", "delete", "ttl"])
async def test_a_dead_value_is_no_obstacle(cache: Twin, end: str) -> None:
    """Whatever makes a value a miss lets the next add through."""
    assert await cache.add("job", 1, tags=["jobs"], ttl=0.05 if end == "ttl" else 60)
    if end == "ttl":
        await gone(cache, "job")
    else:
        await {
            "clear": cache.clear,
            "tag": lambda: cache.invalidate_tags("jobs"),
            "stale tag": lambda: cache.invalidate_tags("jobs", stale=True),
            "mark_stale": lambda: cache.mark_stale("job"),
            "delete": lambda: cache.delete("job"),
        }[end]()
    assert await cache.add("job", 2, tags=["jobs"]) is True
    assert await cache.get("job") == 2


async def test_of_many_adds_one_is_told_true(cache: Twin) -> None:
    """Of one cache, however concurrent."""
    told = await asyncio.gather(*[cache.add("job", number) for number in range(20)])
    assert sum(told) == 1
    assert await cache.get("job") == told.index(True)


async def test_an_add_that_is_turned_down_changes_nothing(cache: Twin) -> None:
    """negative_ttl=0 and condition: False, and what was there stays."""
    assert await cache.add("a", None, negative_ttl=0) is False
    assert await cache.add("a", 1, condition=lambda _: False) is False
    assert await cache.add("a", 2) is True
    assert await cache.add("a", 1, condition=lambda _: False) is False
    assert await cache.get("a") == 2


async def test_an_add_is_refused_under_a_hold(cache: Twin) -> None:
    """As a fill is; without a server there are no holds."""
    await cache.delete("a", hold=30)
    assert await cache.add("a", 1) is (cache.url == "memory://")
    assert await cache.set("a", 1) is True


async def test_an_added_value_is_dropped_elsewhere_as_any_other(make_cache: MakeCache) -> None:
    """Its own L1 has it, others read it from Redis, and hear of its end."""
    async with make_cache() as one, make_cache() as other:
        assert await one.add("a", 1)
        assert one.peek("a") == 1
        assert await other.add("a", 2) is False
        assert await other.get("a") == 1
        await one.delete("a")
        await until(lambda: other.peek("a") is None)
        assert await other.add("a", 2) is True


# -------------------------------------------------------------------------------------------------------------- touch


async def test_touch_gives_a_new_ttl(cache: Twin) -> None:
    """A value outlives its first ttl; nothing, or a dead value, can't be touched."""
    assert await cache.touch("a", 30) is False
    await cache.set("a", [1], ttl=0.2, tags=["t"])
    assert await cache.touch("a", timedelta(seconds=30)) is True
    await asyncio.sleep(0.3)  # the first ttl
    assert await cache.get("a") == [1]
    await cache.invalidate_tags("t")
    assert await cache.touch("a", 30) is False
    assert await cache.get("a") is None


async def test_touch_may_shorten(cache: Twin) -> None:
    """Here and in every L1."""
    await cache.set("a", 1, ttl=300)
    assert await cache.get("a") == 1
    assert await cache.touch("a", 0.05) is True
    await gone(cache, "a")


async def test_touch_takes_the_ttl_of_the_settings(make_fake: MakeCache) -> None:
    """A function of the value too; where it raises, it is the ConfigError that it is for set."""
    cache = make_fake(ttl=lambda value: value)
    await cache.set("a", 100)
    assert await cache.touch("a") is True
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        await cache.touch("a", lambda value: value / 0)
    with pytest.raises(ConfigError, match="ttl"):
        await cache.touch("a", -1)


async def test_a_touch_reaches_every_l1(make_cache: MakeCache) -> None:
    """Others drop their entry, and read the value with its new end."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1, ttl=300)
        assert await other.get("a") == 1
        assert await one.touch("a", 0.2)
        await until(lambda: other.peek("a") is None)
        await asyncio.sleep(0.3)  # the ttl
        assert await other.get("a") is None


async def test_a_touch_keeps_the_stale_window(make: MakeCache) -> None:
    """Redis keeps the value beyond its new end for as long as beyond the first one."""
    cache = make(stale_if_error=60)
    await cache.set("a", 1, ttl=30)
    assert await cache.touch("a", 0.05)
    await gone(cache, "a")
    assert await cache.get_or_set("a", cache.loader(fails), stale_if_error=60) == 1


def fails(*_: object) -> None:
    """A loader of a database that is away."""
    raise LookupError


# --------------------------------------------------------------------------------------------------------------- incr


async def test_incr_counts(cache: Twin) -> None:
    """From initial on, up and down, and get gives the number."""
    assert await cache.incr("n") == 1
    assert await cache.incr("n", 10) == 11
    assert await cache.incr("n", -12) == -1
    assert await cache.get("n") == -1
    assert await cache.get_many(["n"]) == {"n": -1}
    assert await cache.get_or_set("n", cache.loader(5)) == -1
    assert await cache.incr("m", 2, initial=40) == 42
    assert await cache.incr("m", 2, initial=40) == 44
    assert await cache.incr("m", initial=None) == 45


async def test_incr_without_a_counter(cache: Twin) -> None:
    """initial=None is a KeyError that names the key, and makes none."""
    with pytest.raises(KeyError, match="absent"):
        await cache.incr("absent", initial=None)
    assert await cache.get("absent") is None


async def test_incr_of_a_value_is_refused(cache: Twin) -> None:
    """It stays; a dead one is no obstacle. A number with tags would lose them."""
    for value, tags in (("text", []), (True, []), (1.0, []), (None, []), (1, ["t"])):
        await cache.set("a", value, tags=tags)
        with pytest.raises(CodecError, match="'a' is no counter"):
            await cache.incr("a")
        assert await cache.get("a") == value
    await cache.invalidate_tags("t")
    assert await cache.incr("a") == 1


async def test_incr_of_a_number_that_was_set(cache: Twin) -> None:
    """It counts on, and keeps the ttl; from then on it is a counter."""
    await cache.set("n", 40, ttl=30)
    assert await cache.get("n") == 40
    assert await cache.incr("n", 2, initial=None, ttl=1000) == 42
    assert await cache.get("n") == 42
    told = await cache.explain("n")
    assert told.type == "int"
    assert 25 < (told.remaining or told.l1_remaining) <= 30
    await cache.set("n", -1)
    assert await cache.incr("n", initial=7) == 0
    assert await cache.get_or_set("m", cache.loader(5)) == 5
    assert await cache.incr("m") == 6
    await cache.set("large", 2**53)
    with pytest.raises(ValueTooLarge):
        await cache.incr("large", -1)
    await cache.set("short", 1, ttl=0.05)
    await gone(cache, "short")
    assert await cache.incr("short", 1, initial=100) == 101


async def test_all_counts_of_a_number_that_was_set_arrive(make_cache: MakeCache) -> None:
    """However concurrent, of two instances; neither keeps the number in L1."""
    async with make_cache() as one, make_cache() as other:
        for turn in range(5):
            key = f"n:{turn}"
            await one.set(key, 100)
            assert await other.get(key) == 100
            counts = await asyncio.gather(*[cache.incr(key) for cache in (one, other) for _ in range(10)])
            assert sorted(counts) == list(range(101, 121))
            assert (await one.get(key), await other.get(key)) == (120, 120)
            assert (one.peek(key), other.peek(key)) == (None, None)


async def test_a_counter_stays_within_what_is_exact(cache: Twin) -> None:
    """Below 2**53 on both sides."""
    most = 2**53 - 1
    assert await cache.incr("n", most) == most
    with pytest.raises(ValueTooLarge, match="2\\*\\*53"):
        await cache.incr("n")
    assert await cache.incr("n", -most) == 0
    assert await cache.incr("n", -most) == -most
    with pytest.raises(ValueTooLarge):
        await cache.incr("n", -1)


@pytest.mark.parametrize("end", ["clear", "mark_stale", "delete", "ttl", "set"])
async def test_a_counter_ends_as_a_value_does(cache: Twin, end: str) -> None:
    """And then begins anew; an initial number has effect only then."""
    assert await cache.incr("n", 5, ttl=0.1 if end == "ttl" else 60) == 5
    if end == "ttl":
        while await cache.incr("n", 1, ttl=60) != 6:  # it had ended already, on a busy machine, and began anew
            await cache.delete("n")
            await cache.incr("n", 5, ttl=0.1)
        await gone(cache, "n")  # the second one has left the ttl alone
    elif end == "set":
        await cache.set("n", "text")
        assert await cache.get("n") == "text"
        await cache.delete("n")
    else:
        await {"clear": cache.clear, "mark_stale": lambda: cache.mark_stale("n"), "delete": lambda: cache.delete("n")}[
            end
        ]()
    assert await cache.get("n") is None
    assert await cache.incr("n", 1, initial=100) == 101


async def test_a_counter_is_a_value_to_the_others(cache: Twin) -> None:
    """Add finds it, touch gives it a ttl, set replaces it, delete_existing tells of it."""
    await cache.incr("n", ttl=0.2)
    assert await cache.add("n", 1) is False
    assert await cache.touch("n", 30) is True
    await asyncio.sleep(0.3)  # the first ttl
    assert await cache.incr("n") == 2
    assert await cache.delete_existing("n") is True


async def test_l1_never_keeps_a_counter(make_cache: MakeCache) -> None:
    """Everybody reads the newest number, before any message has come."""
    async with make_cache() as one, make_cache() as other:
        for number in range(1, 50):
            assert await one.incr("n") == number
            assert await other.get("n") == number
        assert other.peek("n") is None
        assert other.stats().l1_entries == 0


async def test_all_counts_arrive(cache: Twin) -> None:
    """However concurrent."""
    counts = await asyncio.gather(*[cache.incr("n", 2) for _ in range(30)])
    assert sorted(counts) == list(range(2, 62, 2))


# ------------------------------------------------------------------------------------------------------ delete_existing


async def test_delete_existing_tells_whether_there_was_a_living_value(cache: Twin) -> None:
    """Not of what was dead already."""
    assert await cache.delete_existing("a") is False
    await cache.set("a", None, tags=["t"])
    assert await cache.delete_existing("a") is True
    assert await cache.delete_existing("a") is False
    for end in (lambda: cache.mark_stale("a"), lambda: cache.invalidate_tags("t"), cache.clear):
        await cache.set("a", 1, tags=["t"])
        await end()
        assert await cache.delete_existing("a") is False


async def test_of_many_deletes_one_is_told_true(cache: Twin) -> None:
    """However concurrent."""
    await cache.set("a", 1)
    assert sum(await asyncio.gather(*[cache.delete_existing("a") for _ in range(20)])) == 1


# ---------------------------------------------------------------------------------------------------- trouble, mistakes


async def asked(cache: Twin) -> None:
    """Wait until Redis is asked again."""

    async def closed() -> bool:
        await cache.get("any")
        return bool(cache.health().breaker == "closed")

    await until(closed)


async def test_without_an_answer_nothing_is_journalled(make_fake: MakeCache, fake: FakeServer) -> None:
    """False, or RemoteUnavailable for incr; what was done stays done."""
    async with make_fake(redis_timeout=0.05, max_staleness=1) as cache, make_fake() as other:
        with fake.lost_replies(of=cache.cache):
            assert await cache.add("a", 1) is False
        await asked(cache)
        assert await other.add("a", 2) is False, "it was stored"
        with fake.lost_replies(of=cache.cache), pytest.raises(RemoteUnavailable, match="may have"):
            await cache.incr("n")
        await asked(cache)
        assert await cache.incr("n") == 2
        assert await cache.get("a") == 1
        assert cache.health().journal == 0
        assert cache.stats().journalled == 0


async def test_they_find_out_that_redis_answers_again(make_fake: MakeCache, fake: FakeServer) -> None:
    """Each by itself, where nothing else is asked for."""
    async with make_fake(redis_timeout=0.05, max_staleness=1, breaker_reset=0.1) as cache:

        async def counted() -> int:
            with suppress(RemoteUnavailable):
                return int(await cache.incr("n"))
            return 0

        for word in (lambda: cache.add("a", 1), lambda: cache.touch("a", 60), counted):
            with fake.lost_replies(only={"read", "set"}, of=cache.cache):
                assert await cache.get("absent") is None
            assert cache.health().breaker != "closed"
            assert await until(word)


async def test_redis_away(make_fake: MakeCache, fake: FakeServer) -> None:
    """Nothing is stored, and nothing raised but by incr, unless on_unavailable says so."""
    async with make_fake() as cache, make_fake(on_unavailable="raise") as raising:
        await cache.set("a", 1)
        with fake.away():
            assert await cache.add("b", 1) is False
            assert await cache.touch("a", 30) is False
            assert await cache.delete_existing("a") is False
            with pytest.raises(RemoteUnavailable):
                await cache.incr("n")
            for call in (raising.add("b", 1), raising.touch("a", 30), raising.delete_existing("b")):
                with pytest.raises(RemoteUnavailable):
                    await call
        await until(lambda: cache.healthy and raising.healthy)
        await until(lambda: not cache.health().journal and not raising.health().journal)
        assert await cache.get("a") is None, "delete_existing is journalled as delete is"
        assert await cache.add("b", 1) is True


async def test_an_earlier_write_has_still_to_be_replayed(make_fake: MakeCache, fake: FakeServer) -> None:
    """Until then there is no lock and no count: the replay would take them away."""
    async with make_fake() as cache:
        with fake.away(only={"delete"}):
            assert await cache.delete("a") is False
            assert await cache.add("a", 1) is False
            with pytest.raises(RemoteUnavailable, match="nothing was sent"):
                await cache.incr("a")
        await until(lambda: not cache.health().journal)
        assert await cache.add("a", 1) is True


@each(
    "call, error, says",
    [
        (lambda cache: cache.add("", 1), InvalidKey, "empty"),
        (lambda cache: cache.add("a", object()), CodecError, "object"),
        (lambda cache: cache.add("a", 1, ttl=0), ConfigError, "ttl"),
        (lambda cache: cache.add("a", 1, lease=1), ConfigError, "lease"),
        (lambda cache: cache.touch(7), InvalidKey, "int"),
        (lambda cache: cache.incr("a", 1.5), ConfigError, "delta=1.5"),
        (lambda cache: cache.incr("a", True), ConfigError, "delta=True"),
        (lambda cache: cache.incr("a", 2**53), ConfigError, "delta"),
        (lambda cache: cache.incr("a", initial="1"), ConfigError, "initial='1'"),
        (lambda cache: cache.incr("a", ttl=-1), ConfigError, "ttl"),
        (lambda cache: cache.delete_existing(["a"]), InvalidKey, "one by one"),
    ],
)
async def test_mistakes_are_told(make_fake: MakeCache, call: Any, error: type[Exception], says: str) -> None:
    """By the errors of the other words, and nothing is done."""
    cache = make_fake()
    with pytest.raises(error, match=says):
        await call(cache)
    assert await cache.get("a") is None
