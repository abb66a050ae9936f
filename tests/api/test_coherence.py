"""Several caches on one server, threaded and asyncio ones together: what one writes, the others see."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest

from nearcache import Connected, CorruptValue, Disconnected, Flushed
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.twins import MODES, Twin, twin_of
from tests.support.waiting import Heard, channel_name, redis_of, until, value_name

STALENESS = 30.0
"""max_staleness where a test shows that L1 was dropped by a message or a gap, not because time was over."""


@asynccontextmanager
async def several(runner: asyncio.Runner, url: str, namespace: str, *modes: str, **settings: Any) -> AsyncIterator[Any]:
    """Caches of these modes in one namespace, entered."""
    async with AsyncExitStack() as stack:
        caches = []
        for mode in modes:
            cache = twin_of(mode, url, runner, **{"namespace": namespace, "max_staleness": STALENESS, **settings})
            stack.push_async_callback(cache.close)
            caches.append(await stack.enter_async_context(cache))
        yield caches


async def dropped(cache: Twin, *keys: str) -> None:
    """Wait until L1 has none of the keys."""
    await until(lambda: all(cache.peek(key, "no") == "no" for key in keys))


async def caught_up(reader: Twin, writer: Twin) -> None:
    """Wait until one cache has had every message of what another has written."""
    with redis_of(writer.url) as client:
        number = int(client.hget(f"{{{writer.settings.namespace}:0}}:m", "s"))
    await until(lambda: reader._core.invalidation.last >= number)


async def filled(caches: list[Twin], **values: Any) -> None:
    """Set, and have every cache read, so that all hold the values in L1."""
    await caches[0].set_many(values)
    for cache in caches:
        # A message of the very write may still be on its way; a fill behind it stays.
        await caught_up(cache, caches[0])
        assert await cache.get_many(values) == values
        assert all(cache.peek(key) == value for key, value in values.items())


@pytest.mark.parametrize("writer", MODES)
async def test_a_write_is_seen_by_the_others(
    server: EmbeddedServer, namespace: str, runner: asyncio.Runner, writer: str
) -> None:
    """A set by a threaded or an asyncio cache drops the key from every other L1, and only that key."""
    async with several(runner, server.url, namespace, writer, *MODES) as caches:
        await filled(caches, a=1, b=2)
        await caches[0].set("a", 10)
        for cache in caches[1:]:
            await dropped(cache, "a")
            assert cache.peek("b") == 2
            assert await cache.get("a") == 10
        assert caches[0].peek("a") == 10


@pytest.mark.parametrize("writer", MODES)
@pytest.mark.parametrize(
    ("method", "args", "stays"),
    [("delete", ["a", "b"], True), ("clear", [], False), ("invalidate_tags", ["t"], True)],
)
async def test_a_removal_is_seen_by_the_others(
    server: EmbeddedServer,
    namespace: str,
    runner: asyncio.Runner,
    writer: str,
    method: str,
    args: list[str],
    stays: bool,
) -> None:
    """delete, clear and invalidate_tags drop from every other L1 what they should, and Redis does not bring it back."""
    async with several(runner, server.url, namespace, writer, *MODES) as caches:
        await filled(caches, c=3)
        await caches[0].set_many({"a": 1, "b": 2}, tags=["t"])
        for cache in caches:
            await caught_up(cache, caches[0])
            await cache.get_many(["a", "b"])
        assert await getattr(caches[0], method)(*args) is True
        for cache in caches:
            await dropped(cache, "a", "b")
            assert (cache.peek("c") == 3) is stays
            assert await cache.get_many(["a", "b"]) == {}


async def test_two_namespaces_do_not_disturb_each_other(
    server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """The same key in another namespace is another key; not even its messages are heard."""
    async with (
        several(runner, server.url, namespace, *MODES) as here,
        several(runner, server.url, f"{namespace}.other", *MODES) as there,
    ):
        await filled(here, a=1)
        await filled(there, a=2)
        before = here[1].stats().invalidations_received
        await there[0].set("a", 3)
        await there[0].delete("a")
        await there[0].clear()
        await until(lambda: there[1].stats().invalidations_received >= 4)
        assert [cache.peek("a") for cache in here] == [1, 1]
        assert here[1].stats().invalidations_received == before


async def test_a_lost_bus_and_a_write_meanwhile_flush(
    server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """When messages were missed while the bus was away, everything is dropped before L1 is trusted again."""
    with FaultProxy(server.port) as proxy:
        async with (
            several(runner, proxy.url, namespace, *MODES) as readers,
            several(runner, server.url, namespace, "aio") as (writer,),
        ):
            await filled([writer, *readers], a=1, b=2)
            heard = [Heard(reader) for reader in readers]
            proxy.cut()
            await until(lambda: all(one.of(Disconnected) for one in heard))
            await writer.set("a", 10)
            proxy.heal()
            await until(lambda: all(one.of(Connected) for one in heard))
            for reader, one in zip(readers, heard, strict=True):
                assert [flush.entries for flush in one.of(Flushed)] == [2]
                assert one.of(Connected) == [Connected(kept=0)]
                assert reader.peek("b") is None
                assert await reader.get_many(["a", "b"]) == {"a": 10, "b": 2}


async def test_a_killed_bus_without_a_write_keeps_l1(
    fresh_server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """CLIENT KILL TYPE pubsub, and nothing was written: the proof holds, and every entry is kept."""
    async with several(runner, fresh_server.url, namespace, *MODES) as caches:
        await filled(caches, a=1, b=2)
        heard = [Heard(cache) for cache in caches]
        with redis_of(fresh_server.url) as client:
            assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 2
        await until(lambda: all(one.of(Connected) for one in heard))
        for cache, one in zip(caches, heard, strict=True):
            assert one.of(Connected) == [Connected(kept=2)]
            assert not one.of(Flushed)
            assert cache.peek("a") == 1
            assert cache.healthy


async def test_a_bus_killed_again_and_again_misses_nothing(
    fresh_server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """Writes and kills of the bus in a row: at the end every cache has the last value."""
    settings = {"reconnect_max": 0.05}
    async with several(runner, fresh_server.url, namespace, "aio", *MODES, **settings) as caches:
        with redis_of(fresh_server.url) as client:
            for number in range(30):
                assert await caches[0].set("a", number) is True
                for cache in caches:
                    await cache.get("a")
                if number % 3 == 0:
                    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for cache in caches:
            assert await cache.wait_healthy(5)

            async def is_last(cache: Twin = cache) -> bool:
                return bool(await cache.get("a") == 29)

            await until(is_last)


@pytest.mark.parametrize(
    "message", [b"", b"garbage", b"\x01", b"\x02I", b"\x01I\0\0\0\0\0\0\0\x07\xff\xff", b"\x01?" + bytes(8)]
)
async def test_garbage_on_the_channel_flushes(
    server: EmbeddedServer, namespace: str, runner: asyncio.Runner, message: bytes
) -> None:
    """A message that can't be read may have been anything: L1 is dropped, and goes on."""
    async with several(runner, server.url, namespace, *MODES) as caches:
        await filled(caches, a=1)
        heard = [Heard(cache) for cache in caches]
        with redis_of(server.url) as client:
            client.publish(channel_name(namespace), message)
        for cache, one in zip(caches, heard, strict=True):
            await until(functools.partial(one.of, Flushed))
            assert "can't be read" in one.of(Flushed)[0].reason
            assert cache.peek("a") is None
            assert await cache.get("a") == 1
        await filled(caches, a=2)


