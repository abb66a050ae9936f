"""get_or_set_many: one call of the loader for all keys that a reader leads, and one load of each key in the fleet."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from nearcache import LoaderTimeout, LoadFailed
from nearcache.testing import FakeServer
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, until


class Rows:
    """What is loaded from: keeps the keys of each call, and holds the calls back until they are let go."""

    def __init__(self, *absent: str, open_at_once: bool = True) -> None:
        self.calls: list[list[str]] = []
        self.absent = absent
        self.error: Exception | None = None
        self.go = asyncio.Event()
        if open_at_once:
            self.go.set()

    async def load(self, keys: list[str]) -> dict[str, str]:
        """A value for each key that is there."""
        self.calls.append(keys)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {key: key.upper() for key in keys if key not in self.absent}


@pytest.fixture(params=["server", "memory"])
def cache(request: pytest.FixtureRequest, make_cache: MakeCache) -> Twin:
    """A cache on a server, and one without."""
    return make_cache("memory://" if request.param == "memory" else None)


async def many(cache: Twin, keys: str, rows: Rows, **options: Any) -> dict[str, Any]:
    """Read these keys, each of one letter."""
    values: dict[str, Any] = await cache.get_or_set_many(list(keys), cache.loader(rows.load), **options)
    return values


def begin(cache: Twin, keys: str, rows: Rows, **options: Any) -> asyncio.Task[dict[str, Any]]:
    """Begin to read them."""
    return asyncio.create_task(many(cache, keys, rows, **options))


async def test_missing_keys_are_loaded_by_one_call(cache: Twin) -> None:
    """Those that are there are not loaded, and what was loaded is kept, under a ttl and in both tiers."""
    rows = Rows()
    await cache.set("a", 1)
    assert await many(cache, "abc", rows) == {"a": 1, "b": "B", "c": "C"}
    assert await many(cache, "abcc", rows) == {"a": 1, "b": "B", "c": "C"}
    assert await cache.get("b") == cache.peek("b") == "B"
    assert rows.calls == [["b", "c"]]
    assert (cache.stats().loads, cache.stats().misses) == (1, 2)
    assert await cache.get_or_set_many([], None) == {}


async def test_a_key_that_is_left_out_is_absent_and_not_negative(cache: Twin) -> None:
    """It is loaded again by the next reader, and what else was given is ignored."""
    rows = Rows("b")

    async def load(keys: list[str]) -> dict[str, object]:
        return {**await rows.load(keys), "z": "of another"}

    for _ in range(2):
        assert await cache.get_or_set_many(["a", "b"], cache.loader(load), negative_ttl=60) == {"a": "A"}
    assert rows.calls == [["a", "b"], ["b"]]
    assert await cache.get_many(["b", "z"]) == {}
    assert await cache.get_or_set_many(["n"], cache.loader({"n": None})) == {"n": None}
    assert await cache.get("n", default="nothing") is None


async def test_overlapping_readers_load_each_key_once(cache: Twin) -> None:
    """Each loads what nobody loads yet, before it waits for the others."""
    rows = Rows(open_at_once=False)
    readers = [begin(cache, keys, rows) for keys in ("abcd", "dcba", "cdef", "fa")]
    await until(lambda: sum(map(len, rows.calls)) == len("abcdef"))
    rows.go.set()
    assert [sorted(values) for values in await asyncio.gather(*readers)] == [list("abcd")] * 2 + [
        list("cdef"),
        list("af"),
    ]
    assert Counter(key for call in rows.calls for key in call) == Counter("abcdef")
    assert len(cache._core.flights) == len(cache._core.waiters) == 0


async def test_readers_of_one_key_and_of_many_share_a_load(cache: Twin) -> None:
    """A reader of one key takes what was loaded for many, and the other way round; what is absent it loads itself."""
    rows, alone = Rows("c", open_at_once=False), Rows(open_at_once=False)

    async def one(key: str) -> object:
        async def load() -> object:
            return (await alone.load([key]))[key]

        return await cache.get_or_set(key, cache.loader(load))

    first = begin(cache, "ac", rows)
    await until(lambda: rows.calls)
    single = [asyncio.create_task(one(key)) for key in "acd"]
    await until(lambda: alone.calls == [["d"]])
    second = begin(cache, "dac", rows)
    alone.go.set()
    rows.go.set()
    assert await first == {"a": "A"}
    assert await asyncio.gather(*single) == ["A", "C", "D"]
    values = await second
    assert values in ({"d": "D", "a": "A"}, {"d": "D", "a": "A", "c": "C"})
    assert sorted(alone.calls) == [["c"], ["d"]]
    assert rows.calls[0] == ["a", "c"]


async def test_a_failed_load_reaches_each_reader_as_its_own(cache: Twin) -> None:
    """No follower hangs, and nothing is left; the keys of the others are kept."""
    failing, rows = Rows(open_at_once=False), Rows()
    failing.error = LookupError("no such row")
    leader = begin(cache, "ab", failing)
    await until(lambda: failing.calls)
    followers = [begin(cache, "bcd", rows), begin(cache, "ab", rows)]
    await until(lambda: rows.calls == [["c", "d"]])
    failing.go.set()
    outcomes: list[Any] = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert outcomes[0] is failing.error
    errors = [outcome for outcome in outcomes if isinstance(outcome, LookupError)]
    assert errors, outcomes  # the others may have come when all was over
    assert len({id(error) for error in errors}) == len(errors)
    assert await cache.get_many(list("cd")) == {"c": "C", "d": "D"}
    assert await many(cache, "abcd", rows) == {key: key.upper() for key in "abcd"}
    assert len(cache._core.flights) == len(cache._core.waiters) == 0


@pytest.mark.parametrize("given", [None, ["a"], {7: "of another type"}])
async def test_what_is_no_mapping_by_key_is_an_error(cache: Twin, given: object) -> None:
    """A loader that forgets to give the keys would be called at each read, and nobody would see why."""
    with pytest.raises(TypeError, match="load_many gave"):
        await cache.get_or_set_many(["a"], cache.loader(given))
    assert await many(cache, "a", Rows()) == {"a": "A"}


async def test_two_instances_load_each_key_once(make_cache: MakeCache) -> None:
    """A lease per key: what another instance loads is waited for, after the own load was made."""
    first, second = make_cache(), make_cache()
    rows, others = Rows(open_at_once=False), Rows(open_at_once=False)
    readers = [begin(first, "abc", rows)]
    await until(lambda: rows.calls)
    readers.append(begin(second, "cbade", others))
    await until(lambda: others.calls == [["d", "e"]])
    readers.append(begin(first, "edcb", rows))
    others.go.set()
    rows.go.set()
    values = await asyncio.gather(*readers)
    assert [sorted(one) for one in values] == [list("abc"), list("abcde"), list("bcde")]
    assert Counter(key for call in rows.calls + others.calls for key in call) == Counter("abcde")


async def test_a_load_elsewhere_that_fails_is_taken_over(make_cache: MakeCache) -> None:
    """The lease is given back, and wakes the reader that waits for it."""
    first, second = make_cache(), make_cache()
    failing, rows = Rows(open_at_once=False), Rows()
    failing.error = LookupError("no such row")
    leader = begin(first, "ab", failing)
    await until(lambda: failing.calls)
    follower = begin(second, "abc", rows, wait_timeout=60, lease=60)
    await until(lambda: rows.calls == [["c"]])
    failing.go.set()
    assert await follower == {"a": "A", "b": "B", "c": "C"}
    assert Counter(key for call in rows.calls for key in call) == Counter("abc")
    with pytest.raises(LookupError):
        await leader


async def test_a_load_elsewhere_that_hangs_is_waited_for_within_wait_timeout(make_cache: MakeCache) -> None:
    """Then the reader loads all keys of it by one call."""
    first, second = make_cache(), make_cache()
    hanging, rows = Rows(open_at_once=False), Rows()
    leader = begin(first, "ab", hanging)
    await until(lambda: hanging.calls)
    assert await many(second, "abc", rows, wait_timeout=0.1) == {"a": "A", "b": "B", "c": "C"}
    assert [sorted(call) for call in rows.calls] == [["c"], ["a", "b"]]
    hanging.go.set()
    assert await leader == {"a": "A", "b": "B"}


async def test_what_is_due_is_refreshed_by_one_load(make_cache: MakeCache) -> None:
    """Values past their end that L1 or L2 has are served, and made anew by one call in the background."""
    first, second = make_cache(), make_cache()
    rows = Rows()
    windows: dict[str, Any] = {"ttl": 0.2, "stale_while_revalidate": 60}
    await many(first, "ab", rows, **windows)
    await many(second, "cd", rows, **windows)
    await until(lambda: first.peek("a") is None and second.peek("d") is None)
    rows.calls.clear()
    await asyncio.sleep(0.1)  # the server's clock is another one
    rows.go.clear()
    assert await many(first, "abcd", rows, **windows) == {key: key.upper() for key in "abcd"}
    await until(lambda: rows.calls)
    assert await many(first, "ba", rows, **windows) == {"a": "A", "b": "B"}
    rows.go.set()
    await until(lambda: not first._core.loads.refreshing)
    assert [sorted(call) for call in rows.calls] == [list("abcd")]
    assert first.stats().stale_served == 6
    rows.error = LookupError("gone")
    heard = Heard(first)
    await until(lambda: first.peek("a") is None)
    await many(first, "abcd", rows, **windows)
    await until(lambda: heard.of(LoadFailed))
    assert len(heard.of(LoadFailed)) == 1


async def test_stale_values_serve_after_an_error(make_cache: MakeCache) -> None:
    """Where each key has one; a key without one raises."""
    cache, rows = make_cache(stale_if_error=60), Rows()
    await many(cache, "ab", rows)
    await cache.mark_stale("a", "b")
    rows.error = LookupError("no such row")
    assert await many(cache, "ab", rows) == {"a": "A", "b": "B"}
    with pytest.raises(LookupError):
        await many(cache, "abc", rows)


async def test_each_key_has_the_time_limits(make_cache: MakeCache) -> None:
    """loader_hard_timeout is for the call; loader_soft_timeout serves what is stale meanwhile."""
    cache, rows = make_cache(stale_if_error=60), Rows()
    await many(cache, "ab", rows)
    await cache.mark_stale("a", "b")
    rows.go.clear()
    assert await many(cache, "ab", rows, loader_soft_timeout=0.05) == {"a": "A", "b": "B"}
    with pytest.raises(LoaderTimeout):
        await many(cache, "cd", rows, loader_hard_timeout=0.05)
    rows.go.set()
    await until(lambda: len(cache._core.flights) == 0)
    assert await many(cache, "ab", Rows("a", "b")) == {"a": "A", "b": "B"}


async def test_options_are_for_each_key(make_cache: MakeCache) -> None:
    """Tags, condition and negative_ttl; what they turn down is returned and not kept."""
    cache, rows = make_cache(), Rows()
    assert await many(cache, "ab", rows, tags=["t"], condition=lambda value: value != "B") == {"a": "A", "b": "B"}
    assert await cache.get_many(list("ab")) == {"a": "A"}
    await cache.invalidate_tags("t")
    assert await cache.get_many(list("ab")) == {}
    nothing = dict.fromkeys("xy")
    assert await cache.get_or_set_many(list("xy"), cache.loader(nothing), negative_ttl=0) == nothing
    assert await cache.get_many(list("xy")) == {}


async def test_what_is_left_out_is_deleted(make_cache: MakeCache) -> None:
    """An old value of it would be served stale later on."""
    cache = make_cache(stale_if_error=60)
    await many(cache, "ab", Rows())
    await cache.mark_stale("a", "b")
    assert await many(cache, "ab", Rows("b")) == {"a": "A"}
    failing = Rows()
    failing.error = LookupError("no such row")
    with pytest.raises(LookupError):
        await many(cache, "ab", failing)


async def test_a_large_number_of_keys_goes_in_few_requests(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the reads, one for the leases, one for the fills, of 500 keys each."""
    cache = make_cache()
    await cache.get("warm")
    keys = [f"k{number}" for number in range(500)]
    transport = cache._core.remote.transport
    execute, requests = transport.execute, []

    async def counted(packed: bytes, count: int = 1, **options: Any) -> Any:
        requests.append(count)
        return await execute(packed, count, **options)

    monkeypatch.setattr(transport, "execute", counted)
    for turn in range(2):  # in the first one the server learns the scripts
        requests.clear()
        names = [f"{turn}:{key}" for key in keys]
        assert len(await cache.get_or_set_many(names, cache.loader(dict.fromkeys(names, 1)))) == len(names)
    assert requests == [1, 500, 500]


