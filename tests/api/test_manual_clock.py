"""nearcache.testing's clock: what a cache decides by the time is decided by the clock, without sleeping."""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import nearcache
from nearcache import BreakerClosed
from nearcache.testing import FakeServer, ManualClock
from nearcache.testing.clock import PLACES, RUNTIMES
from tests.support.twins import MODES, MakeCache, Twin, twin_of
from tests.support.waiting import Heard, until

ROOT = Path(nearcache.__file__).parent

REAL = {
    "nearcache.transport.client": "the offset to a real server's clock",
    "nearcache.transport.embedded": "a child process",
    "nearcache.transport.async_transport": "sockets",
    "nearcache.transport.sync_connection": "sockets",
    "nearcache.transport.sync_transport": "sockets",
    "nearcache.transport.examine": "round trip and clock of a real server",
    "nearcache.transport.cluster": "how long a node that failed is left alone",
    "nearcache.transport.batching": "how long threads wait",
    "nearcache.testing.clock": "where the clock begins",
    "nearcache.testing.server": "how long a test waits",
    "nearcache.health": "the offset to a real server's clock",
    "nearcache.runtime.latches": "how long threads wait",
    "nearcache.protocol.hashing": "the processor time that a table of chosen keys takes",
}
"""Modules that read the real time, and what for."""


@pytest.fixture(params=MODES)
def alone(request: pytest.FixtureRequest, clock: ManualClock, runner: asyncio.Runner) -> Iterator[Twin]:
    """A cache without a server."""
    cache = twin_of(request.param, "memory://", runner, ttl=30, jitter=0)
    yield cache
    runner.run(cache.close())


