"""What a loader learns of its load, and what it may say about its value."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from nearcache import AsyncNearCache, ConfigError, NearCache, current_load
from nearcache.testing import ManualClock
from tests.support.twins import MakeCache
from tests.support.waiting import until

TTL = 10.0


@pytest.fixture
def make_cache(clock: ManualClock, make_fake: MakeCache) -> MakeCache:
    """Makes caches on the fake server whose time is the clock's."""
    return make_fake


def test_outside_a_loader() -> None:
    """There is no load."""
    with pytest.raises(RuntimeError, match="outside a loader"):
        current_load()


def test_a_thread_that_the_loader_starts_has_no_load() -> None:
    """Its context is empty; one that is given the loader's context has the loader's load, until that ends."""
    kept: list[contextvars.Context] = []
    heard: list[object] = []

    def ask() -> None:
        try:
            heard.append(current_load().key)
        except RuntimeError as error:
            heard.append(type(error))

    def in_thread(context: contextvars.Context) -> None:
        thread = threading.Thread(target=context.run, args=(ask,))
        thread.start()
        thread.join()

    def load() -> int:
        kept.append(contextvars.copy_context())
        in_thread(contextvars.Context())
        in_thread(kept[0])
        return 1

    with NearCache.from_url("memory://") as cache:
        cache.get_or_set("k", load)
    in_thread(kept[0])
    assert heard == [RuntimeError, "k", RuntimeError]


def test_a_task_that_outlives_its_loader_has_no_load() -> None:
    """What it would say comes too late."""

    async def late(ended: asyncio.Event) -> None:
        assert current_load().key == "k"
        await ended.wait()
        with pytest.raises(RuntimeError):
            current_load()

    async def use() -> None:
        ended, tasks = asyncio.Event(), []

        async def load() -> int:
            tasks.append(asyncio.create_task(late(ended)))
            await asyncio.sleep(0)
            return 1

        async with AsyncNearCache.from_url("memory://") as cache:
            await cache.get_or_set("k", load)
            ended.set()
            await tasks[0]

    asyncio.run(use())


async def test_nested_loads_have_their_own(make_cache: MakeCache) -> None:
    """The innermost one counts, and what is said there is of its key alone; afterwards the outer one counts again."""
    async with make_cache() as cache:

        async def inner() -> str:
            current_load().skip()
            return current_load().key

        async def outer() -> list[str]:
            return [current_load().key, await cache.get_or_set("b", cache.loader(inner)), current_load().key]

        assert await cache.get_or_set("a", cache.loader(outer)) == ["a", "b", "a"]
        assert await cache.get("a") == ["a", "b", "a"]
        assert await cache.get("b") is None
        test_outside_a_loader()


async def test_a_cached_function_knows_its_key(make_cache: MakeCache) -> None:
    """It is the key under which its value is stored."""
    async with make_cache() as cache:

        async def user(number: int) -> str:
            return f"{number} is {current_load().key}"

        assert await cache.cached("user:{number}")(user)(7) == "7 is user:7"


async def test_skip(make_cache: MakeCache) -> None:
    """The value is returned and not stored, and an old one is deleted."""
    async with make_cache(stale_if_error=TTL) as cache:

        def load() -> int:
            current_load().skip()
            return 1

        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert await cache.get("k") is None
        await cache.set("k", 2)
        assert await cache.refresh("k", cache.loader(load)) == 1
        assert await cache.get("k") is None


async def test_a_load_with_a_time_limit_has_its_load(make_cache: MakeCache) -> None:
    """It runs in a thread or task of its own, and so does a load that it makes in turn."""
    async with make_cache(jitter=0, loader_hard_timeout=60) as cache:

        def inner() -> str:
            current_load().ttl = 2 * TTL
            return current_load().key

        async def load() -> list[str]:
            current_load().ttl = TTL
            return [current_load().key, await cache.get_or_set("inner", cache.loader(inner)), current_load().key]

        assert await cache.get_or_set("k", cache.loader(load)) == ["k", "inner", "k"]
        assert (await cache.explain("k")).remaining == pytest.approx(TTL)
        assert (await cache.explain("inner")).remaining == pytest.approx(2 * TTL)


@pytest.mark.parametrize("value", [1, None])
async def test_ttl(make_cache: MakeCache, clock: ManualClock, value: object) -> None:
    """The loader's ttl is over the call's and over negative_ttl."""
    async with make_cache(jitter=0, negative_ttl=0) as cache:

        def load() -> object:
            current_load().ttl = TTL
            return value

        assert await cache.get_or_set("k", cache.loader(load), ttl=600) == value
        assert (await cache.explain("k")).remaining == pytest.approx(TTL)
        clock.advance(TTL)
        assert (await cache.explain("k")).would == "load"


