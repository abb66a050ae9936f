"""Servers that speak RESP2 alone: how connections come about, and the bus that asks its questions aside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from nearcache.engine.ports import BusRefused, RemoteFailed, RemoteMisconfigured
from nearcache.protocol import messages
from nearcache.protocol.answers import Beat, Greeting
from nearcache.protocol.names import Names
from nearcache.testing import FaultProxy, subscribers
from nearcache.transport.aside import AsideProtocol
from nearcache.transport.async_transport import TaskBus
from nearcache.transport.client import RedisRemote
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.handshake import BusProtocol
from nearcache.transport.sync_transport import SocketConnection

# What holds on RESP3 holds here: the same tests, run on the servers of this module.
from tests.server.test_transports import (
    PING,
    SLACK,
    TIMEOUT,
    Make,
    echo,
    hear,
    make,
    publish,
    test_a_demoted_primary_says_so,
    test_a_lost_connection_is_a_failure_at_once,
    test_a_lost_counter_is_told,
    test_a_message_larger_than_a_read_goes_through,
    test_a_subscription_that_is_not_confirmed_is_a_failure,
    test_a_user_who_may_not_subscribe_is_a_failure,
    test_answers_stand_behind_every_message_sent_before,
    test_closing_ends_a_receive_that_waits,
    test_messages_of_another_namespace_are_not_heard,
    test_questions_are_answered_in_order,
    test_silence_is_an_empty_answer_after_the_timeout,
)
from tests.support import servers
from tests.support.waiting import until

__all__ = [
    "make",
    "test_a_demoted_primary_says_so",
    "test_a_lost_connection_is_a_failure_at_once",
    "test_a_lost_counter_is_told",
    "test_a_message_larger_than_a_read_goes_through",
    "test_a_subscription_that_is_not_confirmed_is_a_failure",
    "test_a_user_who_may_not_subscribe_is_a_failure",
    "test_answers_stand_behind_every_message_sent_before",
    "test_closing_ends_a_receive_that_waits",
    "test_messages_of_another_namespace_are_not_heard",
    "test_questions_are_answered_in_order",
    "test_silence_is_an_empty_answer_after_the_timeout",
]


@pytest.fixture(scope="module", params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of each kind that refuses HELLO."""
    with servers.make(request.param, servers.RESP2_ONLY) as shared:
        yield shared


@pytest.fixture(params=servers.KINDS)
def fresh_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """The same for one test alone."""
    with servers.make(request.param, servers.RESP2_ONLY) as own:
        yield own


async def opened(make: Make, url: str) -> Any:
    """A bus that is open, and speaks RESP2."""
    bus = make.bus(url)
    await bus.open()
    assert isinstance(bus._talk, AsideProtocol)
    return bus


def remote_of(make: Make, server: EmbeddedServer) -> RedisRemote:
    """Somebody who writes."""
    return RedisRemote(make.wire(server.url), Names(make.namespace), retries=0, redis_timeout=TIMEOUT)


# --------------------------------------------------------------------------------------------------------- connections


async def test_a_refusal_of_resp3_is_remembered(make: Make, proxy: FaultProxy) -> None:
    """The first connection costs two, the next ones one; RESP2 has the same replies."""
    wire = make.wire(proxy.url)
    assert await wire.execute(echo("a")) == [b"a"]
    assert proxy.accepted == 2
    for accepted in (3, 4):
        wire.discard_idle()
        await until(lambda: proxy.connections == 0)
        assert await wire.execute(PING) == [b"PONG"]
        assert proxy.accepted == accepted