def time_readers() -> dict[str, set[str]]:
    """The modules of the package that take a clock from the standard library, and by which name."""
    readers: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(("nearcache", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        if name.startswith("nearcache.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import) and any(alias.name == "time" for alias in node.names):
                readers.setdefault(name, set()).add("time")
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                readers.setdefault(name, set()).update(alias.asname or alias.name for alias in node.names)
    return readers


def test_the_clock_knows_every_place_that_reads_the_time() -> None:
    """A module that reads the time follows the clock by its global ``monotonic``, or is listed above with a reason."""
    readers = time_readers()
    assert {name for name in readers if name not in REAL} == set(PLACES), "see nearcache/testing/clock.py"
    assert {name: names for name, names in readers.items() if name in PLACES} == {
        name: {"monotonic"} for name in PLACES
    }, "a place is patched by the name monotonic: from time import monotonic"
    assert set(REAL) <= set(readers)


async def test_ttl_without_a_server(alone: Twin, clock: ManualClock) -> None:
    """A value lives for its ttl to the µs, whatever floats round to."""
    for ttl in (30, 0.1, 7.3, 1e-3):
        await alone.set("a", 1, ttl=ttl)
        clock.advance(ttl - 1e-4)
        assert await alone.get("a") == 1
        clock.advance(1e-4)
        assert await alone.get("a") is None


async def test_ttl_on_the_fake_server(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """In both tiers of both caches, and no beat is missed: L1 is proven again when time has moved."""
    async with make_fake(jitter=0) as here, make_fake() as there:
        for ttl in (30, 0.1, 7.3, 1e-3):
            await here.set("a", 1, ttl=ttl)
            assert await there.get("a") == 1
            clock.advance(ttl - 1e-4)
            await fake.async_settle()
            assert (here.peek("a"), there.peek("a")) == (1, 1)
            clock.advance(1e-4)
            await fake.async_settle()
            assert (here.peek("a"), there.peek("a")) == (None, None)
            assert (await here.get("a"), await there.get("a")) == (None, None)


async def test_l1_ttl(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """L1 forgets, L2 does not."""
    async with make_fake(l1_ttl=10) as cache:
        await cache.set("a", 1, ttl=60)
        clock.advance(timedelta(seconds=10))
        await fake.async_settle()
        assert cache.peek("a") is None
        assert await cache.get("a") == 1
        assert cache.peek("a") == 1


async def test_negative_ttl(clock: ManualClock, make_fake: MakeCache) -> None:
    """A cached None goes earlier."""
    async with make_fake(negative_ttl=5, jitter=0) as cache:
        await cache.set_many({"none": None, "some": 1})
        clock.advance(5)
        assert (await cache.get("none", "absent"), await cache.get("some")) == ("absent", 1)


async def test_max_staleness(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """Without proofs L1 serves for so long and no longer."""
    async with make_fake(max_staleness=4) as cache:
        await cache.set("a", 1)
        with fake.bus_held():
            clock.advance(1)
            assert cache.healthy
            assert cache.peek("a") == 1
            clock.advance(3)
            assert not cache.healthy
            assert cache.peek("a") is None
            assert await cache.get("a") == 1


async def test_waiting_for_health_takes_real_time(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """A clock that stands makes nobody wait for ever; and a beat's proof is told at once."""
    async with make_fake() as cache:
        with fake.bus_held():
            clock.advance(2)
            assert await cache.wait_healthy(0.05) is False
        assert await cache.wait_healthy(600) is True


async def test_breaker_reset(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """Redis is left alone for so long, then one operation tries."""
    async with make_fake(breaker_failures=1, breaker_reset=7) as cache:
        heard = Heard(cache)
        with fake.away(only={"delete"}):
            assert await cache.delete("a") is False
        assert await cache.set("a", 1) is False
        clock.advance(6.9)
        assert await cache.set("a", 1) is False
        assert not heard.of(BreakerClosed)
        clock.advance(0.1)
        assert await cache.set("a", 1)
        assert len(heard.of(BreakerClosed)) == 1


async def test_a_hold_and_a_lease_end(clock: ManualClock, make_fake: MakeCache, fake: FakeServer) -> None:
    """Nobody fills under a hold; a lease that nobody gives back is another's when it is over."""
    async with make_fake() as here, make_fake() as there:
        await here.delete("a", hold=5)
        assert await here.get_or_set("a", here.loader(1)) == 1
        assert await there.get("a") is None
        clock.advance(5)
        assert await here.get_or_set("a", here.loader(1)) == 1
        assert await there.get("a") == 1
        with fake.lost_replies(only={"lease"}, of=here.cache):
            assert await here.get_or_set("b", here.loader(1)) == 1
        clock.advance(10)
        assert await there.get_or_set("b", there.loader(2)) == 2


async def test_a_cache_that_is_connected_already_follows(make_fake: MakeCache, fake: FakeServer) -> None:
    """Entered late, and left again, with the cache in use all the time."""
    async with make_fake(l1_ttl=60) as cache:
        await cache.set("a", 1)
        with ManualClock() as clock:
            await fake.async_settle()
            assert cache.peek("a") == 1
            clock.advance(61)
            await fake.async_settle()
            assert cache.peek("a") is None
        await until(lambda: cache.healthy)


def test_time_stands_and_goes_forward_only(clock: ManualClock) -> None:
    """By what was asked and a µs; one clock at a time, and real time afterwards."""
    began = clock.monotonic()
    assert clock.monotonic() == began >= time.monotonic() - 60
    clock.advance(0)
    assert clock.monotonic() == pytest.approx(began + 1e-6, abs=1e-8)
    for seconds in (-1, float("nan"), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="time does not go back"):
            clock.advance(seconds)
    with pytest.raises(RuntimeError, match="entered already"), ManualClock():
        raise AssertionError("not reached")
    assert repr(clock).startswith("<ManualClock at ")


def test_after_it_the_time_is_real() -> None:
    """Whatever happened inside."""
    with pytest.raises(KeyError), ManualClock():
        raise KeyError
    for name in PLACES:
        assert vars(__import__(name, fromlist=["monotonic"]))["monotonic"] is time.monotonic
    assert all(runtime().monotonic is time.monotonic for runtime in RUNTIMES)


def test_whole_microseconds_come_out_whole() -> None:
    """Those, too, that are not what they were when they have been divided by a million and multiplied by it."""
    clock = ManualClock()
    for micros in (249, 251, 489, 8_639_388_544_688):
        assert int(micros / 1e6 * 1e6) != micros
        clock._micros = micros
        assert int(clock.monotonic() * 1e6) == micros
