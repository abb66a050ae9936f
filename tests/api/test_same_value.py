"""The same value from every tier: equal and of the same type, wherever `get` finds it."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from tests.support.twins import MakeCache, twin_of

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


@pytest.mark.parametrize("copy", ["none", "serialized"])
async def test_the_same_value_from_every_tier(make_cache: MakeCache, copy: str) -> None:
    """From L1 after a set, from Redis, from L1 after that, and after a load: equal and of the same type."""
    async with make_cache(copy=copy) as one, make_cache(copy=copy) as other:
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
