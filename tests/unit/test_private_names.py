"""What the transports take from inside redis-py: if a new release changes it, this says what and where."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from nearcache.settings import Settings
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.endpoint import Endpoint

WHERE = "see the head of nearcache/transport/{}.py"


def socket_of(connection: Any) -> Any:
    """The private name that transport/sync_connection.py uses."""
    return connection._sock


@pytest.mark.parametrize("unix", [False, True])
def test_a_connected_connection_has_its_socket_in_sock(fresh_server: EmbeddedServer, *, unix: bool) -> None:
    """sync_connection.py: `Connection._sock` is None before, a plain socket with the timeout set after `connect`."""
    url = fresh_server.unix_url if unix else fresh_server.url
    connection: Any = Endpoint.from_url(url, Settings(redis_timeout=0.5), asynchronous=False).connection()
    assert socket_of(connection) is None, WHERE.format("sync_connection")
    connection.connect()
    try:
        assert isinstance(connection._sock, socket.socket), WHERE.format("sync_connection")
        assert connection._sock.gettimeout() == 0.5
        connection._sock.sendall(b"PING\r\n")
        assert connection._sock.recv(100) == b"+PONG\r\n", "connect() leaves no unread reply behind"
    finally:
        connection.disconnect()
    assert socket_of(connection) is None


def test_disconnect_after_a_shutdown_of_the_socket_is_harmless(fresh_server: EmbeddedServer) -> None:
    """transport/sync_connection.py shuts the socket down first, to wake a receiver in another thread."""
    connection: Any = Endpoint.from_url(fresh_server.url, Settings(), asynchronous=False).connection()
    connection.connect()
    connection._sock.shutdown(socket.SHUT_RDWR)
    connection.disconnect()
    connection.disconnect()


@pytest.mark.parametrize("unix", [False, True])
async def test_a_connected_async_connection_has_its_streams(fresh_server: EmbeddedServer, *, unix: bool) -> None:
    """async_connection.py: `_reader` and `_writer` are asyncio's streams, whose transport takes another protocol."""
    url = fresh_server.unix_url if unix else fresh_server.url
    connection: Any = Endpoint.from_url(url, Settings(), asynchronous=True).connection()
    await connection.connect()
    try:
        assert isinstance(connection._writer, asyncio.StreamWriter), WHERE.format("async_connection")
        assert isinstance(connection._reader, asyncio.StreamReader), WHERE.format("async_connection")
        assert not vars(connection._reader)["_buffer"], "connect() leaves no unread reply behind"
        assert isinstance(connection._writer.transport, asyncio.Transport)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        class Taker(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                answer.set_result(data)

        writer = connection._writer
        writer.transport.set_protocol(Taker())
        connection._reader = connection._writer = None
        del connection
        writer.transport.write(b"PING\r\n")
        assert await asyncio.wait_for(answer, 5) == b"+PONG\r\n"
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_disconnect_takes_nowait(fresh_server: EmbeddedServer) -> None:
    """transport/async_connection.py closes a failed connection without waiting for the other side."""
    connection: Any = Endpoint.from_url(fresh_server.url, Settings(), asynchronous=True).connection()
    await connection.connect()
    await connection.disconnect(nowait=True)
    assert connection._writer is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_new_connection_speaks_as_we_asked(*, asynchronous: bool) -> None:
    """transport/endpoint.py: no decoding, no retries, RESP3 (RESP2 if the URL says so), our timeouts."""
    settings = Settings(redis_timeout=0.111, redis_connect_timeout=0.222)
    url = "redis://localhost/0?decode_responses=true&socket_timeout=9&health_check_interval=9"
    for option, protocol in ("&protocol=2", 2), ("&protocol=3", 3), ("", 3):
        connection: Any = Endpoint.from_url(url + option, settings, asynchronous=asynchronous).connection()
        assert int(connection.protocol) == protocol
    assert connection.socket_timeout == 0.111
    assert connection.socket_connect_timeout == 0.222
    assert connection.health_check_interval == 0
    assert connection.retry._retries == 0
    assert connection.encoder.decode_responses is False


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_has_its_settings_in_its_pool(*, asynchronous: bool) -> None:
    """endpoint.py: `connection_pool.connection_kwargs` and `.connection_class` make such a connection again."""
    module = redis.asyncio if asynchronous else redis
    client = module.Redis(host="example.invalid", port=1234, db=7, username="u", password="p", client_name="shop")
    pool = client.connection_pool
    assert issubclass(
        pool.connection_class,
        redis.asyncio.connection.AbstractConnection if asynchronous else redis.connection.AbstractConnection,
    )
    endpoint = Endpoint.from_client(client, Settings(), asynchronous=asynchronous)
    connection = endpoint.connection()
    assert (connection.host, connection.port, connection.db) == ("example.invalid", 1234, 7)
    assert (connection.username, connection.password, connection.client_name) == ("u", "p", "shop")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_parse_url_is_where_it_was(*, asynchronous: bool) -> None:
    """transport/endpoint.py reads URLs by redis-py's own function."""
    module = redis.asyncio.connection if asynchronous else redis.connection
    assert list(inspect.signature(module.parse_url).parameters) == ["url"]
    assert module.parse_url("redis://h:1/2")["host"] == "h"
