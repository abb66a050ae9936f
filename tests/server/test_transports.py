"""Connections under faults: transports and buses of both kinds, against real servers through a proxy that hurts them.

The threaded ones never suspend, so that one coroutine tests both kinds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import redis

from nearcache.engine.ports import BusRefused, RemoteFailed, RemoteMisconfigured, RemoteTimeout
from nearcache.protocol.answers import Beat, BusItem, Greeting
from nearcache.protocol.names import Names
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.testing import FaultProxy, black_hole
from nearcache.transport import resp
from nearcache.transport.async_transport import AsyncBus, AsyncTransport
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import Handshake
from nearcache.transport.sync_connection import SocketConnection
from nearcache.transport.sync_transport import SyncBus, SyncTransport
from tests.support import servers
from tests.support.faults import HttpServer
from tests.support.waiting import until

TIMEOUT = 0.3
"""Seconds an operation may take."""
SLACK = 1.5
"""Seconds more that a busy machine may take to notice."""

PING = resp.pack((b"PING",))


@dataclass
class Make:
    """Transports and buses of one kind; all are closed after the test."""

    mode: str
    namespace: str
    made: list[Any] = field(default_factory=list)

    def endpoint(self, url: str) -> Endpoint:
        """With short timeouts."""
        settings = Settings(redis_timeout=TIMEOUT, redis_connect_timeout=TIMEOUT)
        return Endpoint.from_url(url, settings, asynchronous=self.mode == "aio")

    def transport(self, url: str, timeout: float = TIMEOUT, max_connections: int = 4) -> Any:
        """A transport."""
        factory = self.endpoint(url)
        transport: Any = (
            AsyncTransport(factory, timeout) if self.mode == "aio" else SyncTransport(factory, timeout, max_connections)
        )
        self.made.append(transport)
        return transport

    def bus(self, url: str) -> Any:
        """A bus, not open yet."""
        kind: Any = AsyncBus if self.mode == "aio" else SyncBus
        bus = kind(self.endpoint(url), TIMEOUT, Names(self.namespace))
        self.made.append(bus)
        return bus


@pytest.fixture(params=["sync", "aio"])
def make(request: pytest.FixtureRequest, namespace: str, runner: asyncio.Runner) -> Iterator[Make]:
    """Both kinds, one after the other."""
    maker = Make(request.param, namespace)
    yield maker
    for one in maker.made:
        runner.run(one.close())


def echo(text: str) -> bytes:
    """A command whose reply is known."""
    return resp.pack((b"ECHO", text))


async def idle_is_dead(transport: Any) -> None:
    """Wait until the end of the transport's idle connection has arrived."""
    if isinstance(transport, AsyncTransport):
        await until(lambda: transport._pipeline is not None and transport._pipeline.stream.closing)
    else:
        await until(lambda: not transport._idle[-1].alive())


# ---------------------------------------------------------------------------------------------------------- transports


async def test_replies_come_in_the_order_of_the_commands(make: Make, proxy: FaultProxy) -> None:
    """Some commands at once, and one after the other, over one connection."""
    transport = make.transport(proxy.url)
    texts = [str(number) for number in range(100)]
    assert await transport.execute(b"".join(map(echo, texts)), 100) == [text.encode() for text in texts]
    for text in texts:
        assert await transport.execute(echo(text)) == [text.encode()]
    assert proxy.accepted == 1


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


# ------------------------------------------------------------------------------------------------------- threads alone


