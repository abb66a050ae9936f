"""Decorated functions on a real server: what a call caches, who else sees it, and how it is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nearcache import ConfigError, UncacheableArgument
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import redis_of, until, value_name

CALLS: list[Any] = []
"""What the functions below were called with; tests that share a process do not run at the same time."""


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@pytest.fixture(params=["server", "memory"])
def cache(request: pytest.FixtureRequest, make_cache: MakeCache) -> Twin:
    """A cache on a server, and one without."""
    return make_cache("memory://" if request.param == "memory" else None)


async def double(number: int, *, extra: int = 0) -> int:
    """An expensive function."""
    CALLS.append((number, extra))
    await asyncio.sleep(0)
    return 2 * number + extra


async def failing(number: int) -> int:
    """A function that raises."""
    CALLS.append(number)
    raise LookupError(f"no {number}")


async def nothing(number: int) -> None:
    """A function that finds nothing."""
    CALLS.append(number)


async def test_a_call_is_made_once(cache: Twin) -> None:
    """The same arguments give the cached value, however they are written; others another one."""
    cached = cache.cached(double)
    assert [await cached(1), await cached(1), await cached(1, extra=0), await cached(number=1)] == [2, 2, 2, 2]
    assert CALLS == [(1, 0)]
    assert await cached(2) == 4
    assert await cached(1, extra=5) == 7
    assert CALLS == [(1, 0), (2, 0), (1, 5)]


async def test_arguments_of_another_type_are_other_arguments(cache: Twin) -> None:
    """1, 1.0 and True are three calls."""
    cached = cache.cached(double)
    for argument in (1, 1.0, True):
        result = await cached(argument)
        assert type(result) is type(2 * argument)
    assert len(CALLS) == 3


async def test_a_template_names_the_key(cache: Twin) -> None:
    """The value is under the key that the template makes, and get, set and delete reach it there."""
    cached = cache.cached("double:{number}:{extra}", ttl=60)(double)
    assert cached.key(7) == "double:7:0"
    assert await cached(7) == 14
    assert await cache.get("double:7:0") == 14
    await cache.set("double:7:0", 99)
    assert await cached(7) == 99
    await cache.delete("double:7:0")
    assert await cached(7) == 14
    assert CALLS == [(7, 0), (7, 0)]


async def test_the_wrapper_s_methods(cache: Twin) -> None:
    """Peek looks into L1 alone, invalidate drops one call, refresh calls again, `__wrapped__` is the function."""
    cached = cache.cached("double:{number}:{extra}", ttl=60)(double)
    assert cached.peek(1) is None
    assert await cached(1) == 2
    assert cached.peek(1) == 2
    await cached(2)
    assert await cached.invalidate(1) is True
    assert (cached.peek(1), cached.peek(2)) == (None, 4)
    assert await cached.refresh(2) == 4
    assert CALLS == [(1, 0), (2, 0), (2, 0)]


async def test_many_callers_share_one_call(cache: Twin) -> None:
    """Concurrent calls with the same arguments are one."""
    cached = cache.cached("double:{number}:{extra}")(double)
    assert await asyncio.gather(*[cached(3) for _ in range(40)]) == [6] * 40
    assert CALLS == [(3, 0)]


async def test_what_the_function_raises_is_not_cached(cache: Twin) -> None:
    """It reaches the caller as it is, each time anew."""
    cached = cache.cached("failing:{number}")(failing)
    for _ in range(2):
        with pytest.raises(LookupError, match="no 7"):
            await cached(7)
    assert CALLS == [7, 7]


async def test_a_cached_none_is_not_called_for_again(cache: Twin) -> None:
    """None is a value; with negative_ttl=0 it is not."""
    cached, uncached = cache.cached("a:{number}")(nothing), cache.cached("b:{number}", negative_ttl=0)(nothing)
    assert [await cached(1), await cached(1)] == [None, None]
    assert [await uncached(2), await uncached(2)] == [None, None]
    assert CALLS == [1, 2, 2]


async def test_a_call_that_cannot_become_a_key(cache: Twin) -> None:
    """An argument without a form of its own is told by name."""
    cached = cache.cached(double)
    with pytest.raises(UncacheableArgument, match="number"):
        await cached(object())


async def test_tags_may_be_templates(cache: Twin) -> None:
    """A tag of the arguments drops the calls that have it."""
    cached = cache.cached("double:{number}:{extra}", tags=["all", "number:{number}"])(double)
    assert [await cached(1), await cached(2)] == [2, 4]
    await cache.invalidate_tags("number:1")
    assert (cached.peek(1), cached.peek(2)) == (None, 4)
    await cache.invalidate_tags("all")
    assert cached.peek(2) is None


async def test_a_ttl_of_the_function(make_cache: MakeCache, namespace: str) -> None:
    """Options of the decorator are those of its values."""
    async with make_cache(jitter=0) as cache:
        cached = cache.cached("double:{number}:{extra}", ttl=33)(double)
        await cached(1)
        with redis_of(cache.url) as client:
            assert 30_000 < client.pttl(value_name(namespace, "double:1:0")) <= 33_000


async def test_another_instance_shares_the_value(make_cache: MakeCache) -> None:
    """The same function in another process, here another cache, does not call again; an invalidation reaches it."""
    async with make_cache() as one, make_cache() as other:
        here, there = one.cached("double:{number}:{extra}")(double), other.cached("double:{number}:{extra}")(double)
        assert [await here(1), await there(1)] == [2, 2]
        assert CALLS == [(1, 0)]
        assert await here.invalidate(1) is True
        await until(lambda: there.peek(1) is None)
        assert await there(1) == 2
        assert CALLS == [(1, 0), (1, 0)]


async def test_a_key_without_a_template_is_the_same_in_every_process(make_cache: MakeCache) -> None:
    """Module, qualified name and arguments make it, and nothing of this process."""
    async with make_cache() as one, make_cache() as other:
        here, there = one.cached(double), other.cached(double)
        assert here.key(1, extra=2) == there.key(1, extra=2)
        assert "double" in here.key(1)
        assert [await here(1, extra=2), await there(1, extra=2)] == [4, 4]
        assert CALLS == [(1, 2)]


async def test_without_redis_a_function_is_just_called(make_cache: MakeCache) -> None:
    """A decorated function never fails for the cache's sake."""
    cache = make_cache("redis://127.0.0.1:1/0")
    cached = cache.cached("double:{number}:{extra}")(double)
    assert [await cached(1), await cached(1)] == [2, 2]
    assert await cached.refresh(1) == 2
    assert await cached.invalidate(1) is False
    assert cached.peek(1) is None


