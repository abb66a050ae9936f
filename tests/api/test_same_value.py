"""The same value from every tier: equal and of the same type, wherever `get` finds it."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from nearcache import AsyncNearCache, ConfigError, CorruptValue, NearCache
from tests.api.test_loading import Source
from tests.support.twins import MakeCache, twin_of
from tests.support.waiting import Heard, until

pytestmark = pytest.mark.one_server
"""To a server, values are bytes."""

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**64,
    -(10**50),
    0.0,
    -0.0,
    1.0,
    math.inf,
    5e-324,
    "",
    "text, ünïcödé, \0, 🦜",
    b"",
    b"\x00\xff\xc1",
    bytearray(b"mutable"),
    [],
    [1, [2, [3]]],
    (),
    (1, "a", (2.5, None)),
    {},
    {"a": 1, 2: "b", None: [1], (1, 2): {"deep": (3,)}, b"c": {4}, 1.5: True},
    set(),
    {1, "a", (2, 3)},
    frozenset({1, frozenset({2})}),
    range(1, 10, 2),
    1 + 2j,
    Decimal("1.00"),
    Decimal("-0"),
    Fraction(1, 3),
    date(2024, 2, 29),
    time(1, 2, 3, 4),
    time(1, 2, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 30, 15, 999_999),  # noqa: DTZ001  # a naive one is what is tested
    datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    timedelta(days=-1, microseconds=1),
    UUID(int=7),
    IPv4Address("10.0.0.1"),
    IPv4Interface("10.0.0.1/8"),
    IPv4Network("10.0.0.0/8"),
    IPv6Address("::1"),
    IPv6Interface("::1/64"),
    IPv6Network("2001:db8::/32"),
    [{"rows": [(1, datetime(2024, 1, 1, tzinfo=UTC), Decimal("9.99"))], "tags": {"a", "b"}}],
]


def shape(value: Any) -> Any:
    """A value with the types of all its parts, and the sign of zeros; equal shapes are equal values of equal types."""
    match value:
        case dict():
            return dict, [(shape(key), shape(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), [shape(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(map(repr, map(shape, value)))
        case datetime() | time():
            return type(value), value, str(value.tzinfo), value.fold, value.utcoffset()
        case _:
            return type(value), value, repr(value)


@pytest.mark.parametrize("way", ["auto", "none", "serialized"])
async def test_the_same_value_from_every_tier(make_cache: MakeCache, way: str) -> None:
    """From L1 after a set, from Redis, from L1 after that, and after a load: equal and of the same type."""
    async with make_cache(copy=way) as one, make_cache(copy=way) as other:
        for number, value in enumerate(VALUES):
            key, loaded = f"set:{number}", f"loaded:{number}"
            await one.set(key, value)
            places = {
                "own L1": await one.get(key),
                "own peek": one.peek(key),
                "L2": await other.get(key),
                "L1 from L2": await other.get(key),
                "loaded": await one.get_or_set(loaded, one.loader(value)),
                "L1 after a load": await one.get(loaded),
                "L2 after a load": await other.get_or_set(loaded, other.loader("not loaded again")),
                "get_many": (await other.get_many([loaded]))[loaded],
            }
            wrong = {place: got for place, got in places.items() if shape(got) != shape(value)}
            assert not wrong, f"{value!r} came back as {wrong}"
        assert other.stats().l2_hits == 2 * len(VALUES)


async def test_the_same_value_without_a_server(make_cache: MakeCache) -> None:
    """`memory://` gives the same values, and refuses the same ones."""
    async with make_cache("memory://", copy="serialized") as cache:
        for value in VALUES:
            await cache.set("a", value)
            assert shape(await cache.get("a")) == shape(value)


async def test_a_serialized_copy_is_the_reader_s_own(make_cache: MakeCache) -> None:
    """With copy="serialized" a reader may change what it got, and the setter what it gave; nobody else sees it."""
    async with make_cache(copy="serialized") as cache:
        value = {"list": [1]}
        await cache.set("a", value)
        value["list"].append(2)
        got = await cache.get("a")
        got["list"].append(3)
        cache.peek("a")["list"].append(4)
        assert await cache.get("a") == {"list": [1]}
        assert cache.stats().l1_hits == 2


def spoil(value: Any) -> None:
    """Change everything that can be changed in a value."""
    match value:
        case list():
            for item in value:
                spoil(item)
            value.append("spoilt")
        case dict():
            for item in [*value, *value.values()]:
                spoil(item)
            value["spoilt"] = True
        case set():
            value.add("spoilt")
        case bytearray():
            value.extend(b"spoilt")
        case tuple() | frozenset():
            for item in value:
                spoil(item)
        case _:
            pass


async def test_what_a_caller_does_to_a_value_changes_nobody_else_s(make_cache: MakeCache) -> None:
    """By default: what was given to a set, returned by a loader, and returned by every kind of read."""
    async with make_cache() as cache, make_cache() as other:
        for number, whole in enumerate([*VALUES, ([1], {"a": {2}}), {"a": [bytearray(b"x")]}]):
            expected = shape(whole)

            def fresh(value: Any = whole) -> Any:
                return copy.deepcopy(value)

            key, loaded = f"set:{number}", f"loaded:{number}"
            given = fresh()
            await cache.set(key, given)
            spoil(given)
            spoil(await cache.get_or_set(loaded, cache.loader(fresh())))
            for _ in range(2):
                for got in (
                    await cache.get(key),
                    cache.peek(key),
                    (await cache.get_many([key]))[key],
                    await cache.get_or_set(loaded, cache.loader("not loaded again")),
                    await cache.get(loaded),
                    await other.get(key),
                ):
                    assert shape(got) == expected
                    spoil(got)


async def test_only_what_can_be_changed_is_decoded_anew(make_cache: MakeCache) -> None:
    """A hit of an immutable value gives one object; of any other, one of the reader's own."""
    async with make_cache() as cache:
        for number, value in enumerate([*VALUES, ([1],), (1, (2, frozenset({3}))), (1, {})]):
            key, spoilt = f"key:{number}", copy.deepcopy(value)
            spoil(spoilt)
            mutable = shape(value) != shape(spoilt)
            await cache.set(key, value)
            assert (await cache.get(key) is not await cache.get(key)) == mutable
            assert (cache.peek(key) is value) != mutable
        assert cache.stats().l2_hits == 0


