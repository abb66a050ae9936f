"""The public signatures as type checkers see them; held by mypy in `make check`, run here to see that they are true.

``assert_type`` does nothing at run time. A ``type: ignore`` here is a mistake that a checker must find: one that is not
needed is an error too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, assert_type

import pytest
import redis
import redis.asyncio

from nearcache import (
    AsyncCachedFunction,
    AsyncNearCache,
    CachedFunction,
    ConfigError,
    Event,
    NearCache,
    Settings,
    Stats,
)


class User:
    """A user's own type."""


def test_reading_and_writing() -> None:
    """`get` returns anything or the default's type; writes return bool."""
    with NearCache.from_url("memory://", ttl=60, copy="none") as cache:
        assert_type(cache, NearCache)
        assert_type(cache.get("a"), Any | None)
        assert_type(cache.get("a", 7), Any | int)
        assert_type(cache.get("a", default="x"), Any | str)
        assert_type(cache.peek("a"), Any | None)
        assert_type(cache.peek("a", b""), Any | bytes)
        assert_type(cache.get_many(["a"]), dict[str, Any])
        assert_type(cache.get_many(key for key in "ab"), dict[str, Any])
        assert_type(cache.set("a", 1, ttl=5, tags=["t"], condition=bool), bool)
        assert_type(cache.set_many({"a": 1}, l1_ttl=5), bool)
        assert_type(cache.delete("a", "b"), bool)
        assert_type(cache.delete_existing("a"), bool)
        assert_type(cache.add("a", 1, ttl=5, tags=["t"]), bool)
        assert_type(cache.touch("a", ttl=5), bool)
        assert_type(cache.incr("n", 2, initial=0, ttl=5), int)
        assert_type(NearCache.shared("memory://", namespace="types"), NearCache)
        assert_type(cache.invalidate_tags("t", stale=True), bool)
        assert_type(cache.clear(), bool)
        assert_type(cache.wait_healthy(timeout=1), bool)
        assert_type(cache.healthy, bool)
        assert_type(cache.url, str)
        assert_type(cache.stats(), Stats)
        assert_type(cache.stats().l1_hits, int)
        assert_type(cache.settings, Settings)
        assert_type(cache.on_event(_hear), Callable[[], None])


async def test_reading_and_writing_awaited() -> None:
    """The same words, awaited; what is plain is plain."""
    async with AsyncNearCache.from_url("memory://", ttl=60) as cache:
        assert_type(cache, AsyncNearCache)
        assert_type(await cache.get("a"), Any | None)
        assert_type(await cache.get("a", 7), Any | int)
        assert_type(cache.peek("a", b""), Any | bytes)
        assert_type(await cache.get_many(["a"]), dict[str, Any])
        assert_type(await cache.set("a", 1, ttl=5), bool)
        assert_type(await cache.set_many({"a": 1}), bool)
        assert_type(await cache.delete("a"), bool)
        assert_type(await cache.delete_existing("a"), bool)
        assert_type(await cache.add("a", 1), bool)
        assert_type(await cache.touch("a"), bool)
        assert_type(await cache.incr("n"), int)
        assert_type(await cache.invalidate_tags("t"), bool)
        assert_type(await cache.clear(), bool)
        assert_type(await cache.wait_healthy(1), bool)
        assert_type(cache.healthy, bool)
        assert_type(cache.stats(), Stats)


def _hear(event: Event) -> None:
    """A callback."""


def _load_user() -> User:
    return User()


async def _await_user() -> User:
    return User()


def test_a_load_has_the_loader_s_type() -> None:
    """get_or_set and refresh return what the loader returns."""
    with NearCache.from_url("memory://") as cache:
        assert_type(cache.get_or_set("a", _load_user, ttl=5, lease=1, wait_timeout=1), User)
        assert_type(cache.refresh("a", _load_user), User)
        assert_type(cache.get_or_set("b", lambda: 7), int)


async def test_an_awaited_load_has_the_loader_s_type() -> None:
    """The same for coroutine functions."""
    async with AsyncNearCache.from_url("memory://") as cache:
        assert_type(await cache.get_or_set("a", _await_user), User)
        assert_type(await cache.refresh("a", _await_user), User)


MYPY = False
CACHE = NearCache.from_url("memory://")
ASYNC_CACHE = AsyncNearCache.from_url("memory://")


@CACHE.cached
def bare(a: int, *, b: str = "") -> bytes:
    """Decorated bare."""
    return f"{a}{b}".encode()


@CACHE.cached(ttl=60, ignore=["b"])
def with_options(a: int, b: str = "") -> list[int]:
    """Decorated with options."""
    return [a]


@CACHE.cached("user:{a}", ttl=60, tags=["users"])
def with_template(a: int) -> dict[str, int]:
    """Decorated with a key template."""
    return {"a": a}


