"""A cache that outlives what it ran on: opened again after close, and taken over by the next event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi.testclient import TestClient

from nearcache import AsyncNearCache, CacheClosed, ConfigError, Connected, Drained, NearCache
from nearcache.testing import FakeServer, FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MakeCache
from tests.support.waiting import Heard

pytestmark = pytest.mark.one_server
"""It is the caches that differ here, not the servers."""


async def test_a_closed_cache_is_opened_again_by_with(make_cache: MakeCache) -> None:
    """Decorated functions and listeners go on; L1 is empty, Redis is not. In between it is closed."""
    cache = make_cache()
    heard = Heard(cache)

    async def multiply(number: int) -> int:
        return number * number

    square = cache.cached("square:{number}", ttl=60)(multiply)
    for opened in (1, 2, 3):
        async with cache:
            assert cache.healthy
            assert len(heard.of(Connected)) == opened
            assert cache.stats().l1_entries == 0
            assert await square(7) == 49
            assert await cache.get(square.key(7)) == 49
        with pytest.raises(CacheClosed, match=r"make a new one, or open it again by `(async )?with cache:`"):
            await square(7)
        with pytest.raises(CacheClosed):
            await cache.get("a")
        assert not cache.healthy
    assert cache.stats().loads == 0


async def test_what_close_could_not_replay_is_replayed_when_the_cache_is_opened_again(
    make_cache: MakeCache, proxy: FaultProxy
) -> None:
    """A delete that Redis did not acknowledge stays a miss here, and is replayed."""
    cache = make_cache(proxy.url, redis_timeout=0.1)
    async with cache:
        await cache.set("a", "old")
        proxy.cut()
        assert await cache.delete("a") is False
    heard = Heard(cache)
    async with cache:
        assert cache.health().journal == 1
        proxy.heal()
        assert await cache.wait_healthy(5)
        assert heard.of(Drained) == [Drained(replayed=1, left=0)]
        assert await cache.get("a") is None


def test_two_threads_that_open_one_closed_cache_open_it_once(fake: FakeServer) -> None:
    """And it has one bus."""
    cache = fake.cache()
    cache.close()
    barrier = threading.Barrier(2)

    def enter() -> None:
        barrier.wait()
        cache.__enter__()

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.name for one in threading.enumerate()].count("nearcache-bus") == 1
    cache.close()


def test_an_embedded_server_is_started_again_with_its_cache() -> None:
    """Empty, since a server that ends loses its data; other processes get its new address."""
    cache = NearCache.from_url("embedded://")
    for _ in range(2):
        with cache, NearCache.from_url(cache.url) as other:
            assert other.get("a") is None
            assert cache.set("a", 1)
            assert other.get("a") == 1


def test_one_asyncio_run_after_the_other(server: EmbeddedServer, namespace: str) -> None:
    """A cache of a module serves each loop in turn, whether it was closed or not; functions and listeners go on."""
    cache = AsyncNearCache.from_url(server.url, namespace=namespace)
    heard = Heard(cache)
    calls = []

    @cache.cached("square:{number}", ttl=60)
    async def square(number: int) -> int:
        calls.append(number)
        return number * number

    async def use() -> None:
        assert await square(7) == 49
        assert await square(7) == 49
        assert await cache.get_many(["a"]) == {}
        assert await cache.wait_healthy()
        assert cache.healthy
        assert len(asyncio.all_tasks()) == 2  # this one and the bus

    async def open_and_use() -> None:
        async with cache:
            await use()

    for run in (use, use, open_and_use, open_and_use):
        asyncio.run(run())
    with pytest.raises(CacheClosed):
        asyncio.run(use())
    asyncio.run(cache.close())
    assert calls == [7]
    assert len(heard.of(Connected)) == 4


@pytest.mark.parametrize("use", ["get", "set", "delete", "get_or_set", "get_many", "clear", "wait_healthy", "close"])
def test_every_call_finds_the_next_loop(use: str, fake: FakeServer) -> None:
    """The first call on the new loop may be any of them."""
    arguments = {"get": "a", "set": ("a", 1), "delete": "a", "get_or_set": ("b", load), "get_many": ["a"]}.get(use, ())
    cache = fake.async_cache()
    asyncio.run(cache.set("a", 1))
    asyncio.run(getattr(cache, use)(*(arguments if isinstance(arguments, tuple) else (arguments,))))
    if use != "close":
        asyncio.run(cache.close())


async def load() -> int:
    """A loader."""
    return 1


def test_a_loop_that_was_closed_over_its_tasks(fake: FakeServer) -> None:
    """Nobody cancelled them. The next loop works; the cache closes on it, or on none after that."""
    cache = fake.async_cache()
    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cache.set("a", 1))
        bus: list[Any] = [task for task in asyncio.all_tasks(loop) if task.get_name() == "nearcache-bus"]
        loop.close()
        for task in bus:
            task._log_destroy_pending = False
    asyncio.run(cache.close())
    assert not cache.healthy
    del bus, task, loop
    gc.collect()


def test_two_loops_at_once_are_refused(fake: FakeServer) -> None:
    """With the way out; neither call, `async with` nor close of the second loop harms the first."""
    cache = fake.async_cache()
    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(cache.__aenter__())
        for call in (cache.set("a", 1), cache.get("a"), cache.__aenter__(), cache.close()):
            with pytest.raises(ConfigError, match="another event loop; make one cache per loop"):
                other.run(call)
        assert cache.healthy
        assert one.run(cache.set("a", 1)) is True
        one.run(cache.close())
        assert other.run(cache.__aenter__()) is cache
        assert other.run(cache.get("a")) == 1
        other.run(cache.close())


def test_an_application_in_two_test_clients(server: EmbeddedServer, namespace: str) -> None:
    """A module's cache, opened and closed by the application's lifespan; and one that no lifespan opens."""
    cache = AsyncNearCache.from_url(server.url, namespace=namespace)
    unopened = AsyncNearCache.from_url(server.url, namespace=namespace)
    calls = []

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        async with cache:
            yield

    app = fastapi.FastAPI(lifespan=lifespan)

    @cache.cached("user:{number}")
    async def user(number: int) -> dict[str, int]:
        calls.append(number)
        return {"id": number}

    @app.get("/user/{number}")
    async def read(number: int) -> dict[str, int]:
        await unopened.set("seen", number)
        return await user(number)

    for _ in range(2):
        with TestClient(app) as client:
            assert cache.healthy
            assert client.get("/user/7").json() == {"id": 7}
        assert not cache.healthy
    assert calls == [7]

    plain = fastapi.FastAPI()

    @plain.get("/seen")
    async def seen() -> int:
        return int(await unopened.get("seen", 0))

    client = TestClient(plain)  # each request has a loop of its own
    assert [client.get("/seen").json() for _ in range(3)] == [7, 7, 7]


def test_a_loop_for_each_test(server: EmbeddedServer, namespace: str, tmp_path: Path) -> None:
    """pytest-asyncio runs each test on a loop of its own; a cache of a module serves them all."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(f"""
        import pytest
        from nearcache import AsyncNearCache

        cache = AsyncNearCache.from_url({server.url!r}, namespace={namespace!r})

        @cache.cached("square:{{number}}")
        async def square(number: int) -> int:
            return number * number

        @pytest.mark.parametrize("number", range(5))
        @pytest.mark.asyncio
        async def test_one(number: int) -> None:
            assert await square(number) == number * number
            assert await cache.set("a", number) is True
            assert await cache.get("a") == number
            assert await cache.wait_healthy()

        @pytest.mark.parametrize("number", range(3))
        @pytest.mark.asyncio
        async def test_two(number: int) -> None:
            async with cache:
                assert await square(number) == number * number
    """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
