"""The faults of the fake server: each does to caches what the real fault does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from nearcache import (
    BreakerOpened,
    Disconnected,
    Drained,
    Flushed,
    Journalled,
    Refused,
)
from nearcache.testing import FakeServer, ManualClock
from nearcache.transport.resp import ServerError
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, until

SOON = 0.05
"""redis_timeout where it is waited for."""


async def test_away_is_refused_at_once_and_journalled(make_fake: MakeCache, fake: FakeServer) -> None:
    """Writes say False and nothing waits; what was journalled is a miss for all when it is back."""
    async with make_fake(redis_timeout=30, max_staleness=30) as here, make_fake() as there:
        heard = Heard(here)
        await here.set("a", 1)
        with fake.away():
            await until(lambda: heard.of(Disconnected))
            assert await here.set("a", 2) is False
            assert await here.get("a") is None
            assert await here.get_or_set("b", here.loader(3)) == 3
        assert len(heard.of(Journalled)) == 1
        await fake.async_settle()
        assert len(heard.of(Drained)) == 1
        assert await there.get("a") is None
        assert await here.set("a", 4)
        assert await there.get("a") == 4


async def test_away_may_be_for_one_cache(make_fake: MakeCache, fake: FakeServer) -> None:
    """A partition: the other goes on."""
    async with make_fake() as here, make_fake() as there:
        with fake.away(of=here.cache):
            assert await here.set("a", 1) is False
            assert await there.set("a", 2)


async def test_a_fault_may_be_for_some_operations(make_fake: MakeCache, fake: FakeServer) -> None:
    """Sets fail, reads do not; the bus is left alone."""
    async with make_fake() as cache:
        with fake.away(only={"set"}):
            assert await cache.set("a", 1) is False
            assert await cache.delete("b")
            assert cache.healthy
        assert await cache.set("a", 1)
    with pytest.raises(ValueError, match=r"only=\['sets'\]: must be some of abort, add"):
        fake.away(only=["sets"])
    with pytest.raises(ValueError, match="only='set': must be some of"):
        fake.away(only="set")


async def test_sets_that_fail_open_the_breaker(make_fake: MakeCache, fake: FakeServer) -> None:
    """Each is counted, as is any other operation; then Redis is left alone."""
    async with make_fake(breaker_failures=3, breaker_reset=600, retries=0) as cache:
        heard = Heard(cache)
        with fake.away(only={"set"}):
            for failures in range(3):
                assert not heard.of(BreakerOpened), failures
                assert await cache.set("a", 1) is False
        assert len(heard.of(BreakerOpened)) == 1
        assert cache.stats().l2_errors == 3
        assert await cache.delete("b") is False


async def test_hung_waits_for_the_timeout_and_executes_late(make_fake: MakeCache, fake: FakeServer) -> None:
    """The first operation waits, the next ones do not; the end executes what was taken."""
    async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
        await here.set("a", 1)
        heard = Heard(here)
        with fake.hung():
            began = time.monotonic()
            assert await here.set("a", 2) is False
            assert time.monotonic() - began >= SOON
            assert len(heard.of(BreakerOpened)) == 1
            assert await here.get("a") is None
        assert await there.get("a") == 2


async def test_a_set_that_a_hung_server_executes_after_its_deadline_is_a_delete(
    make_fake: MakeCache, fake: FakeServer
) -> None:
    """Else it would come over what was set meanwhile; a miss is the price."""
    with ManualClock() as clock:
        async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
            with fake.hung(of=here.cache):
                assert await here.set("a", 1) is False
                clock.advance(3)
                assert await there.set("a", 2)
            await fake.async_settle()
            assert await there.get("a") is None


async def test_what_a_hung_server_takes_is_answered_when_it_goes_on_in_time(
    make_fake: MakeCache, fake: FakeServer
) -> None:
    """The operation was only slow."""
    async with make_fake(redis_timeout=30, max_staleness=30) as cache:
        with fake.hung(only={"set"}) as fault:
            task = asyncio.create_task(cache.set("a", 1))
            await until(lambda: fault.late)
        assert await task
        assert cache.peek("a") == 1


async def test_nobody_connects_to_a_hung_server(make_fake: MakeCache, fake: FakeServer) -> None:
    """A cache that starts then does without; it connects when the server goes on."""
    with fake.hung():
        cache = make_fake(redis_timeout=SOON)
        assert await cache.get_or_set("a", cache.loader(1)) == 1
        assert not cache.healthy
    await fake.async_settle()
    assert cache.healthy


async def test_lost_replies_are_an_unknown_outcome(make_fake: MakeCache, fake: FakeServer) -> None:
    """The write says False, though it was done; the key is a miss here, and deleted in the end."""
    with ManualClock() as clock:
        async with make_fake(redis_timeout=SOON) as here, make_fake() as there:
            with fake.lost_replies(only={"set"}):
                assert await here.set("a", 1) is False
            assert await here.get("a") is None
            assert await there.get("a") == 1
            clock.advance(3)
            await fake.async_settle()
            assert await there.get("a") is None
            assert await here.set("a", 2)


async def test_slow_answers_are_waited_for(make_fake: MakeCache, fake: FakeServer) -> None:
    """Up to redis_timeout; beyond it they are lost."""
    async with make_fake(redis_timeout=4 * SOON) as cache:
        with fake.slow(SOON):
            began = time.monotonic()
            assert await cache.set("a", 1)
            assert time.monotonic() - began >= SOON
        with fake.slow(60):
            assert await cache.set("a", 1) is False


async def test_bus_cut_leaves_l1_to_its_proof(make_fake: MakeCache, fake: FakeServer) -> None:
    """Commands work; L1 serves what it has until max_staleness, and then L2 answers."""
    with ManualClock() as clock:
        async with make_fake(max_staleness=2) as here, make_fake() as there:
            await here.set("a", 1)
            heard = Heard(here)
            with fake.bus_cut(of=here.cache):
                assert await there.set("a", 2)
                assert here.peek("a") == 1
                clock.advance(2)
                assert here.peek("a") is None
                assert await here.get("a") == 2
                await until(lambda: heard.of(Disconnected))
                assert not here.healthy
            await fake.async_settle()
            assert len(heard.of(Flushed)) == 1
            assert here.healthy


async def test_bus_held_brings_everything_at_the_end(make_fake: MakeCache, fake: FakeServer) -> None:
    """A change comes late, and nothing is flushed for it."""
    with ManualClock():
        async with make_fake() as here, make_fake() as there:
            await here.set_many({"a": 1, "b": 1})
            heard = Heard(here)
            with fake.bus_held(of=here.cache):
                assert await there.set("a", 2)
                assert here.peek("a") == 1
            await fake.async_settle()
            assert (here.peek("a"), here.peek("b")) == (None, 1)
            assert heard.all == []


async def test_nobody_subscribes_to_a_bus_that_is_held(make_fake: MakeCache, fake: FakeServer) -> None:
    """L2 serves, L1 does not."""
    with fake.bus_held():
        cache = make_fake(redis_timeout=SOON)
        assert await cache.set("a", 1)
        assert await cache.get("a") == 1
        assert cache.peek("a") is None
    await fake.async_settle()
    assert cache.healthy


async def test_restart_empty_forgets_everything(make_fake: MakeCache, fake: FakeServer) -> None:
    """Another server in its place: values are gone, and L1 is flushed."""
    async with make_fake() as cache:
        await cache.set("a", 1)
        heard = Heard(cache)
        fake.restart_empty()
        await fake.async_settle()
        assert len(heard.of(Flushed)) == 1
        assert await cache.get("a") is None
        assert await cache.set("a", 2)
        assert await cache.get("a") == 2


async def test_a_fault_is_started_and_stopped(make_fake: MakeCache, fake: FakeServer) -> None:
    """Without a `with`, and again; stopped twice is no harm, started twice is a mistake."""
    fault = fake.away(only={"set"})
    async with make_fake() as cache:
        for _ in range(2):
            fault.start()
            assert await cache.set("a", 1) is False
            fault.stop()
            fault.stop()
            assert await cache.set("a", 1)
        fault.start()
        with pytest.raises(RuntimeError, match=r"Fault\(kind=.* has been started already"):
            fault.start()


async def test_a_cancelled_set_is_journalled(fake: FakeServer) -> None:
    """It waits for its answer in the task, as on a real server."""
    async with fake.async_cache(redis_timeout=30, max_staleness=30) as cache:
        with fake.lost_replies(only={"set"}):
            task = asyncio.create_task(cache.set("a", 1))
            await until(lambda: fake._network.server("nearcache").values)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await cache.get("a") is None
        assert cache.stats().journalled == 1


WRITES: dict[str, tuple[Any, ...]] = {
    "set": ("a", 1),
    "set_many": ({"a": 1},),
    "delete": ("a",),
    "mark_stale": ("a",),
    "invalidate_tags": ("t",),
    "clear": (),
}


@pytest.mark.parametrize("method", WRITES)
async def test_a_refusal_names_the_method_that_was_called(make_fake: MakeCache, method: str) -> None:
    """As the user wrote it, in the event and in health; a `set_many` is a `set`."""
    cache = make_fake()
    heard = Heard(cache)
    await cache.set("a", 1)

    async def refused(*_: Any, **__: Any) -> Any:
        raise ServerError("NOPERM none of this")

    for name in ("set", "delete", "mark_stale", "invalidate_tags", "clear"):
        setattr(cache._core.remote, name, refused)
    assert await getattr(cache, method)(*WRITES[method]) is False
    word = method.removesuffix("_many")
    assert [event.operation for event in heard.of(Refused)] == [word]
    assert cache.health().refused[0].startswith(f"{word}: ")
