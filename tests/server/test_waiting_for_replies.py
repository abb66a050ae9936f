"""How long a command waits: signals do not lengthen it, bytes that come are no silence, a queue takes of its time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.engine.ports import NotSent, RemoteFailed, RemoteTimeout
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FaultProxy
from nearcache.transport import resp
from nearcache.transport.sync_connection import SocketConnection
from tests.support.connections import PING, SLACK, TIMEOUT, Make, echo

pytestmark = pytest.mark.one_server
"""The proxy in front of it decides when replies come."""


@contextmanager
def signals(thread: int, every: float = 0.003) -> Iterator[None]:
    """Signals to one thread, whose handler does nothing; for a few seconds at most, should they keep it from ending.

    They come sooner than the kernel's timeout for a receive ends, which Python begins anew after each of them.
    """
    over = threading.Event()
    until = time.monotonic() + 5

    def send() -> None:
        while not over.wait(every) and time.monotonic() < until:
            signal.pthread_kill(thread, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def seconds_of(call: Callable[[], Any]) -> float:
    """How long something takes that ends with a RemoteTimeout."""
    began = time.monotonic()
    with pytest.raises(RemoteTimeout):
        call()
    return time.monotonic() - began


def in_a_thread(call: Callable[[], float]) -> float:
    """The result of a call in a thread of its own, to which signals are sent, as none of the system are."""
    results: list[float] = []
    ready = threading.Event()

    def work() -> None:
        ready.wait()
        results.append(call())

    thread = threading.Thread(target=work)
    thread.start()
    with signals(thread.ident or 0, 0.02):
        ready.set()
        thread.join()
    return results[0]


@pytest.mark.parametrize("main", [True, False])
@pytest.mark.parametrize("what", ["no reply", "no reader"])
def test_signals_do_not_lengthen_the_wait(proxy: FaultProxy, namespace: str, what: str, main: bool) -> None:
    """Python repeats an interrupted receive with the whole timeout of the kernel, for as long as signals come."""
    connection = SocketConnection(Make("sync", namespace).endpoint(proxy.url), TIMEOUT)
    ours, theirs = socket.socketpair()
    if what == "no reply":
        proxy.hold("replies")
    else:  # nobody reads what is sent
        connection._socket = ours
        connection._set_up()
    command = resp.pack((b"ECHO", b"x" * 8_000_000)) if what == "no reader" else PING

    def execute() -> float:
        return seconds_of(lambda: connection.execute(command, 1))

    try:
        if main:
            with signals(threading.get_ident()):
                took = execute()
        else:
            took = in_a_thread(execute)
        assert TIMEOUT * 0.9 < took < TIMEOUT + SLACK / 2
    finally:
        ours.close()
        theirs.close()


def test_every_operation_keeps_its_limit_while_signals_come(proxy: FaultProxy, namespace: str) -> None:
    """A timer signal and a server that hangs: get, set, load, delete."""
    with NearCache.from_url(proxy.url, namespace=namespace, redis_timeout=TIMEOUT, breaker_reset=0.01) as cache:
        operations: list[Callable[[], Any]] = [
            lambda: cache.get("a"),
            lambda: cache.set("b", 1),
            lambda: cache.get_or_set("c", lambda: 1),
            lambda: cache.delete("d"),
        ]
        assert cache.wait_healthy(5)
        for operation in operations:
            proxy.heal()
            assert cache.wait_healthy(5)
            cache.get("connected")
            proxy.hold("replies")
            with signals(threading.get_ident()):
                began = time.monotonic()
                operation()
                assert time.monotonic() - began < 2 * TIMEOUT + SLACK / 2
        proxy.heal()


async def test_bytes_that_come_are_no_silence(make: Make, proxy: FaultProxy) -> None:
    """A reply that takes several timeouts to arrive is an answer."""
    transport = make.transport(proxy.url, timeout=0.2)
    await transport.execute(PING)
    blob = os.urandom(1_000_000)
    proxy.limit_replies(len(blob) / 0.8)
    began = time.monotonic()
    assert await transport.execute(resp.pack((b"ECHO", blob))) == [blob]
    assert time.monotonic() - began > 0.6
    assert await transport.execute(echo("next")) == [b"next"]
    assert proxy.accepted == 1


async def test_a_server_that_trickles_is_bounded(make: Make, proxy: FaultProxy) -> None:
    """A byte now and then is no silence, but ten timeouts are the end."""
    transport = make.transport(proxy.url, timeout=0.2)  # a busy machine may stop the proxy for 0.1 s
    await transport.execute(PING)
    proxy.limit_replies(100)
    began = time.monotonic()
    with pytest.raises(RemoteTimeout):
        await transport.execute(echo("x" * 10_000))
    assert 0.2 * resp.SILENCES * 0.9 <= time.monotonic() - began < 0.2 * resp.SILENCES + SLACK
    proxy.limit_replies(0)
    assert await transport.execute(echo("next")) == [b"next"]


async def test_a_reply_that_stops_half_way_is_a_timeout_after_one_silence(make: Make, proxy: FaultProxy) -> None:
    """Not after ten."""
    transport = make.transport(proxy.url, timeout=0.3)
    await transport.execute(PING)
    proxy.limit_replies(1_000_000)
    timer = threading.Timer(0.2, proxy.hold, ["replies"])
    timer.start()
    began = time.monotonic()
    with pytest.raises(RemoteTimeout):
        await transport.execute(resp.pack((b"ECHO", b"x" * 1_000_000)))
    assert 0.4 < time.monotonic() - began < 0.5 + SLACK
    timer.join()


async def test_commands_behind_a_large_reply_wait_with_it(proxy: FaultProxy, namespace: str) -> None:
    """On one connection of asyncio: the bytes before their own are no silence either."""
    transport = Make("aio", namespace).transport(proxy.url, timeout=0.2)
    await transport.execute(PING)
    proxy.limit_replies(1_000_000 / 0.8)
    large, small = await asyncio.gather(
        transport.execute(resp.pack((b"ECHO", b"x" * 1_000_000))), transport.execute(echo("small"))
    )
    assert (len(large[0]), small) == (1_000_000, [b"small"])
    await transport.close()


def test_the_wait_for_a_connection_is_part_of_the_time(proxy: FaultProxy, namespace: str) -> None:
    """One connection and a server that answers slowly: the second command gets the rest, and is not counted."""
    transport = Make("sync", namespace).transport(proxy.url, timeout=1.0, max_connections=1)
    run_sync(transport.execute(PING))
    proxy.delay_replies(0.6)
    first = threading.Thread(target=lambda: run_sync(transport.execute(PING)))
    first.start()
    while transport._permits.qsize():
        time.sleep(0.001)
    began = time.monotonic()
    with pytest.raises(RemoteFailed) as caught:
        run_sync(transport.execute(PING))
    assert time.monotonic() - began < 1.1
    assert isinstance(caught.value, RemoteTimeout | NotSent)
    assert caught.value.counted
    first.join()
    run_sync(transport.close())


def test_a_crowd_of_readers_does_not_wait_for_two_round_trips(proxy: FaultProxy, namespace: str) -> None:
    """40 threads, answers that take most of redis_timeout: each read is answered within it."""
    timeout, delay = 1.0, 0.7
    took: list[float] = []
    values: list[object] = []
    with NearCache.from_url(proxy.url, namespace=namespace, redis_timeout=timeout, l1_max_entries=1) as cache:
        assert cache.set_many({f"k{number}": number for number in range(40)})
        assert cache.wait_healthy(5)
        cache.get_many(["a", "b"])
        proxy.delay_replies(delay, lambda head: b"\r\nMGET\r\n" in head)  # connecting has a limit of its own

        def read(number: int) -> None:
            for _ in range(2):
                began = time.monotonic()
                values.append(cache.get(f"k{number}") == number)
                took.append(time.monotonic() - began)

        threads = [threading.Thread(target=read, args=[number]) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        proxy.heal()
    late = sum(one > timeout + 0.2 for one in took)
    assert late <= 2, sorted(took)[-10:]
    assert values.count(False) <= 4
