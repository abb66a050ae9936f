"""Mistakes of the set-up: `with` raises ConfigError that names the reason; without it one warning does, and health."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from nearcache import ConfigError, NearCacheWarning
from nearcache.transport.embedded import HOST, EmbeddedServer, find_binary, free_port
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, redis_of, refused, shut, until

FAST: dict[str, Any] = {"reconnect_max": 0.05, "redis_timeout": 0.2, "max_staleness": 0.5}
PASSWORD = "s3cret-pa55"


@contextmanager
def tls_port(authority: trustme.CA) -> Iterator[int]:
    """A port that speaks TLS, and nothing behind it; in a thread, since asyncio leaves handshakes that fail behind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", HOST).configure_cert(context)
    listener = socket.create_server((HOST, 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            with client, suppress(OSError):
                client.settimeout(1)
                shake_hands(client, context)

    thread = threading.Thread(target=serve, name="tests-tls")
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def shake_hands(client: socket.socket, context: ssl.SSLContext) -> None:
    """A handshake without an SSLSocket, which some releases of Python leave open when it fails."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            client.sendall(outgoing.read())
            incoming.write(client.recv(65536) or b"\0")  # at the end of the stream, what is no TLS
        else:
            return
        finally:
            client.sendall(outgoing.read())


async def refused_in_with(make_cache: MakeCache, url: str, words: str) -> None:
    """`with` raises, and says no more than it may."""
    with pytest.raises(ConfigError, match=words) as caught:
        async with make_cache(url, **FAST):
            pass
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def warned_of(make_cache: MakeCache, url: str, words: str) -> None:
    """Without `with` one line is visible, and health has the reason."""
    cache = make_cache(url, **FAST)
    with pytest.warns(NearCacheWarning, match=words) as seen:
        await refused(cache)
    assert len(seen.list) == 1
    assert PASSWORD not in str(seen.list[0].message)
    health = cache.health()
    assert health.status != "ok"
    assert words in (health.reason or "")
    await shut(cache)  # a connection that the end of the port resets is left open by some releases of Python


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """It signs the certificates of this file."""
    return trustme.CA()


@pytest.mark.parametrize("told", [refused_in_with, warned_of])
async def test_tls(
    make_cache: MakeCache, server: EmbeddedServer, authority: trustme.CA, told: Any, tmp_path: Path
) -> None:
    """An untrusted certificate, files that are not there or are none, and URLs for the other kind of port."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "empty.pem").write_text("")
    with tls_port(authority) as port:
        secure = f"rediss://:{PASSWORD}@{HOST}:{port}/0"
        await told(make_cache, secure, "the server's certificate is not trusted")
        await told(make_cache, f"{secure}?ssl_ca_certs=/none.pem", "ssl_ca_certs='/none.pem': there is no such file")
        await told(make_cache, f"{secure}?ssl_ca_certs={tmp_path}/empty.pem", "a certificate or key cannot be used")
        await told(make_cache, f"redis://:{PASSWORD}@{HOST}:{port}/0", "the port speaks TLS")
        await told(make_cache, f"rediss://:{PASSWORD}@{HOST}:{server.port}/0", "the port does not speak TLS")


@pytest.mark.parametrize("told", [refused_in_with, warned_of])
async def test_a_database_that_is_not_there(make_cache: MakeCache, server: EmbeddedServer, told: Any) -> None:
    """Servers have 16."""
    url = f"redis://{HOST}:{server.port}/99"
    await told(make_cache, url, "DB index is out of range; the URL names a database that the server does not have")


@pytest.mark.parametrize("told", [refused_in_with, warned_of])
async def test_the_port_of_a_sentinel(make_cache: MakeCache, server: EmbeddedServer, told: Any, tmp_path: Path) -> None:
    """It takes subscriptions and keeps no data."""
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"bind {HOST}\nport {port}\ndir {tmp_path}\nsentinel monitor main {HOST} {server.port} 1\n")
    sentinel = await asyncio.create_subprocess_exec(
        find_binary(), str(config), "--sentinel", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until(lambda: answers(port))
        await told(make_cache, f"redis://{HOST}:{port}/0", "this is a Sentinel")
        await told(make_cache, f"redis://{HOST}:{port}/1", "unknown command 'SELECT'; this is a Sentinel")
    finally:
        sentinel.kill()
        await sentinel.wait()


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


async def test_a_user_without_channels_has_l2_and_is_warned(
    make_cache: MakeCache, fresh_server: EmbeddedServer
) -> None:
    """The default of Redis 7. L2 may serve, but nothing is written: `with` raises, else a warning says what to do."""
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{PASSWORD}", "~*", "+@all")
    url = f"redis://app:{PASSWORD}@{HOST}:{fresh_server.port}/0"
    await warned_of(make_cache, url, "Redis 7 gives a new user no channels")
    with pytest.raises(ConfigError, match="ACL SETUSER"):
        async with make_cache(url, **FAST):
            pass


async def test_more_clients_than_the_server_takes(make_cache: MakeCache, fresh_server: EmbeddedServer) -> None:
    """It passes, so `with` does not raise; health has the server's sentence until it has passed."""
    with redis_of(fresh_server.url) as client:
        client.config_set("maxclients", 1)
        async with make_cache(fresh_server.url, **FAST) as cache:
            await until(lambda: "max number of clients reached; raise maxclients" in str(cache.health().reason))
            client.config_set("maxclients", 100)
            await until(lambda: cache.health().status == "ok")
            assert cache.health().reason is None


async def test_a_server_that_is_away_is_no_mistake(make_cache: MakeCache) -> None:
    """`with` does not raise, nothing is a warning, and health says what is wrong."""
    cache = make_cache(f"rediss://{HOST}:{free_port()}/0", **FAST)
    heard = Heard(cache)
    async with cache:
        await until(lambda: heard.all)
        assert "ConnectionRefusedError" in cache.health().reason
