"""Values of registered types through both tiers: equal, of their types, and each caller's own."""

from __future__ import annotations

import asyncio
import copy
import enum
import re
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from nearcache import CorruptValue, UnknownType
from nearcache.testing import FakeServer
from tests.support.models import ONE_OF_EACH_KIND, TYPED, Address, Fixed, Item, codec_of_all, registered, shape
from tests.support.twins import MODES, MakeCache, twin_on
from tests.support.waiting import Heard


def spoil(value: Any) -> None:
    """Change everything in a value that can be changed by assignment or by a method."""
    kind = TYPED.types.by_type.get(type(value))
    if isinstance(value, enum.Enum | re.Pattern):
        return
    if kind is not None:
        for label, part in zip(kind.labels, kind.pack(value), strict=False):
            spoil(part)
            if not label.startswith((".__", ".model_")):
                with suppress(AttributeError, TypeError, ValueError):  # frozen, validated, or no attribute
                    setattr(value, label[1:], "spoilt")
    elif isinstance(value, dict | list | tuple | frozenset):
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            spoil(item)
    if isinstance(value, list | bytearray):
        value.append(1)
    if isinstance(value, dict | set):
        value.update({"spoilt": 1})


@pytest.mark.parametrize("mode", MODES)
def test_every_value_is_the_same_from_every_tier(mode: str) -> None:
    """What was put in comes back, whatever is done to what was given or got."""
    with asyncio.Runner() as runner:

        @given(registered)
        @settings(max_examples=60, suppress_health_check=list(HealthCheck))
        def check(value: Any) -> None:
            runner.run(compare(value))

        async def compare(value: Any) -> None:
            fake = FakeServer()
            async with (
                twin_on(fake, mode, runner, codec=codec_of_all()) as one,
                twin_on(fake, mode, runner, codec=codec_of_all()) as other,
            ):
                expected = shape(value)
                given_value = copy.deepcopy(value)
                assert await one.set("a", given_value)
                spoil(given_value)
                loaded = copy.deepcopy(value)
                spoil(await one.get_or_set("b", one.loader(loaded)))
                for _ in range(3):
                    for cache in (one, other):
                        for got in (await cache.get("a"), cache.peek("a"), await cache.get("b")):
                            assert shape(got) == expected
                            spoil(got)
                assert other.stats().l2_hits == 2
                assert one.stats().l2_hits == 0

        check()


async def test_each_sort_is_the_same_from_every_tier(make_cache: MakeCache) -> None:
    """On a real server."""
    async with make_cache(codec=codec_of_all()) as one, make_cache(codec=codec_of_all()) as other:
        for number, value in enumerate(ONE_OF_EACH_KIND):
            await one.set(str(number), value)
            for got in (await one.get(str(number)), await other.get(str(number)), await other.get(str(number))):
                assert shape(got) == shape(value)


async def test_only_what_is_declared_frozen_is_shared(make_cache: MakeCache) -> None:
    """A frozen one that holds a list is decoded anew."""
    async with make_cache(codec=codec_of_all()) as cache:
        for value, shared in ((Address("a"), True), (Address([]), False), (Fixed(id=1), True), (Item(1), False)):
            await cache.set("a", value)
            assert (await cache.get("a") is await cache.get("a")) == shared


async def test_a_type_of_another_release_is_a_miss(make_cache: MakeCache) -> None:
    """Counted each time, told once for the type; the next load overwrites it, and it may come back."""
    old, new = make_dataclass("User", [("id", int)]), make_dataclass("User", [("id", int), ("name", str, "")])
    async with make_cache() as one, make_cache() as other:
        one.codec.register(old, name="shop.User")
        other.codec.register(new, name="shop.User")
        heard = Heard(other)
        for key in ("a", "b"):
            await one.set(key, [old(1)])
            assert await other.get(key, default="none") == "none"
        assert (other.stats().unknown_types, other.stats().corrupt_values, other.stats().misses) == (2, 0, 2)
        (told,) = heard.of(UnknownType)
        assert (told.key, told.type) == ("a", "shop.User")
        assert "has other fields here" in told.reason
        assert await other.get_or_set("a", other.loader([new(1)])) == [new(1)]
        assert await other.get("a") == [new(1)]
        async with make_cache() as third:
            assert await third.get("a", default="none") == "none"
            assert third.stats().unknown_types == 1


async def test_a_value_that_its_class_refuses_is_a_miss(make_cache: MakeCache) -> None:
    """No error for who reads it."""
    strict = [False]

    @dataclass
    class Account:
        owner: str

        def __post_init__(self) -> None:
            if strict[0]:
                raise ValueError(self.owner)

    async with make_cache() as one, make_cache() as other:
        for cache in (one, other):
            cache.codec.register(Account)
        heard = Heard(other)
        await one.set("a", Account("Ada"))
        strict[0] = True
        assert await one.get("a") is None
        assert await other.get("a") is None
        assert "Account raised ValueError" in heard.of(CorruptValue)[0].reason


async def test_registrations_outlive_a_close(make_cache: MakeCache) -> None:
    """They belong to the settings."""
    cache = make_cache("memory://")
    cache.codec.register(Item)
    async with cache:
        pass
    async with cache:
        await cache.set("a", Item(1))
        assert await cache.get("a") == Item(1)
