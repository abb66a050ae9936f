"""Bad functions: a loader or a decorated function of the wrong kind is told at once, on both classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from nearcache import AsyncNearCache, ConfigError, NearCache

CLASSES = [NearCache, AsyncNearCache]


def test_a_loader_of_the_wrong_kind_on_near_cache() -> None:
    """A coroutine function given to a threaded cache is a TypeError that says so; no coroutine is left unawaited."""
    with NearCache.from_url("memory://") as cache:

        async def load() -> int:
            return 1

        methods: list[Any] = [cache.get_or_set, cache.refresh]
        for method in methods:
            with pytest.raises(TypeError, match="coroutine function; NearCache takes plain ones"):
                method("a", load)
        assert cache.peek("a") is None


async def test_a_loader_of_the_wrong_kind_on_async_near_cache() -> None:
    """A plain function given to an asyncio cache is a TypeError that says so."""
    async with AsyncNearCache.from_url("memory://") as cache:
        wrong: Any = lambda: 1  # noqa: E731  # any function
        for method in (cache.get_or_set, cache.refresh):
            with pytest.raises(TypeError, match="gave no awaitable; AsyncNearCache takes coroutine functions"):
                await method("a", wrong)
        assert cache.peek("a") is None


async def coroutine_function(a: int) -> int:
    """What AsyncNearCache caches."""
    return a


def plain_function(a: int) -> int:
    """What NearCache caches."""
    return a


def generator_function(a: int) -> Iterator[int]:
    """What nobody caches."""
    yield a


async def async_generator_function(a: int) -> AsyncIterator[int]:
    """The same."""
    yield a


@pytest.mark.parametrize(
    ("kind", "function", "words"),
    [
        (NearCache, coroutine_function, "coroutine_function is a coroutine function: .*use AsyncNearCache"),
        (AsyncNearCache, plain_function, "plain_function is a plain function: .*use NearCache"),
        (NearCache, generator_function, "is a generator function: .*return a list"),
        (AsyncNearCache, generator_function, "is a generator function: .*return a list"),
        (NearCache, async_generator_function, "is a generator function: .*return a list"),
        (AsyncNearCache, async_generator_function, "is a generator function: .*return a list"),
        (NearCache, 7, r"cached\(7\): must be a function, a key template or nothing"),
        (AsyncNearCache, 7, r"cached\(7\): must be a function, a key template or nothing"),
    ],
)
def test_a_function_that_cannot_be_cached(kind: Any, function: Any, words: str) -> None:
    """A function of the wrong kind is a TypeError at decoration, bare, with brackets and with a template."""
    cache = kind.from_url("memory://")
    with pytest.raises(TypeError, match=words):
        cache.cached(function)
    if callable(function):
        for decorate in (cache.cached(), cache.cached(ttl=5), cache.cached("a:{a}")):
            with pytest.raises(TypeError, match=words):
                decorate(function)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_wrong_option_of_a_decorator(kind: Any) -> None:
    """Options are checked at decoration, not at the first call."""
    cache = kind.from_url("memory://")
    for options, words in [
        ({"ttl": -1}, "ttl=-1"),
        ({"l1_ttl": 0}, "l1_ttl=0"),
        ({"ttl": 5, "l1_ttl": 9}, "l1_ttl=9.0, ttl=5.0: l1_ttl caps"),
        ({"tll": 1}, "did you mean 'ttl'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            cache.cached("a:{a}", **options)