async def test_a_loader_that_asks_for_its_own_keys(cache: Twin) -> None:
    """The inner call loads without the cache, and nobody waits for himself."""
    rows = Rows()

    async def load(keys: list[str]) -> dict[str, object]:
        return dict(await many(cache, "abc", rows))

    assert await cache.get_or_set_many(["a", "b"], cache.loader(load)) == {"a": "A", "b": "B"}
    assert Counter(key for call in rows.calls for key in call) == Counter("abc")


async def test_a_reader_that_is_cancelled_hands_over(fake: FakeServer) -> None:
    """Followers of all its keys go on, and its leases are given back."""
    cache, other = fake.async_cache(), fake.async_cache()
    async with cache, other:
        hanging, rows = Rows(open_at_once=False), Rows()
        leader = asyncio.create_task(cache.get_or_set_many(list("ab"), hanging.load))
        await until(lambda: hanging.calls)
        followers = [asyncio.create_task(one.get_or_set_many(list("abc"), rows.load)) for one in (cache, other)]
        await until(lambda: rows.calls)
        leader.cancel()
        assert await asyncio.gather(*followers) == [{"a": "A", "b": "B", "c": "C"}] * 2
        assert Counter(key for call in rows.calls for key in call) == Counter("abc")
        with pytest.raises(asyncio.CancelledError):
            await leader


async def test_the_fleet_loads_while_redis_is_away(fake: FakeServer) -> None:
    """Without leases, once in each process; the values are kept for the outage."""
    with fake.cache() as cache, fake.away():
        calls: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, int]:
            calls.append(keys)
            return dict.fromkeys(keys, len(calls))

        await until(lambda: not cache.healthy)
        assert cache.get_or_set_many(list("ab"), load) == cache.get_or_set_many(list("ab"), load) == {"a": 1, "b": 1}
        assert calls == [["a", "b"]]
