"""The return annotation of a cached function: its types are registered, and what can't be cached is told."""

from __future__ import annotations

import asyncio
import collections
import functools
import sys
import threading
import typing
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar

import pydantic
import pytest

from nearcache import AsyncNearCache, ConfigError, NearCache, NearCacheWarning
from nearcache.functions.annotations import register_returned
from nearcache.protocol.codec import MsgpackCodec
from tests.support.cases import each
from tests.support.models import Box, Color, Item, Key, Point, User

T = TypeVar("T")
Name = NewType("Name", str)


class Row(TypedDict):
    """A dict."""

    item: Item
    color: Color


class Named(Protocol):
    """Whatever has a name."""

    name: str


class Ordinary:
    """Of no sort that is known."""


class Base:
    """Of some that are."""


@dataclass
class Derived(Base):
    """One of them."""

    id: int


@dataclass
class Locked:
    """A field that can't be stored."""

    lock: threading.Thread


@dataclass
class MaybeLocked:
    """A field that is often None."""

    lock: threading.Thread | None = None


def returning(annotation: object) -> Any:
    """A function with this annotation."""

    def fn() -> None: ...

    fn.__annotations__ = {"return": annotation}
    return fn


REGISTERED: list[tuple[Any, set[type]]] = [
    (Item, {Item}),
    ("Item", {Item}),
    ("list[Item]", {Item}),
    (list["Item"], {Item}),
    (Optional["Item"], {Item}),
    (Item | None, {Item}),
    (dict[Key, tuple[Point, ...]], {Key, Point}),
    (Annotated[Item, "x"], {Item}),
    (Mapping[str, Sequence[Item]], {Item}),
    (Box[Key], {Box, Key}),
    (Literal[Color.RED, "a"], {Color}),
    (Row, {Item, Color}),
    (Awaitable[Item], {Item}),
    (typing.List[Item], {Item}),  # noqa: UP006  # the old form
    (NewType("Other", Item), {Item}),
]


@each("annotation, expected", REGISTERED)
def test_the_types_of_an_annotation_are_registered(annotation: object, expected: set[type]) -> None:
    """However they are written, in quotes too, and wherever they stand in it."""
    codec = MsgpackCodec()
    register_returned(codec, returning(annotation))
    assert expected <= set(codec.types.by_type)


TOLD: list[tuple[Any, str]] = [
    (Iterator[int], "collections.abc.Iterator: what it yields can be had once: cache a list of it"),
    (AsyncIterator[int] | None, "AsyncIterator: what it yields"),
    (list[threading.Lock], "allocate_lock: cache a dict or tuple|thread.lock: cache a dict or tuple"),
    (dict[str, Ordinary], "Ordinary: cache a dict or tuple of its fields, or register it with encode= and decode="),
    (Callable[[int], int], "collections.abc.Callable"),
    (collections.defaultdict[str, int], "collections.defaultdict: cache a plain dict"),
    (type[int], "a type"),
    (Locked, r"Locked\.lock is a threading\.Thread"),
    (memoryview | Ordinary, r"memoryview: cache bytes\(...\) of it"),
    (Exception, "Exception: cache a str or a dict of what it says"),
]


@each("annotation, words", TOLD)
def test_what_can_not_be_cached_is_told_at_decoration(annotation: Any, words: str) -> None:
    """Once, with the function's name and the way out."""
    with pytest.warns(NearCacheWarning, match=f"returning.* to return what cannot be cached.*: a?.*({words})"):
        register_returned(MsgpackCodec(), returning(annotation))


@each(
    "annotation",
    [
        *(Any, None, object, T, list[T], "Unknown", "list[Unknown] | None", int, float | None, Name, Path, Named),  # type: ignore[valid-type]
        *(Iterable[int], Sequence[Any], Mapping[str, Any], Base, MaybeLocked, pydantic.BaseModel, int | Ordinary),
        *(..., 1, "1 +", typing.NoReturn, dict[str, Any], tuple[int, ...], tuple[()], typing.Self),
    ],
)
def test_what_may_be_cached_is_not_told(annotation: Any) -> None:
    """Nor what can't be known."""
    codec = MsgpackCodec()
    codec.register(Derived)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_returned(codec, returning(annotation))