async def other(number: int) -> int:
    """Another function."""
    return number


class Shop:
    """A class with a cached method."""

    async def price(self, number: int) -> int:
        """A method."""
        return number


@pytest.mark.parametrize("tags", [[], ["numbers"], ["number:{number}"]], ids=["plain", "tagged", "tagged by arguments"])
async def test_a_grouped_function_drops_all_its_values(make_cache: MakeCache, tags: list[str]) -> None:
    """Everywhere, with every argument, beside tags of its own; other functions keep theirs."""
    async with make_cache() as one, make_cache() as another:
        options: dict[str, Any] = {"grouped": True, "ignore": ["extra"], "tags": tags}
        cached, there = one.cached(**options)(double), another.cached(**options)(double)
        kept = one.cached("other:{number}", grouped=True)(other)
        assert [await cached(1), await cached(2), await there(2), await kept(1)] == [2, 4, 4, 1]
        assert await cached.invalidate_all() is True
        await until(lambda: there.peek(2) is None)
        assert (cached.peek(1), cached.peek(2), kept.peek(1)) == (None, None, 1)
        assert [await there(1), await cached(2)] == [2, 4]
        assert len(CALLS) == 4


async def test_a_group_is_that_of_the_template(cache: Twin) -> None:
    """In every version, and for all objects of a class."""
    shop = cache.cached("price:{number}", grouped=True)(Shop.price)
    newer = cache.cached("price:{number}", grouped=True, version="2")(Shop.price)
    assert [await shop(Shop(), 1), await newer(Shop(), 1)] == [1, 1]
    assert await shop.invalidate_all() is True
    assert (shop.peek(None, 1), newer.peek(None, 1)) == (None, None)


async def test_without_a_group_an_error_says_how(cache: Twin) -> None:
    """It names the function and the option."""
    with pytest.raises(ConfigError, match=r"double.*grouped=True"):
        await cache.cached(double).invalidate_all()
    with pytest.raises(ConfigError, match="grouped='yes'"):
        cache.cached(grouped="yes")(other)