async def test_a_gap_in_the_numbers_flushes(server: EmbeddedServer, namespace: str, runner: asyncio.Runner) -> None:
    """A message whose number does not follow means that others were missed."""
    async with several(runner, server.url, namespace, *MODES) as caches:
        await filled(caches, a=1, b=2)
        with redis_of(server.url) as client:
            client.hincrby(f"{{{namespace}:0}}:m", "s", 5)
        await caches[0].set("a", 10)
        for cache in caches:
            await dropped(cache, "b")
        for cache in caches:
            assert await cache.get_many(["a", "b"]) == {"a": 10, "b": 2}


async def test_flushall_is_noticed(fresh_server: EmbeddedServer, namespace: str, runner: asyncio.Runner) -> None:
    """After FLUSHALL and SCRIPT FLUSH every L1 is dropped by the next heartbeat, and everything works on."""
    async with several(runner, fresh_server.url, namespace, *MODES, max_staleness=1.0) as caches:
        await filled(caches, a=1)
        with redis_of(fresh_server.url) as client:
            client.flushall()
            client.script_flush()
        for cache in caches:
            await dropped(cache, "a")
            assert await cache.get("a") is None
            assert await cache.wait_healthy()
        await caches[0].set("a", 2)

        async def seen() -> bool:
            return bool(await caches[1].get("a") == 2)

        await until(seen)