def test_a_cached_function_returns_its_type_from_the_cache() -> None:
    """Without any registration by hand; the annotation may name a class that comes later."""
    with NearCache.from_url("memory://") as cache:

        @cache.cached
        def late(number: int) -> list[Late]:
            return [Late(number)]

        @cache.cached
        def user(number: int) -> User | None:
            return User(id=number)

        for fn, value in ((late, [Late(1)]), (user, User(id=1))):
            assert fn(1) == fn(1) == value
        assert cache.stats().loads == 2


@dataclass
class Late:
    """Defined below the tests that name it."""

    id: int
    next: Later | None = None


@dataclass
class Later:
    """Named in quotes."""

    id: int


def test_a_name_that_is_not_there_yet_is_looked_up_when_a_value_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a class that stands below the function in its module."""
    module = ModuleType("later")
    monkeypatch.setitem(sys.modules, "later", module)
    names = vars(module)
    exec("def fn() -> 'list[Soon]': ...", names)
    codec = MsgpackCodec()
    register_returned(codec, names["fn"])
    assert not codec.types.by_type
    exec("from dataclasses import dataclass\n@dataclass\nclass Soon:\n    id: 'Much'\n", names)
    soon = names["Soon"]
    assert codec.decode(codec.encode([soon(1)])) == [soon(1)]
    exec("@dataclass\nclass Much:\n    id: int\n", names)
    value = soon(names["Much"](1))
    data = codec.encode(value)
    assert codec.decode(data) == value
    other = MsgpackCodec()
    register_returned(other, names["fn"])
    assert other.decode(data) == value


def test_a_class_of_a_factory_is_found_in_its_closure() -> None:
    """A name in quotes that is neither global nor builtin."""

    @dataclass
    class Own:
        id: int

    def fn() -> Own:
        return Own(1)

    codec = MsgpackCodec()
    register_returned(codec, fn)
    assert Own in codec.types.by_type


def test_decorators_partials_and_objects_are_looked_through() -> None:
    """The annotation is that of the function inside."""

    def fn(number: int) -> Item:
        return Item(number)

    class Callee:
        def __call__(self) -> Item:
            return Item(1)

    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    for each_fn in (fn, wrapper, functools.partial(fn, 1), Callee(), functools.lru_cache(fn)):
        codec = MsgpackCodec()
        register_returned(codec, each_fn)
        assert Item in codec.types.by_type
    register_returned(MsgpackCodec(), len)


async def test_coroutine_functions_are_cached_by_their_own_annotation() -> None:
    """What is awaited counts."""
    async with AsyncNearCache.from_url("memory://") as cache:

        @cache.cached
        async def item(number: int) -> Item:
            await asyncio.sleep(0)
            return Item(number)

        assert await item(1) == await item(1) == Item(1)
        assert cache.stats().loads == 1
        with pytest.warns(NearCacheWarning, match="Awaitable: cache what it gives"):

            @cache.cached
            async def twice(number: int) -> Awaitable[Item]:
                raise NotImplementedError


def test_two_classes_of_one_name_are_refused_at_decoration() -> None:
    """One would be taken for the other."""

    def local() -> Any:
        @dataclass
        class Twin:
            id: int

        return Twin

    codec = MsgpackCodec()
    register_returned(codec, returning(local()))
    with pytest.raises(ConfigError, match=r"give one of them another name"):
        register_returned(codec, returning(local()))


def test_a_codec_of_the_application_s_own_is_left_alone() -> None:
    """It knows its types itself, and cache.codec says so."""

    class Own:
        def encode(self, value: object) -> bytes:
            return str(value).encode()

        def decode(self, data: bytes) -> Any:
            return data.decode()

    with NearCache.from_url("memory://", codec=Own()) as cache:
        cache.cached(returning(Iterator[int]))
        with pytest.raises(ConfigError, match="is no MsgpackCodec: it has to know its types itself"):
            _ = cache.codec


def test_caches_share_types_with_their_codec_or_settings() -> None:
    """And not otherwise."""
    shared = MsgpackCodec()
    one, two = (NearCache.from_url("memory://", codec=shared) for _ in range(2))
    other = NearCache.from_url("memory://")
    assert one.codec.register(Item, name="Item") is Item
    assert Item in two.codec.types.by_type
    assert Item not in other.codec.types.by_type
    with one, two, other:
        assert one.set("a", Item(1))
        assert one.get("a") == Item(1)