async def test_the_choice_may_be_a_call_s(make_cache: MakeCache) -> None:
    """``copy`` of a call goes over the setting, for what that call puts into L1."""
    async with make_cache() as cache, make_cache(copy="none") as shared:
        await cache.set("a", [1], copy="none")
        assert await cache.get("a") is await cache.get("a")
        await cache.set("a", (1,), copy="serialized")
        assert await cache.get("a") is not await cache.get("a")
        await shared.set("a", [1], copy="auto")
        assert await shared.get("a") is not await shared.get("a")
        with pytest.raises(ConfigError, match="copy='deep': must be one of 'auto', 'none', 'serialized'"):
            await cache.set("a", 1, copy="deep")


def test_a_decorated_function_gives_each_caller_a_value_of_its_own() -> None:
    """Unless it is immutable, or copy="none" was given."""
    with NearCache.from_url("memory://") as cache:

        @cache.cached
        def row(number: int) -> list[int]:
            return [number]

        @cache.cached
        def pair(number: int) -> tuple[int, str]:
            return number, "x"

        @cache.cached(copy="none")
        def shared(number: int) -> list[int]:
            return [number]

        row(1).append(2)
        row(1).append(3)
        assert row(1) == row.peek(1) == [1]
        assert pair(1) is pair(1) is pair.peek(1)
        assert shared(1) is shared(1) is shared.peek(1)
        assert cache.stats().loads == 3


async def test_a_decorated_coroutine_function_gives_each_caller_a_value_of_its_own() -> None:
    """The same for asyncio, and for callers that wait for one load."""
    async with AsyncNearCache.from_url("memory://") as cache:

        @cache.cached
        async def row(number: int) -> list[int]:
            await asyncio.sleep(0.01)
            return [number]

        rows = await asyncio.gather(*(row(1) for _ in range(5)))
        assert rows == [[1]] * 5
        assert len(set(map(id, [*rows, await row(1)]))) == 6
        assert cache.stats().loads == 1


async def test_values_that_are_loaded_while_redis_is_away_are_the_reader_s_own(make_cache: MakeCache) -> None:
    """They are kept like all others."""
    cache = make_cache("redis://127.0.0.1:1/0", redis_connect_timeout=0.1)
    for _ in range(3):
        got = await cache.get_or_set("a", cache.loader([1]))
        assert got == [1]
        got.append(2)


async def test_readers_of_one_stale_value_get_their_own(make_cache: MakeCache) -> None:
    """The leader of a load that hangs has found it in Redis, and those who wait with it are served the same."""
    async with make_cache() as one, make_cache() as cache:
        await one.get_or_set("a", one.loader([1]), stale_if_error=60)
        await one.mark_stale("a")
        source = Source([2])
        options: dict[str, Any] = {"stale_if_error": 60, "loader_soft_timeout": 0.2}
        readers = [asyncio.create_task(cache.get_or_set("a", cache.loader(source.load), **options))]
        await until(lambda: source.calls)
        readers += [asyncio.create_task(cache.get_or_set("a", cache.loader(source.load), **options)) for _ in range(2)]
        got = await asyncio.gather(*readers)
        source.go.set()
        assert source.calls == 1
        assert got == [[1]] * 3
        assert len(set(map(id, got))) == 3


class FailingCodec:
    """Its bytes can't be read, but only after they were written."""

    def __init__(self) -> None:
        self.decoded = 0

    def encode(self, value: object) -> bytes:
        """JSON."""
        return json.dumps(value).encode()

    def decode(self, data: bytes) -> Any:
        """Fails."""
        self.decoded += 1
        raise TypeError(data)


async def test_a_codec_that_fails_in_a_hit_makes_it_one_miss(make_cache: MakeCache) -> None:
    """It is tried once, told, and no hit; the next load takes its place."""
    codec = FailingCodec()
    async with make_cache("memory://", codec=codec) as cache:
        heard = Heard(cache)
        await cache.set("a", ["secret"])
        assert await cache.get("a", default="none") == "none"
        stats = cache.stats()
        assert (codec.decoded, stats.l1_hits, stats.misses, stats.corrupt_values) == (1, 0, 1, 1)
        assert [event.key for event in heard.of(CorruptValue)] == ["a"]
        assert await cache.get_or_set("a", cache.loader([2])) == [2]
        assert cache.peek("a", default="none") == "none"
        assert cache.stats().loads == 1


async def test_what_one_class_writes_the_other_reads(make_cache: MakeCache, runner: asyncio.Runner) -> None:
    """NearCache and AsyncNearCache share values and coherence."""
    async with make_cache() as one:
        mode = "aio" if one.mode == "sync" else "sync"
        other = twin_of(mode, one.url, runner, namespace=one.settings.namespace)
        try:
            async with other:
                for number, value in enumerate(VALUES):
                    await one.set(f"key:{number}", value)
                    assert shape(await other.get(f"key:{number}")) == shape(value)
        finally:
            await other.close()
