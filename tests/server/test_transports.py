"""Connections under faults: transports and buses of both kinds, against real servers through a proxy that hurts them.

The threaded ones never suspend, so that one coroutine tests both kinds.
"""

from __future__ import annotations

import asyncio
import os
import time
from unittest.mock import patch

import pytest

from nearcache.engine.gathering import turn
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured, RemoteTimeout
from nearcache.protocol.names import Names
from nearcache.testing import FaultProxy, black_hole
from nearcache.transport import resp
from nearcache.transport.async_connection import Pipeline
from nearcache.transport.async_transport import AsyncTransport
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.handshake import Handshake
from nearcache.transport.sync_transport import SyncTransport
from tests.support import servers
from tests.support.connections import PING, SLACK, TIMEOUT, Make, echo, idle_is_dead
from tests.support.faults import HttpServer
from tests.support.waiting import until


async def test_replies_come_in_the_order_of_the_commands(make: Make, proxy: FaultProxy) -> None:
    """Some commands at once, and one after the other, over one connection."""
    transport = make.transport(proxy.url)
    texts = [str(number) for number in range(100)]
    assert await transport.execute(b"".join(map(echo, texts)), 100) == [text.encode() for text in texts]
    for text in texts:
        assert await transport.execute(echo(text)) == [text.encode()]
    assert proxy.accepted == 1


async def test_replies_may_be_awaited_after_other_servers_were_asked(proxy: FaultProxy) -> None:
    """In threads; an interrupt between the two leaves no reply to the next command, and the connection's permit."""
    transport = SyncTransport(Make("sync", "n").endpoint(proxy.url), TIMEOUT, 1)
    sending = transport.execute(echo("a"), sent=turn())
    sending.send(None)
    with pytest.raises(StopIteration) as ended:
        sending.send(None)
    assert ended.value.value == [b"a"]
    interrupted = transport.execute(echo("b"), sent=turn())
    interrupted.send(None)
    interrupted.close()
    assert await transport.execute(echo("c")) == [b"c"]
    assert proxy.accepted == 2
    await transport.close()


async def test_an_error_reply_is_an_object_and_harms_nothing(make: Make, proxy: FaultProxy) -> None:
    """Its neighbours are answered, and the connection goes on."""
    transport = make.transport(proxy.url)
    first, error, last = await transport.execute(echo("a") + resp.pack((b"NONSENSE",)) + echo("b"), 3)
    assert (first, last) == (b"a", b"b")
    assert isinstance(error, resp.ServerError)
    assert error.code == "ERR"
    assert await transport.execute(echo("c")) == [b"c"]
    assert proxy.accepted == 1


async def test_a_silent_server_is_a_timeout_and_the_late_reply_goes_to_nobody(make: Make, proxy: FaultProxy) -> None:
    """After about the timeout; the next command has its own connection and its own reply."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    proxy.hold("replies")
    begun = time.monotonic()
    with pytest.raises(RemoteTimeout):
        await transport.execute(echo("late"))
    assert TIMEOUT * 0.9 <= time.monotonic() - begun < TIMEOUT + SLACK
    proxy.release()
    assert await transport.execute(echo("next")) == [b"next"]
    assert proxy.accepted == 2


async def test_a_port_that_never_answers_is_a_timeout(make: Make) -> None:
    """Connecting has its limit too."""
    with black_hole() as port:
        begun = time.monotonic()
        with pytest.raises(RemoteFailed):
            await make.transport(f"redis://127.0.0.1:{port}").execute(PING)
        assert time.monotonic() - begun < 3 * TIMEOUT + SLACK


async def test_a_refused_connection_fails_at_once_and_heals(make: Make, proxy: FaultProxy) -> None:
    """No retries inside, no waiting; and when the server is back, so are we."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    proxy.cut()
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(RemoteFailed):
            await transport.execute(PING)
    assert time.monotonic() - begun < TIMEOUT + SLACK
    proxy.heal()
    assert await transport.execute(echo("back")) == [b"back"]


async def test_a_failure_says_whether_anything_was_sent(make: Make, proxy: FaultProxy) -> None:
    """What never left has no deadline to wait for; what was cut off on its way has."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    proxy.hold("replies")
    sent = asyncio.create_task(transport.execute(PING))
    with pytest.raises(RemoteFailed) as caught:
        await sent
    assert caught.value.sent is True
    proxy.cut()
    with pytest.raises(RemoteFailed) as caught:
        await make.transport(proxy.url).execute(PING)
    assert caught.value.sent is False


async def test_a_dead_idle_connection_is_replaced_before_a_write(make: Make, proxy: FaultProxy) -> None:
    """A write is sent once: it must not be lost on a connection that the server closed long ago."""
    transport = make.transport(proxy.url)
    for _ in range(3):
        await transport.execute(PING)
        proxy.cut_connections()
        await idle_is_dead(transport)
        assert await transport.execute(echo("sent once")) == [b"sent once"]


async def test_idle_connections_are_dropped_on_demand(make: Make, proxy: FaultProxy) -> None:
    """When the bus is lost, the server behind them may have gone."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    transport.discard_idle()
    await until(lambda: proxy.connections == 0)
    assert await transport.execute(echo("again")) == [b"again"]


