"""The outages that tests stage do what they say: else a test of an outage proves nothing."""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from nearcache.testing import FaultProxy, black_hole, commands, subscribers
from tests.support.faults import HttpServer

SOON = 0.05
"""Seconds after which what has not come is taken not to come."""


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[FaultProxy]:
    """A proxy in front of the echo."""
    with FaultProxy(echo) as proxy:
        yield proxy


def connect(port: int, hello: bytes = b"") -> closing[socket.socket]:
    """A connection; with a hello that has been sent and has come back."""
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    if hello:
        client.sendall(hello)
        assert read(client, len(hello)) == hello
    return closing(client)


def read(client: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def nothing_comes(client: socket.socket) -> bool:
    """Whether the connection stays open and silent for a moment."""
    client.settimeout(SOON)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def is_closed(client: socket.socket) -> bool:
    """Whether the other side has closed; waits for it."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_proxy_passes_everything_on(proxy: FaultProxy) -> None:
    """Without a fault, bytes arrive complete and in order, however many."""
    data = bytes(range(256)) * 8192
    with connect(proxy.port) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert read(client, len(data)) == data
        sender.join()


def test_late_replies_come_late_but_not_slower(proxy: FaultProxy) -> None:
    """Ten replies that are each 0.2 s late arrive together, in order, after 0.2 s."""
    with connect(proxy.port) as client:
        proxy.delay_replies(0.2)
        began = time.monotonic()
        for number in range(10):
            client.sendall(b"%d" % number)
        assert read(client, 10) == b"0123456789"
        assert 0.2 <= time.monotonic() - began < 1.0


def test_ending_a_delay_delivers_what_is_under_way(proxy: FaultProxy) -> None:
    """A long delay that is ended holds nothing back any more."""
    with connect(proxy.port) as client:
        proxy.delay_requests(60)
        client.sendall(b"late")
        assert nothing_comes(client)
        proxy.delay_requests(0)
        assert read(client, 4) == b"late"


def test_held_bytes_come_after_the_release(proxy: FaultProxy) -> None:
    """A hold loses nothing and closes nothing."""
    with connect(proxy.port) as client:
        for direction in ("requests", "replies"):
            proxy.hold(direction)
            client.sendall(b"one")
            client.sendall(b"two")
            assert nothing_comes(client)
            proxy.release()
            assert read(client, 6) == b"onetwo"


def test_a_fault_can_be_for_subscribers_alone(proxy: FaultProxy) -> None:
    """The bus is held while commands flow, and the other way round; what a connection is may show late."""
    with connect(proxy.port, b"HELLO 3\r\n") as bus, connect(proxy.port, b"GET k") as other:
        bus.sendall(b"subscribe c")
        read(bus, 11)
        proxy.hold("replies", subscribers)
        bus.sendall(b"m")
        other.sendall(b"v")
        assert read(other, 1) == b"v"
        assert nothing_comes(bus)
        proxy.hold("replies", commands)
        other.sendall(b"w")
        assert read(bus, 1) == b"m"
        assert nothing_comes(other)
        proxy.release()
        assert read(other, 1) == b"w"


def test_a_cut_closes_and_refuses_until_it_is_healed(proxy: FaultProxy) -> None:
    """An outage: open connections end, new ones are refused, and then all is well on the same port."""
    with connect(proxy.port, b"x") as client:
        proxy.cut()
        assert is_closed(client)
        assert proxy.connections == 0
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.port)
    proxy.heal()
    with connect(proxy.port, b"again"):
        assert proxy.connections == 1


def test_connections_can_be_cut_once(proxy: FaultProxy) -> None:
    """Those that are meant end, the others go on, new ones are welcome."""
    with connect(proxy.port, b"SSUBSCRIBE c") as bus, connect(proxy.port, b"GET k") as other:
        proxy.cut_connections(subscribers)
        assert is_closed(bus)
        other.sendall(b"still")
        assert read(other, 5) == b"still"
    with connect(proxy.port, b"new"):
        assert proxy.accepted == 3


def test_a_cut_loses_what_was_held(proxy: FaultProxy) -> None:
    """Nothing of an old connection shows up after the cut."""
    with connect(proxy.port) as client:
        proxy.hold("replies")
        client.sendall(b"lost")
        assert nothing_comes(client)
        proxy.cut_connections()
        assert is_closed(client)


def test_a_server_that_closes_is_passed_on_after_its_last_bytes() -> None:
    """A reply right before the end of a connection still arrives, late as it may be."""
    with socket.create_server(("127.0.0.1", 0)) as listener, FaultProxy(listener.getsockname()[1]) as proxy:
        proxy.delay_replies(0.1)
        with connect(proxy.port) as client:
            peer, _ = listener.accept()
            peer.sendall(b"bye" * 1000)
            peer.close()
            assert read(client, 3000) == b"bye" * 1000
            assert is_closed(client)


def test_nobody_behind_the_proxy_ends_the_connection(proxy: FaultProxy) -> None:
    """With the server gone, a connection through the proxy ends at once."""
    proxy.target_port = proxy.port + 40_000 if proxy.port < 25_000 else 1
    with connect(proxy.port) as client:
        assert is_closed(client)


def test_a_web_server_answers_nonsense() -> None:
    """It speaks HTTP to everybody, also to a Redis client."""
    with HttpServer() as server:
        page = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        page.request("GET", "/")
        assert page.getresponse().status == 200
        page.close()
        with connect(server.port) as client:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            assert b"HTML" in client.recv(4096).upper()


def test_a_black_hole_takes_everything_and_answers_nothing() -> None:
    """Connecting and sending succeed; nothing comes back, and it is not closed."""
    with black_hole() as port, connect(port) as client:
        client.sendall(b"PING\r\n")
        assert nothing_comes(client)


def test_what_is_not_read_piles_up_at_the_server(proxy: FaultProxy) -> None:
    """The bytes wait there, and come when they are read again; connections made meanwhile are read."""
    with connect(proxy.port, b"hello") as client:
        with proxy.not_reading() as stalled:
            assert stalled == 1
            client.sendall(b"ping")
            client.settimeout(SOON)
            with pytest.raises(TimeoutError):
                client.recv(4)
            with connect(proxy.port, b"hello"):
                pass
        client.settimeout(5)
        assert read(client, 4) == b"ping"


def test_a_connection_that_ends_unread_is_no_harm(proxy: FaultProxy) -> None:
    """Nor is one that is for others."""
    with connect(proxy.port, b"hello"):
        with proxy.not_reading(subscribers) as stalled:
            assert stalled == 0
        with proxy.not_reading():
            proxy.cut_connections()


def test_a_proxy_is_stopped_once(echo: int) -> None:
    """Or twice, or before it was started; it may be started again."""
    proxy = FaultProxy(echo)
    proxy.stop()
    for _ in range(2):
        with proxy, connect(proxy.port, b"hello"):
            proxy.stop()


def test_a_proxy_may_lead_elsewhere(echo: int) -> None:
    """By name; and to another port from the next connection on."""
    with FaultProxy(1, "localhost") as proxy:
        proxy.target_port = echo
        with connect(proxy.port, b"hello"):
            pass
