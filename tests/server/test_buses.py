"""Buses of both kinds under faults: what is heard, in which order, and how a loss is told."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import pytest
import redis

from nearcache.engine.ports import BusRefused, RemoteFailed
from nearcache.protocol.answers import Beat, BusItem, Greeting
from nearcache.protocol.names import Names
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FaultProxy
from nearcache.transport import resp
from nearcache.transport.embedded import EmbeddedServer
from tests.support import servers
from tests.support.connections import SLACK, TIMEOUT, Make
from tests.support.waiting import until


async def hear(bus: Any, count: int) -> list[BusItem]:
    """So many items."""
    items: list[BusItem] = []
    deadline = time.monotonic() + 10
    while len(items) < count:
        assert time.monotonic() < deadline, f"only {len(items)} of {count} came"
        items += await bus.receive(1.0)
    return items


def publish(port: int, namespace: str, *messages: bytes) -> None:
    """As a script does."""
    with redis.Redis(port=port, protocol=2) as client:
        pipeline = client.pipeline(transaction=False)
        for message in messages:
            pipeline.publish(Names(namespace).channel, message)
        pipeline.execute()


async def test_answers_stand_behind_every_message_sent_before(make: Make, server: EmbeddedServer) -> None:
    """That is what a heartbeat proves with; messages keep their order."""
    bus = make.bus(server.url)
    await bus.open()
    await bus.ask_greeting()
    (greeting,) = await hear(bus, 1)
    assert isinstance(greeting, Greeting)
    sent = [str(number).encode() for number in range(500)]
    publish(server.port, make.namespace, *sent)
    await bus.ask_beat()
    *heard, beat = await hear(bus, 501)
    assert heard == sent
    assert isinstance(beat, Beat)
    assert (beat.number, beat.floor, beat.master) == (greeting.number, greeting.floor, True)
    assert beat.server_time > greeting.server_time


async def test_questions_are_answered_in_order(make: Make, server: EmbeddedServer) -> None:
    """Pipelined, of both kinds."""
    bus = make.bus(server.url)
    await bus.open()
    for ask in (bus.ask_beat, bus.ask_greeting, bus.ask_beat):
        await ask()
    kinds = [type(item) for item in await hear(bus, 3)]
    assert kinds == [Beat, Greeting, Beat]


async def test_a_message_larger_than_a_read_goes_through(make: Make, server: EmbeddedServer) -> None:
    """A thousand long keys in one message."""
    bus = make.bus(server.url)
    await bus.open()
    message = os.urandom(1024 * 1024)
    publish(server.port, make.namespace, message, b"next")
    assert await hear(bus, 2) == [message, b"next"]


async def test_much_at_once_is_taken_in_pieces(make: Make, server: EmbeddedServer) -> None:
    """Whatever a loop has taken from the socket meanwhile: between two pieces it is the other tasks' turn."""
    bus = make.bus(server.url)
    await bus.open()
    message, turns = os.urandom(1000), 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    publish(server.port, make.namespace, *[message] * 500)
    pieces, turns_at = [len(await hear(bus, 1))], [turns]
    while sum(pieces) < 500:
        pieces.append(len(await hear(bus, 1)))
        turns_at.append(turns)
    others.cancel()
    assert max(pieces) <= resp.BUS_CHUNK // len(message) + 1
    if make.mode == "aio":
        assert len(set(turns_at)) == len(pieces)


async def test_silence_is_an_empty_answer_after_the_timeout(make: Make, server: EmbeddedServer) -> None:
    """And 0 only looks."""
    bus = make.bus(server.url)
    await bus.open()
    begun = time.monotonic()
    assert list(await bus.receive(0.1)) == []
    assert 0.09 <= time.monotonic() - begun < 0.1 + SLACK
    begun = time.monotonic()
    assert list(await bus.receive(0.0)) == []
    assert time.monotonic() - begun < SLACK


async def test_messages_of_another_namespace_are_not_heard(make: Make, server: EmbeddedServer) -> None:
    """One channel per namespace."""
    bus = make.bus(server.url)
    await bus.open()
    publish(server.port, make.namespace + "x", b"theirs")
    publish(server.port, make.namespace, b"ours")
    assert await hear(bus, 1) == [b"ours"]


