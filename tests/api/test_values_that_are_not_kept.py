"""One rule for ttl, negative_ttl and condition, in every word that stores: they raise, or turn a value down."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import ConfigError, LoadFailed
from nearcache.testing import FakeServer
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MODES, MakeCache, Twin, twin_of, twin_on
from tests.support.waiting import Heard, redis_of


def broken(_: object) -> Any:
    """A ttl or a condition with a mistake."""
    raise ZeroDivisionError("oops")


CANT: dict[str, dict[str, Any]] = {
    "ttl raises": {"ttl": broken},
    "ttl of zero": {"ttl": lambda _: 0},
    "ttl of another type": {"ttl": lambda _: "soon"},
    "condition raises": {"condition": broken},
}
DOWN: dict[str, tuple[dict[str, Any], object]] = {
    "negative_ttl": ({"negative_ttl": 0}, None),
    "condition": ({"condition": lambda _: False}, 2),
}


@pytest.fixture(params=[(mode, kind) for mode in MODES for kind in ("fake", "memory")], ids="-".join)
def cache(request: pytest.FixtureRequest, fake: FakeServer, runner: asyncio.Runner) -> Iterator[Twin]:
    """A cache of each class, on the fake server and without a server."""
    mode, kind = request.param
    made = twin_on(fake, mode, runner) if kind == "fake" else twin_of(mode, "memory://", runner)
    yield made
    runner.run(made.close())


@pytest.mark.parametrize("options", CANT.values(), ids=CANT)
async def test_what_cant_be_kept(cache: Twin, options: dict[str, Any]) -> None:
    """A ConfigError of whoever stores, and what was there stays; a load gives its value, and says so once."""
    await cache.set("a", 1)
    for call in (cache.set("a", 2, **options), cache.set_many({"a": 2}, **options), cache.add("b", 2, **options)):
        with pytest.raises(ConfigError):
            await call
    if "ttl" in options:
        with pytest.raises(ConfigError):
            await cache.touch("a", options["ttl"])
        with pytest.raises(ConfigError):
            await cache.incr("n", ttl=options["ttl"])
    assert await cache.get_many(["a", "b", "n"]) == {"a": 1}
    heard = Heard(cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [await cache.get_or_set("c", cache.loader(3), **options) for _ in range(2)] == [3, 3]
    assert await cache.get("c") is None
    assert len(heard.of(LoadFailed)) == 1


@pytest.mark.parametrize(("options", "value"), DOWN.values(), ids=DOWN)
async def test_what_is_turned_down(cache: Twin, options: dict[str, Any], value: object) -> None:
    """It deletes what was there, as it is not meant any more; an add leaves it."""
    calls: list[Callable[[], Any]] = [
        lambda: cache.set("a", value, **options),
        lambda: cache.set_many({"a": value}, **options),
        lambda: cache.refresh("a", cache.loader(value), **options),
    ]
    for call in calls:
        await cache.set("a", 1)
        assert await call() in (True, value)
        assert await cache.get("a", "absent") == "absent"
    await cache.set("a", 1)
    assert await cache.add("a", value, **options) is False
    assert await cache.add("b", value, **options) is False
    assert await cache.get_many(["a", "b"]) == {"a": 1}
    assert await cache.get_or_set("b", cache.loader(value), **options) == value
    assert await cache.get("b", "absent") == "absent"


async def test_a_touch_of_a_value_that_would_not_be_stored(make_fake: MakeCache) -> None:
    """It is given no longer life, and stays as it is."""
    one, other = make_fake(), make_fake(negative_ttl=0)
    async with one, other:
        await one.set("a", None)
        assert await other.touch("a", 60) is False
        assert await one.get("a", "absent") is None


async def test_a_hot_value_that_is_never_kept_costs_other_reads_nothing(
    make_cache: MakeCache, fresh_server: EmbeddedServer
) -> None:
    """A tagged value is read by one question each time, though values of another key are passed by in between."""
    async with make_cache(fresh_server.url) as cache:
        await cache.set("tagged", 1, tags=["t"])
        await cache.get_or_set("hot", cache.loader(None), negative_ttl=0)
        with redis_of(fresh_server.url) as client:
            client.config_resetstat()
            for _ in range(20):
                await cache.get_or_set("hot", cache.loader(None), negative_ttl=0)
                cache.clear_local()
                assert await cache.get("tagged") == 1
            assert client.info("commandstats")["cmdstat_mget"]["calls"] <= 20 + 20 + 1  # the floor of the tag, once