async def test_a_ttl_that_is_none_is_told(make_cache: MakeCache, caplog: pytest.LogCaptureFixture) -> None:
    """The value is returned, nothing is stored, and the log says why."""
    async with make_cache() as cache:

        def load() -> int:
            current_load().ttl = -1
            return 1

        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert await cache.get("k") is None
        assert "ttl=-1" in caplog.text


async def test_tags(make_cache: MakeCache) -> None:
    """Those that the loader adds end its value in every tier, and so do those of the call."""
    async with make_cache() as cache, make_cache() as other:

        def load() -> str:
            load = current_load()
            assert load.tags == {"users"}
            load.tags = {"user:7", "admins"}
            return "Ada"

        for tag in ("user:7", "admins", "users"):
            assert await cache.get_or_set("k", cache.loader(load), tags=["users"]) == "Ada"
            assert await other.get("k") == "Ada"
            assert (await cache.explain("k")).tags == ("admins", "user:7", "users")
            assert await cache.invalidate_tags(tag)
            assert await cache.get("k") is None
            await until(lambda: other.peek("k") is None)
            assert await other.get("k") is None


async def test_tags_that_are_none_are_told(make_cache: MakeCache, caplog: pytest.LogCaptureFixture) -> None:
    """The value is returned, nothing is stored, and the log says why."""
    async with make_cache() as cache:

        def load() -> int:
            current_load().tags |= {""}
            return 1

        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert await cache.get("k") is None
        assert "tag is empty" in caplog.text


async def asked_for(cache: Any, ask: Any = None, **options: object) -> Any:
    """The old value of a load of "k", as its loader sees it."""
    seen: list[Any] = []

    def load() -> str:
        seen.append(current_load().stale)
        return "new"

    await (ask or cache.get_or_set)("k", cache.loader(load), **options)
    await until(lambda: seen)
    return seen[0]


async def test_no_old_value(make_cache: MakeCache) -> None:
    """There is none of a new key, nor of a deleted one."""
    async with make_cache(stale_if_error=TTL) as cache:
        assert await asked_for(cache) is None
        await cache.delete("k")
        assert await asked_for(cache) is None


@pytest.mark.parametrize("in_l1", [True, False])
async def test_the_old_value_past_its_end(make_cache: MakeCache, clock: ManualClock, in_l1: bool) -> None:
    """From Redis, while a stale window keeps it, else from this L1; the age counts from when it was stored."""
    async with make_cache(jitter=0, stale_if_error=0 if in_l1 else TTL) as cache:
        await cache.set("k", "old", ttl=TTL)
        if not in_l1:
            cache.clear_local()
        clock.advance(TTL + 1)
        assert await asked_for(cache) == ("old", pytest.approx(TTL + 1))


async def test_the_old_value_that_was_marked_stale(make_cache: MakeCache, clock: ManualClock) -> None:
    """Its age counts from when it was stored, too."""
    async with make_cache(stale_if_error=TTL) as cache:
        await cache.set("k", "old")
        clock.advance(1)
        await cache.mark_stale("k")
        clock.advance(1)
        assert await asked_for(cache) == ("old", pytest.approx(2))


async def test_the_old_value_of_a_forced_refresh(make_cache: MakeCache, clock: ManualClock) -> None:
    """It is still fresh."""
    async with make_cache() as cache:
        await cache.set("k", "old")
        clock.advance(1)
        assert await asked_for(cache, cache.refresh) == ("old", pytest.approx(1))


async def test_the_old_value_of_a_refresh_behind(make_cache: MakeCache, clock: ManualClock) -> None:
    """A refresh in the background knows the value that is served meanwhile."""
    async with make_cache(jitter=0, stale_while_revalidate=TTL) as cache:
        await cache.set("k", "old", ttl=TTL)
        clock.advance(TTL + 1)
        assert await asked_for(cache) == ("old", pytest.approx(TTL + 1))
        await until(lambda: cache.peek("k") == "new")


async def test_the_old_value_of_an_early_refresh(make_cache: MakeCache, clock: ManualClock) -> None:
    """It is before its end."""
    async with make_cache(jitter=0, early_refresh=0.5) as cache:
        await cache.set("k", "old", ttl=TTL)
        clock.advance(TTL / 2)
        assert await asked_for(cache) == ("old", pytest.approx(TTL / 2))
        await until(lambda: cache.peek("k") == "new")