def test_threads_share_a_bounded_pool_and_never_a_reply(proxy: FaultProxy, namespace: str) -> None:
    """Eight threads over two connections: each has its own answers."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=5.0, max_connections=2)

    def work(name: int) -> bool:
        return all(
            run_sync(transport.execute(echo(f"{name}:{turn}"))) == [f"{name}:{turn}".encode()] for turn in range(100)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert proxy.accepted <= 2
    run_sync(transport.close())


def test_a_full_pool_is_a_failure_after_the_timeout(proxy: FaultProxy, namespace: str) -> None:
    """It says which setting to raise, and the next one gets through."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=TIMEOUT, max_connections=1)
    permit = transport._permits.get_nowait()
    with pytest.raises(RemoteFailed, match="max_connections"):
        run_sync(transport.execute(PING))
    transport._permits.put(permit)
    assert run_sync(transport.execute(echo("x"))) == [b"x"]
    run_sync(transport.close())


async def test_a_connection_in_use_is_used_no_more_once_discarded(make: Make, proxy: FaultProxy) -> None:
    """What is in flight ends well, and the next command goes over a new connection: another server may be there."""
    transport = make.transport(proxy.url, timeout=5)
    assert await transport.execute(echo("a")) == [b"a"]
    proxy.hold("replies")
    if make.mode == "aio":
        flying: Any = asyncio.ensure_future(transport.execute(echo("b")))
    else:
        flying = asyncio.ensure_future(asyncio.to_thread(run_sync, transport.execute(echo("b"))))
    await until(lambda: any(b"b\r\n" in one.head[-5:] for one in proxy._connections))
    transport.discard_idle()
    proxy.release()
    assert await flying == [b"b"]
    assert proxy.accepted == 1
    assert await transport.execute(echo("c")) == [b"c"]
    assert proxy.accepted == 2
    await until(lambda: proxy.connections == 1)


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