async def test_large_replies_and_commands_go_through(make: Make, proxy: FaultProxy) -> None:
    """8 MiB either way, in pieces, with small ones around."""
    transport = make.transport(proxy.url, timeout=5.0)
    blob = os.urandom(8 * 1024 * 1024)
    assert await transport.execute(resp.pack((b"ECHO", blob)) + echo("x"), 2) == [blob, b"x"]
    assert await transport.execute(echo("y")) == [b"y"]
    if isinstance(transport, SyncTransport):  # what was left of the large one's time is not the next one's limit
        assert transport._idle[-1]._socket.gettimeout() is None


async def test_the_timeout_is_for_the_whole_reply(make: Make, proxy: FaultProxy) -> None:
    """A server that sends a piece and then nothing is a timeout as well."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    proxy.hold("replies")
    begun = time.monotonic()
    with pytest.raises(RemoteTimeout):
        await transport.execute(echo("x" * 200_000) + echo("y"), 2)
    assert time.monotonic() - begun < TIMEOUT + SLACK


async def test_what_is_no_redis_is_told(make: Make) -> None:
    """A web server on that port can never be right."""
    with HttpServer() as page, pytest.raises(RemoteMisconfigured):
        await make.transport(f"redis://127.0.0.1:{page.port}").execute(PING)


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_wrong_password_is_told_and_not_shown(make: Make, kind: str) -> None:
    """Nor is the right one."""
    with servers.make(kind, config={"requirepass": "right-secret"}) as server:
        assert await make.transport(server.url).execute(echo("in")) == [b"in"]
        with pytest.raises(RemoteMisconfigured) as caught:
            await make.transport(f"redis://:wrong-secret@127.0.0.1:{server.port}").execute(PING)
        assert "secret" not in str(caught.value)


async def test_closing_leaves_no_connection(make: Make, proxy: FaultProxy) -> None:
    """Transports and buses, idle ones at once."""
    transport, bus = make.transport(proxy.url), make.bus(proxy.url)
    await transport.execute(PING)
    await bus.open()
    assert proxy.connections == 2
    await transport.close()
    await bus.close()
    await until(lambda: proxy.connections == 0)


async def test_failures_leave_no_connection(make: Make, proxy: FaultProxy) -> None:
    """Whatever failed has been closed."""
    transport = make.transport(proxy.url)
    await transport.execute(PING)
    proxy.hold("replies")
    for _ in range(3):
        with pytest.raises(RemoteFailed):
            await transport.execute(PING)
    await until(lambda: proxy.connections == 0)


async def test_connecting_is_bounded_as_a_whole(make: Make, proxy: FaultProxy) -> None:
    """Each answer of the greeting comes in time, all together do not; nothing was sent."""
    proxy.delay_replies(TIMEOUT * 0.7)
    transport = make.transport(proxy.url)
    transport.handshake = Handshake(Names(make.namespace), lambda _: None)
    with pytest.raises(RemoteTimeout) as caught:
        await transport.execute(PING)
    assert caught.value.sent is False
    bus = make.bus(proxy.url)
    proxy.delay_replies(0)
    await bus.open()


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_refusal_of_resp3_is_remembered(make: Make, kind: str) -> None:
    """The first connection costs two, the next ones one; commands have the same replies in RESP2."""
    with servers.make(kind, servers.RESP2_ONLY) as old, FaultProxy(old.port) as proxy:
        transport = make.transport(proxy.url)
        assert await transport.execute(echo("a")) == [b"a"]
        assert proxy.accepted == 2
        for accepted in (3, 4):
            transport.discard_idle()
            await until(lambda: proxy.connections == 0)
            assert await transport.execute(PING) == [b"PONG"]
            assert proxy.accepted == accepted


async def test_an_answer_that_is_no_refusal_of_resp3_is_a_failure(make: Make, proxy: FaultProxy) -> None:
    """A database that is not there is not there in RESP2 either: no second attempt."""
    with pytest.raises(RemoteFailed):
        await make.transport(proxy.url.replace("/0", "/99")).execute(PING)
    assert proxy.accepted == 1


async def test_a_connection_that_is_discarded_before_anybody_could_use_it(server: EmbeddedServer) -> None:
    """A command that runs in the same turn of the loop connects anew; the loop goes on."""
    make = Make("aio", "ns")
    transport: AsyncTransport = make.transport(server.url)
    ready = asyncio.get_running_loop().create_future()
    connects, connect, make_one = 0, transport._connect, transport._make

    async def discarded() -> Pipeline:
        pipeline = await make_one()
        if not ready.done():
            transport.discard_idle()
            ready.set_result(None)  # its waiter runs before the callbacks of the task that connects
        return pipeline

    async def counted() -> Pipeline:
        nonlocal connects
        connects += 1
        assert connects < 10, "a command asks for the connection again and again, and gives the loop no turn"
        return await connect()

    async def command() -> object:
        await ready
        return await transport.execute(PING)

    with patch.object(transport, "_make", discarded), patch.object(transport, "_connect", counted):
        behind = asyncio.create_task(command())
        assert await transport.execute(PING) == [b"PONG"]
        assert await behind == [b"PONG"]
    await transport.close()