async def test_what_a_load_of_many_keys_knows_and_says(make_cache: MakeCache, clock: ManualClock) -> None:
    """Its keys; of each the old value, and what is said of each, over what is said of all."""
    async with make_cache(jitter=0, stale_if_error=TTL) as cache:
        await cache.set("a", "old", ttl=TTL)
        clock.advance(TTL + 1)
        seen: list[object] = []

        def load(keys: list[str]) -> dict[str, str]:
            load = current_load()
            assert list(load.keys) == keys
            seen.extend([load["a"].key, load["a"].stale, load["b"].stale])
            for refused, error in ((lambda: load.key, AttributeError), (lambda: load.stale, RuntimeError)):
                with pytest.raises(error):
                    refused()
            with pytest.raises(KeyError):
                load["another key"]
            load.ttl = TTL
            load["a"].ttl = 2 * TTL
            load.tags |= {"all"}
            load["b"].tags |= {"b"}
            load["c"].skip()
            return {key: key.upper() for key in keys}

        found = await cache.get_or_set_many(list("abc"), cache.loader(load), tags=["call"])
        assert found == {"a": "A", "b": "B", "c": "C"}
        assert seen == ["a", ("old", pytest.approx(TTL + 1)), None]
        told = {key: await cache.explain(key) for key in "abc"}
        assert [told[key].remaining for key in "ab"] == [pytest.approx(2 * TTL), pytest.approx(TTL)]
        assert [told[key].tags for key in "ab"] == [("all", "call"), ("all", "b", "call")]
        assert await cache.get_many(list("abc")) == {"a": "A", "b": "B"}
        await cache.invalidate_tags("b")
        assert await cache.get_many(list("abc")) == {"a": "A"}


async def test_a_load_of_many_keys_is_skipped(make_cache: MakeCache) -> None:
    """All are returned, and none is stored."""
    async with make_cache() as cache:

        def load(keys: list[str]) -> dict[str, str]:
            current_load().skip()
            return {key: key.upper() for key in keys}

        assert await cache.get_or_set_many(["a", "b"], cache.loader(load)) == {"a": "A", "b": "B"}
        assert await cache.get_many(["a", "b"]) == {}


@pytest.mark.parametrize("of", ["all", "one"])
async def test_tags_of_many_keys_that_are_none_are_told(
    make_cache: MakeCache, caplog: pytest.LogCaptureFixture, of: str
) -> None:
    """The values are returned; those that were meant are not stored, and the log says why."""
    async with make_cache() as cache:

        def load(keys: list[str]) -> dict[str, str]:
            load = current_load() if of == "all" else current_load()["a"]
            load.tags = {"t", 7}  # type: ignore[arg-type]
            return {key: key.upper() for key in keys}

        assert await cache.get_or_set_many(["a", "b"], cache.loader(load)) == {"a": "A", "b": "B"}
        assert await cache.get_many(["a", "b"]) == ({} if of == "all" else {"b": "B"})
        assert "must be a string" in caplog.text


async def test_tags_are_any_strings_and_no_others(make_cache: MakeCache) -> None:
    """A list is taken as a set; one string or None is refused where it is said, and nothing is left behind."""
    async with make_cache() as cache:
        said: Any = ["t"]

        def load() -> int:
            current_load().tags = said
            return 1

        def load_many(keys: list[str]) -> dict[str, int]:
            current_load().tags = said
            current_load()["a"].tags = said
            return dict.fromkeys(keys, 1)

        assert await cache.get_or_set("k", cache.loader(load)) == 1
        assert (await cache.explain("k")).tags == ("t",)
        assert await cache.get_or_set_many(["a", "b"], cache.loader(load_many)) == {"a": 1, "b": 1}
        assert await cache.get_many(["a", "b"]) == {"a": 1, "b": 1}
        for wrong in ("t", None, 7):
            said = wrong
            with pytest.raises(ConfigError, match=f"load.tags={wrong!r}: must be a set of strings, as in "):
                await cache.get_or_set("other", cache.loader(load))
            with pytest.raises(ConfigError, match="must be a set of strings"):
                await cache.get_or_set_many(["a", "c"], cache.loader(load_many))


async def test_a_single_load_is_the_load_of_its_key(make_cache: MakeCache) -> None:
    """So that a function may serve loaders of both kinds."""
    async with make_cache() as cache:

        def load() -> list[object]:
            load = current_load()
            return [list(load.keys), load["k"] is load]

        assert await cache.get_or_set("k", cache.loader(load)) == [["k"], True]