def test_a_permit_that_is_lost_comes_back(proxy: FaultProxy, namespace: str) -> None:
    """Whoever had it was interrupted before he could return it; and with the transport all of them go."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=TIMEOUT, max_connections=1)
    permit = transport._permits.get_nowait()
    del permit
    assert run_sync(transport.execute(echo("x"))) == [b"x"]
    run_sync(transport.close())
    permits = transport._permits
    del transport
    assert permits.qsize() == 1
    permits.get_nowait()
    assert permits.qsize() == 0


def test_threads_that_queue_behind_a_hung_server_do_not_wait_twice(proxy: FaultProxy, namespace: str) -> None:
    """What made the first one time out would make the others, too: all fail within about one timeout each."""
    transport = Make("sync", namespace).transport(proxy.url, max_connections=1)
    run_sync(transport.execute(PING))
    proxy.hold("replies")

    def work(_: int) -> float:
        begun = time.monotonic()
        with pytest.raises(RemoteFailed):
            run_sync(transport.execute(PING))
        return time.monotonic() - begun

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(work, range(6))) < 2 * TIMEOUT + SLACK
    run_sync(transport.close())


def test_an_interrupted_thread_leaves_no_half_read_connection(
    proxy: FaultProxy, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt between command and reply: that connection is closed, the next command has its own reply."""
    transport = Make("sync", namespace).transport(proxy.url)
    run_sync(transport.execute(PING))

    def interrupt(_self: SocketConnection) -> list[Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SocketConnection, "_receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_sync(transport.execute(echo("interrupted")))
    assert run_sync(transport.execute(echo("next"))) == [b"next"]
    assert transport._permits.qsize() == 4
    run_sync(transport.close())


def test_a_connection_in_use_while_closing_is_closed_when_it_comes_back(proxy: FaultProxy, namespace: str) -> None:
    """Nothing is left in the pool."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=5.0)
    run_sync(transport.execute(PING))
    proxy.hold("replies")
    replies: list[Any] = []
    thread = threading.Thread(target=lambda: replies.extend(run_sync(transport.execute(echo("x")))))
    thread.start()
    while transport._idle:
        thread.join(0.001)
    run_sync(transport.close())
    proxy.release()
    thread.join()
    assert replies == [b"x"]
    assert not transport._idle


def test_a_server_that_does_not_read_is_a_timeout() -> None:
    """Sending has its limit as receiving has."""
    ours, theirs = socket.socketpair()

    class Connection:
        _sock = ours
        protocol = 3

        def connect(self) -> None:
            """It is."""

        def disconnect(self) -> None:
            ours.close()

    class Place:
        connection = Connection
        arguments: ClassVar[dict[str, float]] = {}
        shown = "a pair"

    endpoint: Any = Place
    with theirs, pytest.raises(RemoteTimeout):
        SocketConnection(endpoint, TIMEOUT).execute(bytes(64 * 1024 * 1024), 1)


# --------------------------------------------------------------------------------------------------------- tasks alone


async def test_a_cancelled_task_leaves_the_connection_in_order(proxy: FaultProxy, namespace: str) -> None:
    """Its reply is dropped, and everybody else's is their own, on the same connection."""
    transport = Make("aio", namespace).transport(proxy.url, timeout=5.0)
    await transport.execute(PING)
    proxy.hold("replies")
    tasks = [asyncio.create_task(transport.execute(echo(str(number)) + echo("b"), 2)) for number in range(20)]
    await until(lambda: len(transport._pipeline._in_flight) == 20)
    for task in tasks[::2]:
        task.cancel()
    proxy.release()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for number, replies in enumerate(done):
        if number % 2:
            assert replies == [str(number).encode(), b"b"]
        else:
            assert isinstance(replies, asyncio.CancelledError)
    assert await transport.execute(echo("after")) == [b"after"]
    assert proxy.accepted == 1
    await transport.close()


async def test_tasks_that_begin_together_connect_once(proxy: FaultProxy, namespace: str) -> None:
    """And one that is cancelled meanwhile does not cancel it for the others."""
    transport = Make("aio", namespace).transport(proxy.url, timeout=5.0)
    proxy.delay_replies(0.05)
    tasks = [asyncio.create_task(transport.execute(echo(str(number)))) for number in range(10)]
    await until(lambda: transport._connecting is not None)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[1:] == [[str(number).encode()] for number in range(1, 10)]
    assert proxy.accepted == 1
    await transport.close()


async def test_a_cut_fails_everything_in_flight_at_once(proxy: FaultProxy, namespace: str) -> None:
    """Nobody waits for the timeout."""
    transport = Make("aio", namespace).transport(proxy.url, timeout=30.0)
    await transport.execute(PING)
    proxy.hold("replies")
    tasks = [asyncio.create_task(transport.execute(PING)) for _ in range(5)]
    await until(lambda: len(transport._pipeline._in_flight) == 5)
    proxy.cut_connections()
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(failure, RemoteFailed)
    await transport.close()


async def test_closing_fails_what_is_in_flight_and_what_comes_later(proxy: FaultProxy, namespace: str) -> None:
    """No task waits for a transport that is closed, and none opens it again."""
    transport = Make("aio", namespace).transport(proxy.url, timeout=30.0)
    await transport.execute(PING)
    proxy.hold("replies")
    task = asyncio.create_task(transport.execute(PING))
    await until(lambda: transport._pipeline._in_flight)
    await transport.close()
    with pytest.raises(RemoteFailed):
        await task
    with pytest.raises(RemoteFailed):
        await transport.execute(PING)
    assert proxy.accepted == 1


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


# --------------------------------------------------------------------------------------------------------------- buses


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
        await until(lambda: bus._connection._socket.gettimeout() == 30.0)
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

    async def greet() -> None:
        await bus.ask_greeting()
        await hear(bus, 1)

    with pytest.raises(RemoteFailed, match="READONLY"):
        await greet()


async def test_a_lost_counter_is_told(make: Make, server: EmbeddedServer) -> None:
    """A beat does not create it; a greeting does."""
    bus = make.bus(server.url)
    await bus.open()
    await bus.ask_beat()
    (beat,) = await hear(bus, 1)
    assert isinstance(beat, Beat)
    assert (beat.number, beat.floor) == (None, None)