@pytest.mark.parametrize("how", ["cut", "killed"])
async def test_a_lost_connection_is_a_failure_at_once(make: Make, proxy: FaultProxy, how: str) -> None:
    """Never a silent reconnect: messages were missed."""
    bus = make.bus(proxy.url)
    await bus.open()
    publish(proxy.target_port, make.namespace, b"before")
    assert await hear(bus, 1) == [b"before"]
    accepted = proxy.accepted
    if how == "cut":
        proxy.cut_connections()
    else:
        with redis.Redis(port=proxy.target_port, protocol=2) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    begun = time.monotonic()
    with pytest.raises(RemoteFailed):
        await bus.receive(10.0)
    assert time.monotonic() - begun < SLACK
    assert proxy.accepted == accepted


async def test_a_subscription_that_is_not_confirmed_is_a_failure(make: Make, proxy: FaultProxy) -> None:
    """Within the timeouts, and the connection is closed."""
    proxy.hold("replies")
    bus = make.bus(proxy.url)
    begun = time.monotonic()
    with pytest.raises(RemoteFailed):
        await bus.open()
    assert time.monotonic() - begun < 3 * TIMEOUT + SLACK
    await bus.close()
    await until(lambda: proxy.connections == 0)


async def test_closing_ends_a_receive_that_waits(make: Make, server: EmbeddedServer) -> None:
    """From another thread, or another task."""
    bus = make.bus(server.url)
    await bus.open()

    async def receive() -> str:
        try:
            await bus.receive(30.0)
        except RemoteFailed:
            return "failed"
        return "ended"

    begun = time.monotonic()
    if make.mode == "aio":
        waiting: Any = asyncio.create_task(receive())
        await asyncio.sleep(0)
    else:
        waiting = asyncio.create_task(asyncio.to_thread(lambda: run_sync(receive())))
        await until(lambda: "_receive_within" in [one.f_code.co_name for one in sys._current_frames().values()])
    await bus.close()
    assert await waiting in {"failed", "ended"}
    assert time.monotonic() - begun < SLACK


async def test_a_server_that_hides_its_name_has_none(make: Make, fresh_server: EmbeddedServer) -> None:
    """Where INFO is denied, the greeting comes all the same."""
    with redis.Redis(port=fresh_server.port, protocol=2) as client:
        rules = ["on", ">pw", "~*", "&*", "+@all", "-info"]
        client.execute_command("ACL", "SETUSER", "shy", *rules)
    bus = make.bus(f"redis://shy:pw@127.0.0.1:{fresh_server.port}")
    await bus.open()
    await bus.ask_greeting()
    (greeting,) = await hear(bus, 1)
    assert isinstance(greeting, Greeting)
    assert greeting.identity is None
    assert greeting.number


async def test_a_user_who_may_not_subscribe_is_a_failure(make: Make, fresh_server: EmbeddedServer) -> None:
    """Told at once, with the code alone."""
    with redis.Redis(port=fresh_server.port, protocol=2) as client:
        client.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all")
    bus = make.bus(f"redis://deaf:pw@127.0.0.1:{fresh_server.port}")
    with pytest.raises(RemoteFailed, match="NOPERM"):
        await bus.open()


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_bus_needs_resp3(make: Make, kind: str) -> None:
    """It asks for RESP3 at each attempt and is refused where it gets RESP2, with the way out; commands go on."""
    with servers.make(kind, servers.RESP2_ONLY) as old:
        for url in (old.url, f"{old.url}?protocol=2"):
            with pytest.raises(BusRefused, match="L1 needs RESP3"):
                await make.bus(url).open()


async def test_a_demoted_primary_says_so(make: Make, fresh_server: EmbeddedServer) -> None:
    """It keeps the subscription open and answers for ever; only the role tells."""
    bus = make.bus(fresh_server.url)
    await bus.open()
    with redis.Redis(port=fresh_server.port, protocol=2) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    await bus.ask_beat()
    (beat,) = await hear(bus, 1)
    assert isinstance(beat, Beat)
    assert not beat.master
    await bus.ask_greeting()
    (greeting,) = await hear(bus, 1)
    assert isinstance(greeting, Greeting)
    assert not greeting.master


async def test_a_lost_counter_is_told(make: Make, server: EmbeddedServer) -> None:
    """A beat does not create it; a greeting does."""
    bus = make.bus(server.url)
    await bus.open()
    await bus.ask_beat()
    (beat,) = await hear(bus, 1)
    assert isinstance(beat, Beat)
    assert (beat.number, beat.floor) == (None, None)