class Service:
    """Methods bind."""

    @CACHE.cached("service:{number}")
    def method(self, number: int) -> str:
        """A method."""
        return str(number)

    @ASYNC_CACHE.cached("service:{number}")
    async def async_method(self, number: int) -> str:
        """A coroutine method."""
        return str(number)

    @classmethod
    @CACHE.cached("of class:{number}")
    def of_class(cls, number: int) -> str:
        """A class method."""
        return str(number)

    @ASYNC_CACHE.cached("of class:{number}")
    @classmethod
    async def async_of_class(cls, number: int) -> str:
        """A coroutine method of a class."""
        return str(number)

    @staticmethod
    @CACHE.cached("static:{number}")
    def static(number: int) -> str:
        """A static method."""
        return str(number)

    @ASYNC_CACHE.cached("static:{number}")
    @staticmethod
    async def async_static(number: int) -> str:
        """A static coroutine method."""
        return str(number)


@ASYNC_CACHE.cached
async def async_bare(a: int) -> bytes:
    """Decorated bare."""
    return b"x" * a


@ASYNC_CACHE.cached("user:{a}", ttl=60)
async def async_with_template(a: int) -> dict[str, int]:
    """Decorated with a key template."""
    return {"a": a}


def test_a_cached_function_keeps_its_signature() -> None:
    """Called as before; its methods take the same arguments."""
    assert_type(bare(1, b="x"), bytes)
    assert_type(bare.invalidate(1, b="x"), bool)
    with pytest.raises(ConfigError):
        assert_type(bare.invalidate_all(), bool)
    assert_type(bare.refresh(1), bytes)
    assert_type(bare.peek(1), bytes | None)
    assert_type(bare.key(1), str)
    assert_type(bare.__wrapped__(1), bytes)
    assert_type(with_options(1), list[int])
    assert_type(with_template(1), dict[str, int])
    kept: CachedFunction[[int], dict[str, int]] = with_template
    assert kept is with_template


def test_a_cached_method_binds() -> None:
    """Without `self` among its arguments."""
    service = Service()
    assert_type(service.method(1), str)
    assert_type(service.method.invalidate(1), bool)
    assert_type(service.method.peek(1), str | None)
    assert_type(service.method.key(1), str)
    assert_type(Service.method(service, 1), str)


def test_cached_methods_of_classes_and_static_ones() -> None:
    """From the class and from an object, with the decorator above and below."""
    assert_type(Service.static(1), str)
    assert_type(Service.static.invalidate(1), bool)
    assert_type(Service.async_static.key(1), str)
    assert_type(Service.of_class(1), str)
    assert_type(Service().of_class(1), str)
    if sys.version_info < (3, 13):  # see nearcache.functions.wrapper
        assert_type(Service.of_class.key(1), str)
        assert_type(Service().of_class.invalidate(1), bool)
    assert_type(Service.async_of_class.key(1), str)
    assert_type(Service().async_of_class.peek(1), str | None)
    if not MYPY:  # the same
        assert_type(Service().static(1), str)
        assert_type(Service().static.peek(1), str | None)
        assert_type(Service().async_static.peek(1), str | None)


async def test_a_cached_coroutine_function_keeps_its_signature() -> None:
    """Peek and key are plain, all else is awaited."""
    cache = AsyncNearCache.from_url("memory://")

    @cache.cached("a:{a}")
    async def cached(a: int) -> bytes:
        return b"x" * a

    assert_type(await cached(1), bytes)
    assert_type(await cached.invalidate(1), bool)
    assert_type(await cached.refresh(1), bytes)
    assert_type(cached.peek(1), bytes | None)
    assert_type(cached.key(1), str)
    kept: AsyncCachedFunction[[int], bytes] = cached
    assert kept is cached
    await cache.close()


def test_mistakes_that_a_checker_finds() -> None:
    """A misspelt or wrongly typed setting, option or argument, the wrong client, the wrong kind of function."""
    with pytest.raises(ConfigError):
        NearCache.from_url("memory://", tll=5)  # type: ignore[call-arg]
    with pytest.raises(ConfigError):
        NearCache.from_url("memory://", copy="deep")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Settings(ttl="60")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        NearCache(redis.asyncio.Redis())  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        AsyncNearCache(redis.Redis())  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        CACHE.set("a", 1, lease=5, tll=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="must be a string"):
        CACHE.get(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        with_template("x", "y")  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError):
        with_template.key(b=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ASYNC_CACHE.cached(_load_user)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        CACHE.cached("a", ttl=60, tll=5)  # type: ignore[call-overload]


def test_a_wrapper_in_a_class_of_its_own_is_typed_too() -> None:
    """What is decorated at module level with AsyncNearCache has the coroutine function's signature."""
    assert async_bare.key(1) != async_bare.key(2)
    assert_type(async_with_template.key(1), str)
    assert_type(Service().async_method.key(1), str)