async def test_scripts_that_the_server_forgot_are_sent_again(
    fresh_server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """After SCRIPT FLUSH each write and load works at once."""
    async with several(runner, fresh_server.url, namespace, *MODES) as caches:
        for cache in caches:
            with redis_of(fresh_server.url) as client:

                def forget(client: Any = client) -> None:
                    client.script_flush()

                forget()
                assert await cache.set("a", 1, tags=["t"]) is True
                forget()
                assert await cache.get_or_set("b", cache.loader(2)) == 2
                forget()
                assert await cache.delete("a") is True
                forget()
                assert await cache.invalidate_tags("t") is True
                forget()
                assert await cache.clear() is True
            assert cache.stats().l2_errors == 0


async def test_foreign_values_are_misses(server: EmbeddedServer, namespace: str, runner: asyncio.Runner) -> None:
    """Garbage, a truncated record, another type: a miss that is told once, and overwritten by the next load."""
    async with several(runner, server.url, namespace, "aio", *MODES) as (writer, *readers):
        with redis_of(server.url) as client:
            for reader in readers:
                heard = Heard(reader)
                for key in ("garbage", "empty", "truncated", "payload", "list"):
                    await writer.set(key, {"value": list(range(50))}, tags=["t"])
                    name = value_name(namespace, key)
                    record = client.get(name)
                    if key == "list":
                        client.delete(name)
                        client.rpush(name, "x")
                    else:
                        changed = {"garbage": b"x" * 99, "empty": b"", "truncated": record[:27], "payload": record[:-5]}
                        client.set(name, changed[key])
                    await caught_up(reader, writer)
                    assert await reader.get(key) is None
                    assert await reader.get_many([key]) == {}
                    assert await reader.get_or_set(key, reader.loader("loaded")) == "loaded"
                    assert await reader.get(key) == "loaded"
                    writer.clear_local()
                    assert await writer.get(key) == "loaded"
                told = [event.key for event in heard.of(CorruptValue)]
                assert told == ["garbage", "empty", "truncated", "payload"]  # a list reads as nothing at all
                assert all(event.reason for event in heard.of(CorruptValue))
                assert reader.healthy


class Words:
    """A codec of the user's own, which raises whatever it likes."""

    def encode(self, value: object) -> bytes:
        """Text alone."""
        return cast("str", value).encode("ascii")

    def decode(self, data: bytes) -> str:
        """Text alone."""
        return data.decode("ascii")


async def test_values_of_another_codec_are_misses(
    server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> None:
    """What the reader's codec can't decode, whatever it raises, is a miss; what it can't encode is the caller's."""
    async with (
        several(runner, server.url, namespace, "aio") as (writer,),
        several(runner, server.url, namespace, *MODES, codec=Words()) as readers,
    ):
        for reader in readers:
            await writer.set("a", b"\xff\xfe")
            await caught_up(reader, writer)
            heard = Heard(reader)
            assert await reader.get("a") is None
            assert await reader.get_many(["a"]) == {}
            assert [event.key for event in heard.of(CorruptValue)] == ["a"]
            assert await reader.get_or_set("a", reader.loader("text")) == "text"
            assert await reader.get("a") == "text"
            assert await reader.get_or_set("b", reader.loader(7)) == 7
            assert await reader.get("b") is None
