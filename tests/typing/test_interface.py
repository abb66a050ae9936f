"""Cache and AsyncCache are satisfied by both classes and the fakes; held by mypy and pyright in `make check`."""

from __future__ import annotations

import inspect
import typing
from typing import Any, assert_type

import pytest

from nearcache import AsyncCache, AsyncNearCache, Cache, NearCache, Settings
from nearcache.testing import FakeServer


def greeting(cache: Cache, user: int) -> str:
    """Application code that does not know how its cache is made."""

    @cache.cached("name:{id}", ttl=60)
    def name(id: int) -> str:  # noqa: A002  # as in the README
        return f"user {id}"

    assert_type(name(user), str)
    assert_type(name.key(user), str)
    assert_type(cache.get("a"), Any | None)
    assert_type(cache.get("a", 7), Any | int)
    assert_type(cache.peek("a", b""), Any | bytes)
    assert_type(cache.get_or_set("greeting", lambda: "hello", ttl=5), str)
    assert_type(cache.set("a", 1, tags=["t"]), bool)
    assert_type(cache.settings, Settings)
    return f"{cache.get_or_set('greeting', lambda: 'hello')}, {name(user)}"


async def async_greeting(cache: AsyncCache, user: int) -> str:
    """The same, awaited."""

    @cache.cached("name:{id}", ttl=60)
    async def name(id: int) -> str:  # noqa: A002  # as above
        return f"user {id}"

    async def hello() -> str:
        return "hello"

    assert_type(await name(user), str)
    assert_type(name.key(user), str)
    assert_type(await cache.get("a", 7), Any | int)
    assert_type(cache.peek("a", b""), Any | bytes)
    return f"{await cache.get_or_set('greeting', hello, ttl=5)}, {await name(user)}"


def test_both_classes_and_the_fake_are_caches() -> None:
    """By the types of their methods, without naming the Protocol."""
    with NearCache.from_url("memory://") as cache:
        assert greeting(cache, 7) == "hello, user 7"
    with FakeServer().cache() as faked:
        assert greeting(faked, 7) == "hello, user 7"


async def test_the_same_for_asyncio() -> None:
    """Awaited."""
    async with AsyncNearCache.from_url("memory://") as cache:
        assert await async_greeting(cache, 7) == "hello, user 7"
    async with FakeServer().async_cache() as faked:
        assert await async_greeting(faked, 7) == "hello, user 7"


def test_mistakes_that_a_checker_finds() -> None:
    """The other class, and an option that does not exist."""
    if typing.TYPE_CHECKING:
        greeting(AsyncNearCache.from_url("memory://"), 7)  # type: ignore[arg-type]
    plain: Cache = NearCache.from_url("memory://")
    with pytest.raises(ValueError, match="unknown option"):
        plain.set("a", 1, tll=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(("protocol", "cls"), [(Cache, NearCache), (AsyncCache, AsyncNearCache)])
def test_the_methods_are_exactly_those_of_the_classes(protocol: type, cls: type) -> None:
    """Names, defaults and annotations, of each form of a call: a change of one side alone is found."""
    members = {name for base in protocol.__mro__[:2] for name in vars(base) if not name.startswith("_")}
    words = {name for name in dir(cls) if not name.startswith("_")}
    assert words - members == {"from_url", "from_env", "shared", "codec"}, "how a cache is made is left open"
    for name in members:
        own, ours = inspect.getattr_static(protocol, name), inspect.getattr_static(cls, name)
        assert type(own) is type(ours), name
        if isinstance(own, property):
            own, ours = own.fget, ours.fget
        assert forms(own) == forms(ours), name


def forms(function: Any) -> list[str]:
    """The forms of a call as a reader sees them."""
    overloads = typing.get_overloads(function) or [function]
    return [str(inspect.signature(form)).replace("EventListener", "Listener") for form in overloads]
