"""Transports that many threads or tasks use at once: bounded, never a reply of another's, no connection left."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from nearcache.engine.ports import NotSent, RemoteFailed, RemoteMisconfigured, RemoteTimeout
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FaultProxy
from nearcache.transport.sync_connection import SocketConnection
from tests.support.connections import PING, SLACK, TIMEOUT, Make, echo
from tests.support.waiting import until


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


def test_a_transport_that_is_closed_connects_no_more(proxy: FaultProxy, namespace: str) -> None:
    """A late caller is told; its connection would be left open."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=TIMEOUT)
    run_sync(transport.execute(PING))
    run_sync(transport.close())
    with pytest.raises(NotSent, match="closed"):
        run_sync(transport.execute(PING))
    assert proxy.accepted == 1


def test_what_is_no_reply_is_told_as_a_mistake_of_the_url(proxy: FaultProxy, namespace: str) -> None:
    """Whatever answers on a connection that was good."""
    connection = SocketConnection(Make("sync", namespace).endpoint(proxy.url), TIMEOUT)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection._socket = ours
        connection._set_up()
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(RemoteMisconfigured, match="does not speak Redis' protocol"):
            connection.execute(PING, 1)


@pytest.mark.parametrize("waited", [0.0, 0.1])
def test_who_has_waited_says_nothing_of_a_server_that_lets_it_connect_late(
    proxy: FaultProxy, namespace: str, waited: float
) -> None:
    """What it has waited for was counted for the breaker already."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=TIMEOUT)
    proxy.hold("replies")
    with pytest.raises(RemoteTimeout) as told:
        transport._connect(waited)
    assert told.value.counted == (waited > 0)
    assert not told.value.sent
    run_sync(transport.close())


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


def test_an_interrupted_thread_leaves_no_half_read_connection(proxy: FaultProxy, namespace: str) -> None:
    """KeyboardInterrupt between command and reply: that connection is closed, the next command has its own reply."""
    transport = Make("sync", namespace).transport(proxy.url)
    run_sync(transport.execute(PING))

    def interrupt(_: bytes) -> None:
        raise KeyboardInterrupt

    transport._idle[-1]._feed = interrupt
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
