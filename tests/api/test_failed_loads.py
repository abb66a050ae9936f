"""Loads that fail or can't be kept: each caller has an exception of its own, and what no caller sees is told."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
import warnings
from typing import Any

import pytest

from nearcache import ConfigError, LoadFailed, NearCache, NearCacheWarning
from nearcache.local.singleflight import again
from nearcache.testing import ManualClock
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, until

WAITERS = 300


class Odd(Exception):
    """Takes other arguments than it hands on."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code


class Strange(Exception):
    """Can't be made again."""

    def __new__(cls, *args: object) -> Any:
        """Refuse what a copy is made of."""
        if not args:
            raise TypeError
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        super().__init__()


def deep(levels: int, error: Exception) -> None:
    """Raise from some calls below."""
    if levels:
        deep(levels - 1, error)
    raise error


async def test_each_follower_has_an_exception_of_its_own(make_cache: MakeCache) -> None:
    """What one caller attaches to its exception the others do not see, and frames do not add up."""
    cache = make_cache()
    go = asyncio.Event()

    async def load() -> None:
        await go.wait()
        error = Odd(7, where="home")
        error.add_note("of the loader")
        deep(3, error)

    readers = [asyncio.create_task(cache.get_or_set("k", cache.loader(load))) for _ in range(8)]
    await until(lambda: cache.stats().misses >= 1)
    await asyncio.sleep(0.2)  # so that most of them follow; those that do not load anew, and raise the same
    go.set()
    errors = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(error) for error in errors} == {Odd}
    assert {str(error) for error in errors} == {"code 7 at home"}
    assert {error.code for error in errors} == {7}  # type: ignore[union-attr]
    assert len({id(error) for error in errors}) == len(errors)
    errors[0].add_note("mine")
    assert [error.__notes__ for error in errors[1:]] == [["of the loader"]] * 7
    for error in errors:
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames.count("deep") == 4
        assert len(frames) < 40


def test_many_waiters_of_one_failed_load_log_little() -> None:
    """Frames and bytes per waiter do not grow with the number of waiters."""
    cache = NearCache.from_url("memory://")
    entered, go = threading.Barrier(WAITERS + 1), threading.Event()
    logged: list[str] = []
    frames: list[int] = []

    def load() -> None:
        go.wait(20)
        raise LookupError("no such user")

    def wait() -> None:
        entered.wait()
        try:
            cache.get_or_set("k", load)
        except LookupError as error:
            frames.append(len(traceback.extract_tb(error.__traceback__)))
            logged.append("".join(traceback.format_exception(error)))

    threads = [threading.Thread(target=wait) for _ in range(WAITERS)]
    for thread in threads:
        thread.start()
    entered.wait()
    go.set()
    for thread in threads:
        thread.join()
    cache.close()
    assert len(logged) == WAITERS
    assert max(frames) < 20
    assert max(map(len, logged)) < 4000


def test_an_exception_that_cannot_be_made_again_is_shared() -> None:
    """Of every other kind there is a copy, with all that the original has."""
    strange = Strange(1)
    assert again(strange, None) is strange
    cause, missing = ValueError("cause"), FileNotFoundError(2, "no such file", "name")
    for error in (missing, UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), KeyError("k"), Odd(1, where="here")):
        error.__cause__ = cause
        copied = again(error, None)
        assert copied is not error
        assert (type(copied), str(copied), copied.args) == (type(error), str(error), error.args)
        assert copied.__cause__ is cause
    assert again(missing, None).filename == "name"  # type: ignore[attr-defined]


async def test_an_error_that_a_stale_value_hides_is_told(
    make_cache: MakeCache, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten raises: ten events that name it, one line of the log, and health has it."""
    cache = make_cache(stale_if_error=1000, stale_backoff=0.001)
    heard = Heard(cache)
    await cache.get_or_set("k", cache.loader("old"), ttl=1)

    def load() -> None:
        raise LookupError("the database is on fire")

    with caplog.at_level(logging.WARNING, "nearcache"):
        for _ in range(10):
            clock.advance(2)
            assert await cache.get_or_set("k", cache.loader(load)) == "old"
    failed = heard.of(LoadFailed)
    assert len(failed) == 10
    assert all("LookupError: the database is on fire" in event.reason for event in failed)
    assert all(isinstance(event.error, LookupError) for event in failed)
    assert "the database is on fire" in str(cache.health().load_error)
    assert 1 <= sum("on fire" in line for line in caplog.messages) <= 10
    quick = Heard(cache)
    for _ in range(5):
        clock.advance(0.01)
        assert await cache.get_or_set("k", cache.loader(load)) == "old"
    assert [event.repeated for event in quick.of(LoadFailed)] == [True] * 5


async def test_a_value_that_cannot_be_kept_is_told_once_per_function(make_cache: MakeCache) -> None:
    """Not once per key; the caller gets the value."""
    cache = make_cache()
    heard = Heard(cache)

    @cache.cached("thing:{number}")  # type: ignore[untyped-decorator]
    async def thing(number: int) -> object:
        return {object: number}

    for number in range(20):
        assert await thing(number) == {object: number}
    (failed,) = heard.of(LoadFailed)
    assert "thing" in failed.reason
    assert cache.stats().uncached == 20


def test_it_is_a_python_warning_too() -> None:
    """Which is visible without any configuration."""
    cache = NearCache.from_url("memory://")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for number in range(3):
            cache.get_or_set(f"k{number}", object)
    assert [warning.category for warning in shown] == [NearCacheWarning]
    assert shown[0].filename == __file__
    cache.close()


BAD: list[Any] = [lambda _: 0, lambda _: -1, lambda _: 1 / 0, lambda _: "soon"]


@pytest.mark.parametrize("bad", BAD, ids=["zero", "less", "raises", "text"])
async def test_a_ttl_that_fails_follows_one_rule(make_cache: MakeCache, bad: Any) -> None:
    """Set raises ConfigError, and stores nothing; a load returns the value uncached."""
    cache = make_cache()
    heard = Heard(cache)
    await cache.set("k", "before")
    with pytest.raises(ConfigError, match="ttl"):
        await cache.set("k", "value", ttl=bad)
    assert await cache.get("k") == "before"
    for _ in range(2):
        assert await cache.get_or_set("other", cache.loader("value"), ttl=bad) == "value"
    assert cache.stats().uncached == 2
    assert len(heard.of(LoadFailed)) == 1
    with pytest.raises(ConfigError, match="condition"):
        await cache.set("k", "value", condition=lambda _: 1 / 0)