async def test_a_bus_tries_resp3_again(make: Make, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may have become another one, either way; commands follow."""
    endpoint = make.endpoint(proxy.url)
    monkeypatch.setattr(make, "endpoint", lambda _: endpoint)
    for config, talk, protocol in (({}, BusProtocol, 3), (servers.RESP2_ONLY, AsideProtocol, 2)):
        with servers.make("valkey", config) as changed:
            bus = await opened(make, proxy.url)
            assert endpoint.protocol == 2
            await bus.close()
            before, proxy.target_port = proxy.target_port, changed.port
            bus = make.bus(proxy.url)
            await bus.open()
            assert type(bus._talk) is talk
            assert endpoint.protocol == protocol
            await bus.close()
            proxy.target_port = before


async def test_a_url_may_ask_for_resp2(make: Make) -> None:
    """Of a server that would speak RESP3: for a proxy that hangs up on HELLO."""
    with servers.make("valkey") as server, FaultProxy(server.port) as proxy:
        bus = await opened(make, f"{proxy.url}?protocol=2")
        assert proxy.accepted == 2
        await bus.ask_beat()
        assert isinstance((await hear(bus, 1))[0], Beat)


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_password_is_given_and_asked_for(make: Make, kind: str) -> None:
    """AUTH instead of HELLO; the wrong one and none are told as what they are."""
    with servers.make(kind, {**servers.RESP2_ONLY, "requirepass": "secret"}) as server:
        assert await make.wire(server.url).execute(echo("in")) == [b"in"]
        await opened(make, server.url)
        for url in (f"redis://:wrong@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
            with pytest.raises(RemoteMisconfigured, match="password"):
                await make.bus(url).open()


async def test_an_answer_that_is_no_refusal_of_resp3_is_a_failure(make: Make) -> None:
    """A database that is not there is not there in RESP2 either: no second attempt."""
    with servers.make("valkey") as server, FaultProxy(server.port) as proxy:
        with pytest.raises(RemoteFailed):
            await make.wire(proxy.url.replace("/0", "/99")).execute(PING)
        assert proxy.accepted == 1


# ------------------------------------------------------------------------------------------------------------- the bus


async def test_writes_between_a_number_and_its_pong_are_counted(
    make: Make, server: EmbeddedServer, proxy: FaultProxy
) -> None:
    """The answer stands for the counters as they were at PING, as on RESP3; the floor too."""
    remote = remote_of(make, server)
    bus = await opened(make, proxy.url)
    await bus.ask_greeting()
    (greeting,) = await hear(bus, 1)
    assert isinstance(greeting, Greeting)
    assert greeting.master
    assert greeting.identity is not None
    for ask in (bus.ask_beat, bus.ask_greeting):
        proxy.hold("requests", subscribers)
        await ask()
        await remote.delete(["a"])
        cleared = await remote.clear()
        last = await remote.delete(["a"])
        await bus.ask_beat()
        assert cleared is not None
        assert last is not None
        assert [messages.unpack(message).number for message in await hear(bus, 3) if isinstance(message, bytes)] == [
            cleared.number - 1,
            cleared.number,
            last.number,
        ]
        proxy.release()
        for answer in await hear(bus, 2):
            assert isinstance(answer, Greeting | Beat)
            assert (answer.number, answer.floor) == (last.number, cleared.number)


async def test_a_message_missing_before_the_pong_ends_the_bus(
    make: Make, server: EmbeddedServer, proxy: FaultProxy
) -> None:
    """The floor that was read says nothing of what is missing."""
    bus = await opened(make, proxy.url)
    await bus.ask_greeting()
    (greeting,) = await hear(bus, 1)
    assert isinstance(greeting, Greeting)
    proxy.hold("requests", subscribers)
    await bus.ask_beat()
    publish(server.port, make.namespace, b"\x01I" + (greeting.number + 2).to_bytes(8))
    await hear(bus, 1)
    proxy.release()
    with pytest.raises(RemoteFailed, match="missing"):
        await hear(bus, 1)


async def test_a_counter_that_is_lost_behind_messages_is_told_as_lost(make: Make, proxy: FaultProxy) -> None:
    """A message before the PONG does not make up for it."""
    bus = await opened(make, proxy.url)
    proxy.hold("requests", subscribers)
    await bus.ask_beat()
    publish(proxy.target_port, make.namespace, b"\x01I" + (1).to_bytes(8))
    await hear(bus, 1)
    proxy.release()
    (beat,) = await hear(bus, 1)
    assert isinstance(beat, Beat)
    assert (beat.number, beat.floor) == (None, None)


async def test_garbage_before_the_pong_is_passed_on(make: Make, proxy: FaultProxy) -> None:
    """What it does to L1 is not the bus's affair."""
    bus = await opened(make, proxy.url)
    await bus.ask_greeting()
    await hear(bus, 1)
    proxy.hold("requests", subscribers)
    await bus.ask_beat()
    publish(proxy.target_port, make.namespace, b"garbage")
    assert await hear(bus, 1) == [b"garbage"]
    proxy.release()
    assert isinstance((await hear(bus, 1))[0], Beat)


@pytest.mark.parametrize("word", ["ask_greeting", "ask_beat"])
async def test_questions_answered_by_another_server_end_the_bus(make: Make, server: EmbeddedServer, word: str) -> None:
    """A failover between the two connections: its number says nothing of what this bus should have heard."""
    bus = await opened(make, server.url)
    with servers.make("valkey", servers.RESP2_ONLY) as other:
        await lead_aside(make, bus, other.url)
        with pytest.raises(RemoteFailed, match="another server"):
            await getattr(bus, word)()


async def lead_aside(make: Make, bus: Any, url: str) -> None:
    """The connection for questions is another server's."""
    if isinstance(bus, TaskBus):
        assert bus._aside is not None
        bus._aside.stream.close()
        await bus._aside.stream.connect(make.endpoint(url))
    else:
        bus._aside.close()
        bus._aside = SocketConnection(make.endpoint(url), TIMEOUT)


async def test_a_history_that_ended_meanwhile_ends_the_bus(make: Make, fresh_server: EmbeddedServer) -> None:
    """Demoted and promoted between two heartbeats: the same process, and a master, with another history."""
    bus = await opened(make, fresh_server.url)
    with redis.Redis(port=fresh_server.port, protocol=2) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        client.execute_command("REPLICAOF", "NO", "ONE")
    with pytest.raises(RemoteFailed, match="another server"):
        await bus.ask_beat()


@pytest.mark.parametrize("hurt", ["hold", "cut"])
async def test_a_lost_aside_is_a_failure(make: Make, proxy: FaultProxy, hurt: str) -> None:
    """Within the timeout; the subscription alone proves nothing."""
    bus = await opened(make, proxy.url)

    def questions(head: bytes) -> bool:
        return not subscribers(head)

    if hurt == "hold":
        proxy.hold("replies", questions)
    else:
        proxy.cut_connections(questions)
    begun = time.monotonic()
    with pytest.raises(RemoteFailed):
        await bus.ask_beat()
    assert time.monotonic() - begun < TIMEOUT + SLACK


async def test_closing_leaves_no_connection(make: Make, proxy: FaultProxy) -> None:
    """Neither of the two."""
    bus = await opened(make, proxy.url)
    assert proxy.connections == 2
    await bus.close()
    await until(lambda: proxy.connections == 0)


async def test_an_interrupted_question_ends(make: Make, proxy: FaultProxy) -> None:
    """As a closing cache does it."""
    bus = await opened(make, proxy.url)
    proxy.hold("replies")
    asking = asyncio.create_task(bus.ask_beat()) if make.mode == "aio" else None
    await asyncio.sleep(0)
    bus.interrupt()
    with pytest.raises(RemoteFailed):
        await (asking or bus.ask_beat())


async def test_where_info_is_denied_there_is_no_bus(make: Make, fresh_server: EmbeddedServer) -> None:
    """Nothing would prove that both connections lead to one server."""
    with redis.Redis(port=fresh_server.port, protocol=2) as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", ">pw", "~*", "&*", "+@all", "-info")
    with pytest.raises(BusRefused, match="needs INFO"):
        await make.bus(f"redis://shy:pw@127.0.0.1:{fresh_server.port}").open()
