"""Bad input to a call: each its own clear error, whose text names the value and the way out; and use after close."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from nearcache import CacheClosed, CodecError, ConfigError, InvalidKey, ValueTooLarge
from tests.support.cases import each
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import shut

pytestmark = pytest.mark.one_server
"""What is told here is told before a server is asked."""


@pytest.fixture
def cache(make_cache: MakeCache) -> Twin:
    """A cache without a server."""
    return make_cache("memory://", max_key_bytes=32, max_value_bytes=64)


async def call(cache: Twin, name: str, key: Any, **options: Any) -> Any:
    """Call a method that takes a key."""
    match name:
        case "set":
            return await cache.set(key, 1, **options)
        case "set_many":
            return await cache.set_many({"good": 1, key: 2}, **options)
        case "get_many":
            return await cache.get_many(["good", key])
        case "delete":
            return await cache.delete("good", key)
        case "get_or_set" | "refresh":
            return await getattr(cache, name)(key, cache.loader(1), **options)
        case "peek":
            return cache.peek(key)
        case _:
            return await cache.get(key)


METHODS = ["get", "get_many", "peek", "set", "set_many", "delete", "get_or_set", "refresh"]
STORING = ["set", "set_many", "get_or_set", "refresh"]


@each("method", METHODS)
@each(
    "key, words",
    [
        ("", "the key is empty"),
        (7, "key 7 is of type int: must be a string, as in f'user:{id}'"),
        (None, "key None is of type NoneType: must be a string"),
        (b"bytes", "key b'bytes' is of type bytes: must be a string"),
        (("a", 1), "key ('a', 1): several are given one by one"),
        ("x" * 33, "has 33 bytes: at most max_key_bytes=32"),
        ("é" * 17, "has 34 bytes: at most max_key_bytes=32"),
        ("a\ud800", "has a lone surrogate: must be text that UTF-8 can carry"),
    ],
)
async def test_a_bad_key(cache: Twin, method: str, key: Any, words: str) -> None:
    """Every method that takes keys refuses one that is none, and does nothing to the others."""
    await cache.set("good", 0)
    with pytest.raises(InvalidKey) as caught:
        await call(cache, method, key)
    assert words in str(caught.value)
    assert cache.peek("good") == 0


async def test_no_message_repeats_a_whole_value(cache: Twin) -> None:
    """What is wrong may have 10 MB."""
    huge: Any = b"x" * 10_000_000
    text = huge.decode()
    calls: list[Callable[[], Any]] = [
        lambda: cache.get(huge),
        lambda: cache.get(text + "\ud800"),
        lambda: cache.get([text]),
        lambda: cache.get_many(text),
        lambda: cache.set_many(text),
        lambda: cache.set("a", 1, tags=text),
        lambda: cache.set("a", 1, tags=[huge]),
        lambda: cache.set("a", 1, condition=text),
        lambda: cache.set("a", 1, ttl=text),
        lambda: cache.set(text, 1),
    ]
    for act in calls:
        with pytest.raises((ConfigError, InvalidKey)) as caught:
            await act()
        assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError) as caught:
        cache.on_event(text)
    assert len(str(caught.value)) < 1000


async def test_a_key_of_a_type_that_cannot_be_hashed(cache: Twin) -> None:
    """A list as key is an InvalidKey as well, not a TypeError about hashing."""
    for method in ("get", "peek", "set", "delete", "get_or_set", "refresh", "get_many"):
        with pytest.raises(InvalidKey, match=r"key \['a'\]: several are given one by one"):
            await call(cache, method, ["a"])


@pytest.mark.parametrize("keys", ["abc", b"abc"], ids=["str", "bytes"])
async def test_a_lone_key_is_not_several(cache: Twin, keys: Any) -> None:
    """A string given to `get_many` is a mistake, and not its letters."""
    with pytest.raises(InvalidKey, match="must be several keys, as in get_many"):
        await cache.get_many(keys)


async def test_the_longest_key_is_good(cache: Twin) -> None:
    """max_key_bytes is what still goes."""
    assert await cache.set("é" * 16, 1) is True
    assert await cache.get("é" * 16) == 1


@each("method", STORING)
@each("value", [-1, 0, math.inf, -math.inf, math.nan, True, "60", timedelta(-1), 10**400])
@each("name", ["ttl", "l1_ttl", "negative_ttl"])
async def test_a_wrong_duration_in_a_call(cache: Twin, method: str, name: str, value: Any) -> None:
    """The durations of a call are checked as those of the settings; nothing is stored or loaded."""
    if name == "negative_ttl" and value == 0:
        value = -0.5
    with pytest.raises(ConfigError) as caught:
        await call(cache, method, "a", **{name: value})
    assert f"{name}={value!r}: must be " in str(caught.value)
    assert cache.peek("a") is None
    assert cache.stats().loads == 0


@pytest.mark.parametrize("method", ["get_or_set", "refresh"])
@pytest.mark.parametrize("name", ["lease", "wait_timeout"])
async def test_a_wrong_duration_of_a_load(cache: Twin, method: str, name: str) -> None:
    """The same for lease and wait_timeout."""
    with pytest.raises(ConfigError, match=f"{name}=0: must be more than 0 seconds"):
        await call(cache, method, "a", **{name: 0})


@pytest.mark.parametrize("value", [-1, 0, math.inf, math.nan, True, None])
async def test_a_wrong_timeout_of_wait_healthy(cache: Twin, value: Any) -> None:
    """wait_healthy refuses it too."""
    with pytest.raises(ConfigError, match="timeout="):
        await cache.wait_healthy(value)


@pytest.mark.parametrize("method", STORING)
async def test_an_unknown_option(cache: Twin, method: str) -> None:
    """A misspelt option is told, with the one that may have been meant."""
    with pytest.raises(ConfigError, match="unknown option 'tll'; did you mean 'ttl'"):
        await call(cache, method, "a", tll=5)


@each("method", ["set", "set_many"])
@each("name", ["lease", "wait_timeout", "stale_if_error", "early_refresh"])
async def test_a_call_that_only_stores_takes_no_option_of_loads(cache: Twin, method: str, name: str) -> None:
    """It would do nothing there; the error names the options that the call has."""
    known = "condition, copy, l1_ttl, negative_ttl, tags, ttl"
    with pytest.raises(ConfigError, match=f"unknown option '{name}'; known are: {known}$"):
        await call(cache, method, "a", **{name: 0.5})
    assert await cache.get("a") is None


@each("method", STORING)
@each(
    "tags, error, words",
    [
        ("users", ConfigError, "tags='users': must be a sequence of strings, as in tags=['users']"),
        (7, ConfigError, "tags=7: must be a sequence"),
        ([""], InvalidKey, "the tag is empty"),
        ([7], InvalidKey, "tag 7 is of type int: must be a string"),
        (["x" * 33], InvalidKey, "has 33 bytes: at most max_key_bytes=32"),
        (["\udfff"], InvalidKey, "has a lone surrogate"),
        ([f"tag{number}" for number in range(256)], ConfigError, "256 tags of one value: at most 255"),
    ],
)
async def test_bad_tags(cache: Twin, method: str, tags: Any, error: type[Exception], words: str) -> None:
    """A tag is checked as a key is; a lone string as tags is a mistake."""
    with pytest.raises(error) as caught:
        await call(cache, method, "a", tags=tags)
    assert words in str(caught.value)


@pytest.mark.parametrize("tag", ["", 7, "x" * 33, "\ud800"])
async def test_a_bad_tag_to_invalidate(cache: Twin, tag: Any) -> None:
    """The same at invalidate_tags."""
    with pytest.raises(InvalidKey, match="tag"):
        await cache.invalidate_tags("good", tag)


@pytest.mark.parametrize("method", STORING)
async def test_a_condition_that_is_no_function(cache: Twin, method: str) -> None:
    """`condition` must be callable."""
    with pytest.raises(ConfigError, match="condition=True: must be a function from the value to a bool"):
        await call(cache, method, "a", condition=True)


@pytest.mark.parametrize(
    "value", [object(), {"deep": [object()]}, {1, "a", object()}, lambda: None, "\ud800"], ids=range(5)
)
async def test_a_value_that_cannot_be_encoded(make_cache: MakeCache, value: Any) -> None:
    """`set` refuses it, whichever tier it would have gone to, and keeps the old one."""
    for url in (None, "memory://"):
        cache = make_cache(url)
        await cache.set("a", "old")
        with pytest.raises(CodecError):
            await cache.set("a", value)
        assert await cache.get("a") == "old"


async def test_a_value_that_is_too_large(cache: Twin) -> None:
    """The error names the key, both sizes and the setting; nothing is stored."""
    with pytest.raises(
        ValueTooLarge, match=r"'a' has 10\d bytes encoded: at most max_value_bytes=64; store it in parts"
    ):
        await cache.set("a", "x" * 100)
    assert await cache.get("a") is None


@each("text", ["x" * 2000, "\u4e16" * 400, "\ud800", "", "a:b{c}", "'"])
async def test_no_text_makes_a_decorated_call_fail(cache: Twin, text: str) -> None:
    """Nor its tags, nor `invalidate`, `peek`, `refresh` and `key`: what makes no key is digested."""

    @cache.cached("{a}:q", tags=["{a}", "of:{a}"])  # type: ignore[untyped-decorator]
    async def echo(a: str) -> str:
        return a.encode(errors="replace").decode()[:9]

    result = text.encode(errors="replace").decode()[:9]
    assert [await echo(text), await echo(text)] == [result, result]
    assert echo.peek(text) == await cache.get(echo.key(text)) == result
    assert await echo.refresh(text) == result
    assert await echo.invalidate(text)
    assert echo.peek(text) is None


@pytest.mark.parametrize("url", [None, "memory://"])
async def test_use_after_close(make_cache: MakeCache, url: str | None) -> None:
    """Every method raises CacheClosed, also for what was in L1; what only tells still tells."""
    cache = make_cache(url)

    @cache.cached("echo:{a}")  # type: ignore[untyped-decorator]
    async def echo(a: int) -> int:
        return a

    await cache.set("a", 1)
    await echo(1)
    await shut(cache)
    for name in METHODS:
        with pytest.raises(CacheClosed, match="was closed; make a new one"):
            await call(cache, name, "a")
    for work in (cache.clear, cache.invalidate_tags, cache.wait_healthy, cache.delete):
        with pytest.raises(CacheClosed):
            await work()
    for name, argument in (("get_many", []), ("set_many", {}), ("invalidate_tags", "t")):
        with pytest.raises(CacheClosed):
            await getattr(cache, name)(argument)
    for function in (echo, echo.refresh, echo.invalidate):
        with pytest.raises(CacheClosed):
            await function(1)
    with pytest.raises(CacheClosed):
        echo.peek(1)
    with pytest.raises(CacheClosed):
        cache.clear_local()
    assert cache.healthy is False
    assert cache.stats().l1_entries == 0
    assert repr(cache.cache)
    assert echo.key(1) == "echo:1"


async def test_a_read_under_way_ends_when_the_cache_is_closed(make_cache: MakeCache) -> None:
    """A load that is out when `close` is called still reaches its caller."""
    cache = make_cache()
    started, go = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        started.set()
        await go.wait()
        return "loaded"

    reader = asyncio.create_task(cache.get_or_set("a", cache.loader(load)))
    await started.wait()
    closing = asyncio.create_task(asyncio.to_thread(cache.cache.close)) if cache.mode == "sync" else None
    if closing is None:
        await shut(cache)
    else:
        await closing
    go.set()
    assert await reader == "loaded"


async def test_what_is_no_callback_no_loader_and_no_keys(cache: Twin) -> None:
    """Told at once, with the value and the way out."""
    with pytest.raises(ConfigError, match="callback=None: must be callable"):
        cache.on_event(None)
    with pytest.raises(ConfigError, match="loader=None: must be callable"):
        await cache.get_or_set("a", None)
    with pytest.raises(InvalidKey, match="keys=None: must be several keys"):
        await cache.get_many(None)


async def test_no_depth_of_an_argument_makes_a_decorated_call_fail(cache: Twin) -> None:
    """As of JSON that a user sent; with a template, by default, and in a tag."""

    @cache.cached("q:{a}", tags=["of:{a}"])  # type: ignore[untyped-decorator]
    async def echo(a: Any) -> int:
        return len(a)

    deep: Any = range(10**5000)  # has more digits than Python prints
    for _ in range(2000):
        deep = {"a": [deep]}
    assert [await echo(deep), await echo(deep), echo.peek(deep)] == [1, 1, 1]
    assert await echo.invalidate(deep)
    assert echo.peek(deep) is None


async def test_any_number_of_tags_is_invalidated(cache: Twin) -> None:
    """A value has at most 255; a call that invalidates takes as many as `delete` takes keys."""
    await cache.set("a", 1, tags=["t999"])
    assert await cache.invalidate_tags(*(f"t{number}" for number in range(1200))) is True
    assert await cache.get("a") is None


async def test_a_cache_is_neither_copied_nor_pickled(cache: Twin) -> None:
    """The error says what to do, also where an object that holds one is copied."""
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="make another one by its URL"):
            act(cache.cache)


@each(
    "options, words",
    [
        ({"ttl": -1}, "ttl=-1: must be more than 0 seconds"),
        ({"unknown": 1}, "unknown option 'unknown'"),
        ({"tags": "users"}, "tags='users': must be a sequence"),
        ({"tags": 0}, "tags=0: must be a sequence"),
        ({"condition": True}, "condition=True: must be a function"),
        ({"lease": 1e-9}, "lease=1e-09: must be at least 0.001 seconds"),
        ({"ttl": 10**5000}, "ttl=<int>: must be more than 0 seconds and at most 10 years"),
        ({"early_refresh": 10**400}, "early_refresh="),
        ({"early_refresh": 0.5, "xfetch_beta": 1.0}, "give one of them"),
        ({"loader_soft_timeout": 1}, "give stale_if_error too"),
    ],
)
async def test_a_wrong_option_is_told_on_a_hit_too(cache: Twin, options: dict[str, Any], words: str) -> None:
    """The call of `get_or_set` is wrong, whether the value is there or not."""
    await cache.set("a", 1)
    assert cache.peek("a") == 1
    with pytest.raises(ConfigError) as caught:
        await cache.get_or_set("a", cache.loader(2), **options)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert (
        await cache.get_or_set("a", cache.loader(2), ttl=60, tags=["t"], loader_soft_timeout=1, stale_if_error=1) == 1
    )


async def test_a_cache_that_is_not_made_has_a_repr(cache: Twin) -> None:
    """It is shown by debuggers, and by pytest's tracebacks of what was wrong with its URL."""
    kind: Any = type(cache.cache)
    assert repr(kind.__new__(kind)) == f"<{kind.__name__} that is not made>"
