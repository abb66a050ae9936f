"""TLS on a real server: what docs/security.md says of each mistake, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import re
import select
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import trustme
from typer.testing import CliRunner

from nearcache import (
    AsyncNearCache,
    ConfigError,
    Connected,
    NearCache,
    NearCacheWarning,
    Settings,
    cli,
)
from nearcache.protocol.names import acl
from nearcache.transport import resp
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from nearcache.transport.sync_connection import SocketConnection
from tests.support import servers
from tests.support.clusters import LocalCluster
from tests.support.connections import Make
from tests.support.sentinels import SERVICE, sentinel_of
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, refused, shut, until

pytestmark = pytest.mark.skipif(servers.REDIS is None, reason=servers.NOT_RUN or "-")

FAST: dict[str, Any] = {"reconnect_max": 0.05, "max_staleness": 1.0}
PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
PAST = datetime(2020, 1, 1, tzinfo=UTC)


class Files:
    """Certificates in a folder, of an authority and of a strange one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own, strange = trustme.CA(), trustme.CA()
        own.cert_pem.write_to_path(folder / "ca.pem")
        strange.cert_pem.write_to_path(folder / "strange-ca.pem")
        (folder / "empty.pem").write_text("")
        ended: dict[str, Any] = {"not_before": PAST, "not_after": PAST + timedelta(days=1)}
        self._put("server", own.issue_cert(HOST))
        self._put("server-elsewhere", own.issue_cert("cache.example"))
        self._put("server-expired", own.issue_cert(HOST, **ended))
        self._put("client", own.issue_cert("app"))
        self._put("client-strange", strange.issue_cert("app"))
        self._put("client-expired", own.issue_cert("app", **ended))

    def _put(self, name: str, made: trustme.LeafCert) -> None:
        made.private_key_pem.write_to_path(self.folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")

    def server(self, certificate: str = "server", **more: str) -> EmbeddedServer:
        """A server that speaks TLS alone."""
        port = free_port()
        return EmbeddedServer(port=port, binary=servers.REDIS, config={**self.config(port, certificate), **more})

    def config(self, port: int, certificate: str = "server") -> dict[str, str]:
        """The configuration of a port with TLS."""
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-cert-file": str(self.folder / f"{certificate}.pem"),
            "tls-key-file": str(self.folder / f"{certificate}.key"),
            "tls-ca-cert-file": str(self.folder / "ca.pem"),
            "tls-auth-clients": "no",
        }

    def options(self, client: str = "", key: str = "", authority: str = "ca") -> str:
        """The options of a URL."""
        found = f"?ssl_ca_certs={self.folder}/{authority}.pem"
        if client:
            found += f"&ssl_certfile={self.folder}/{client}.pem&ssl_keyfile={self.folder}/{key or client}.key"
        return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """For all tests of this file, which change none of them."""
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(files: Files) -> Iterator[Callable[..., int]]:
    """The port of a server with this certificate and configuration; each is started once."""
    ports: dict[tuple[str, ...], int] = {}
    with ExitStack() as stack:

        def port_of(certificate: str = "server", **more: str) -> int:
            one = (certificate, *more.values())
            if one not in ports:
                ports[one] = stack.enter_context(files.server(certificate, **more)).port
            return ports[one]

        yield port_of


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """One without TLS."""
    with servers.make("redis") as plain:
        yield plain


def cases(files: Files, secure: Callable[..., int], server: EmbeddedServer) -> Mapping[str, str]:
    """By the first column of the table, a URL that is wrong in that way."""
    here, wants = f"rediss://{HOST}", {"tls-auth-clients": "yes"}
    strict = f"{here}:{secure(**wants)}/0"
    return {
        "the authority is not named": f"{here}:{secure()}/0",
        "another authority is named": f"{here}:{secure()}/0{files.options(authority='strange-ca')}",
        "the server's certificate is for another host": f"{here}:{secure('server-elsewhere')}/0{files.options()}",
        "the server's certificate has expired": f"{here}:{secure('server-expired')}/0{files.options()}",
        "the server wants a client's certificate, and there is none": strict + files.options(),
        "the client's certificate is of another authority": strict + files.options("client-strange"),
        "the client's certificate has expired": strict + files.options("client-expired"),
        "the key is another certificate's": strict + files.options("client", "client-expired"),
        "a file that is none, or has no key": f"{strict}{files.options()}&ssl_certfile={files.folder}/client.pem",
        "a file that is not there": strict + files.options("none"),
        "the server speaks TLS 1.2 alone, and the client from 1.3 on": (
            f"{here}:{secure(**{'tls-protocols': 'TLSv1.2'})}/0{files.options()}&ssl_min_version=772"
        ),
        "`redis://` to a port with TLS": f"redis://{HOST}:{secure()}/0",
        "`rediss://` to a port without": f"{here}:{server.port}/0",
    }


def table() -> Mapping[str, str]:
    """What was wrong, and what is reported, as the page has it."""
    (found,) = re.findall(r"^\| what was wrong \| what is reported \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [re.fullmatch(r"\| (.*) \| `(.*)` \|", line) for line in found.splitlines()]
    return {row[1]: row[2] for row in rows if row}


def test_what_comes_unasked_by_tls_ends_no_connection(files: Files, secure: Callable[..., int], namespace: str) -> None:
    """Tickets do, before a write as well, which looks whether its connection has ended."""
    url = f"rediss://{HOST}:{secure()}/0{files.options()}"
    connection = SocketConnection(Make("sync", namespace).endpoint(url), 5.0)
    connection.execute(resp.pack((b"SUBSCRIBE", b"tickets")), 0)
    arrived = select.poll()
    arrived.register(connection._socket, select.POLLIN)
    assert arrived.poll(5000)
    assert not connection.readable(0)
    connection.close()


@pytest.mark.parametrize("wrong", table())
async def test_each_mistake_is_told(
    make_cache: MakeCache, files: Files, secure: Callable[..., int], server: EmbeddedServer, wrong: str
) -> None:
    """`with` raises it; without, one warning and health have it."""
    url, words = cases(files, secure, server)[wrong], table()[wrong]
    with pytest.raises(ConfigError, match=re.escape(words)):
        async with make_cache(url, **FAST):
            pass
    cache = make_cache(url, **FAST)
    with pytest.warns(NearCacheWarning, match=re.escape(words)) as seen:
        await refused(cache)
    assert len(seen.list) == 1
    assert words in str(cache.health().reason)
    assert await cache.get_or_set("a", cache.loader(7)) == 7
    await shut(cache)


async def refused_after(end_all: Callable[[], None], cache: Twin) -> None:
    """The end of all connections, which are not made again."""
    end_all()
    await until(lambda: cache.health().bus == "refused")


def test_the_table_is_whole(files: Files, secure: Callable[..., int], server: EmbeddedServer) -> None:
    """Each row of the page has its case, and each case its row."""
    assert set(cases(files, secure, server)) == set(table())


async def test_a_private_authority_and_a_client_certificate(
    make_cache: MakeCache, files: Files, secure: Callable[..., int]
) -> None:
    """All works as without TLS."""
    url = f"rediss://{HOST}:{secure(**{'tls-auth-clients': 'yes'})}/0{files.options('client')}"
    async with make_cache(url, **FAST) as cache, make_cache(url, **FAST) as other:
        assert await cache.wait_healthy(5)
        assert await other.wait_healthy(5)
        assert await cache.set("a", "x" * 200_000)
        assert await other.get("a") == "x" * 200_000
        assert await cache.delete("a")
        await until(lambda: other.peek("a") is None)


async def test_certificates_that_are_renewed(make_cache: MakeCache, files: Files, tmp_path: Path) -> None:
    """The server's expires in use, then the client's: told, and over as soon as there is a new one."""
    client, key = tmp_path / "client.pem", tmp_path / "client.key"

    def take(name: str) -> None:
        shutil.copy(files.folder / f"{name}.pem", client)
        shutil.copy(files.folder / f"{name}.key", key)

    take("client")
    with files.server(**{"tls-auth-clients": "yes"}) as server, redis_of(server.unix_url) as beside:

        def end_all() -> None:
            beside.client_kill_filter(_type="normal")
            beside.client_kill_filter(_type="pubsub")

        def serve(name: str) -> None:
            pem, other = files.folder / f"{name}.pem", files.folder / f"{name}.key"
            beside.execute_command("CONFIG", "SET", "tls-cert-file", str(pem), "tls-key-file", str(other))

        url = f"rediss://{HOST}:{server.port}/0{files.options()}&ssl_certfile={client}&ssl_keyfile={key}"
        async with make_cache(url, **FAST) as cache:
            assert await cache.wait_healthy(5)
            assert await cache.set("a", 0)
            heard = Heard(cache)
            serve("server-expired")
            assert await cache.set("a", 1)  # connections live on
            with pytest.warns(NearCacheWarning, match="certificate has expired; renew it on the server"):
                await refused_after(end_all, cache)
            assert await cache.get_or_set("b", cache.loader(2)) == 2
            serve("server")
            await until(lambda: heard.of(Connected) and cache.healthy)

            heard.all.clear()
            take("client-expired")
            with pytest.warns(NearCacheWarning, match="which has expired: renew it"):
                await refused_after(end_all, cache)
            take("client")
            await until(lambda: heard.of(Connected) and cache.healthy)
            await until(lambda: cache.health().status == "ok")


async def test_sentinel_with_tls(make_cache: MakeCache, files: Files, secure: Callable[..., int]) -> None:
    """One scheme for both, and the same options."""
    port = free_port()
    config = {**files.config(port), "tls-replication": "yes"}
    with sentinel_of("redis", secure(), more=config, port=port):
        url = f"rediss+sentinel://{HOST}:{port}/{SERVICE}/0{files.options()}"
        async with make_cache(url, **FAST) as cache:
            assert await cache.wait_healthy(5)
            await until(lambda: cache.set("a", 1))
            assert cache.health().primary == f"{HOST}:{secure()}"
        with pytest.raises(ConfigError, match="the server's certificate is not trusted"):
            async with make_cache(url.partition("?")[0], **FAST):
                pass
        with pytest.raises(ConfigError, match=r"the port speaks TLS; .* begins with rediss"):
            async with make_cache(f"redis+sentinel://{HOST}:{port}/{SERVICE}/0", **FAST):
                pass


@pytest.fixture(scope="module")
def cluster(files: Files) -> Iterator[LocalCluster]:
    """Three primaries that speak TLS alone, and want a client's certificate; so do they among themselves."""

    def config(port: int) -> dict[str, str]:
        own = {"tls-cluster": "yes", "tls-replication": "yes", "tls-auth-clients": "yes"}
        return {
            **files.config(port),
            **own,
            "tls-client-cert-file": str(files.folder / "client.pem"),
            "tls-client-key-file": str(files.folder / "client.key"),
        }

    tls = {"ssl": True, "ssl_ca_certs": str(files.folder / "ca.pem")}
    tls |= {"ssl_certfile": str(files.folder / "client.pem"), "ssl_keyfile": str(files.folder / "client.key")}
    with LocalCluster("redis", config_of_port=config, tls=tls) as made:
        yield made


MANY = {f"key:{number}": number for number in range(100)}


async def test_a_cluster_with_tls(make_cache: MakeCache, files: Files, cluster: LocalCluster, namespace: str) -> None:
    """A private authority, client certificates, a user with the rights of the page; one node leads to the others."""
    first = f"rediss+cluster://app:s3cret@{HOST}:{cluster.nodes[0].server.port}{files.options('client')}"
    for node in cluster.nodes:
        node("ACL", "SETUSER", "app", "reset", "on", ">s3cret", *acl(namespace, cluster=True).split())
    async with make_cache(first, **FAST) as cache, make_cache(first, **FAST) as other:
        assert await cache.wait_healthy(10)
        assert await other.wait_healthy(10)
        assert await cache.set_many(MANY, tags=["t"]) is True
        assert await other.get_many(list(MANY)) == MANY
        assert await cache.delete(*MANY) is True
        await until(lambda: not any(other.peek(key) is not None for key in MANY))
        health = cache.health()
        assert (health.status, health.refused, len(health.primaries)) == ("ok", (), 3)
        assert cache.url == f"rediss+cluster://{HOST}:{cluster.nodes[0].server.port}"
    told = CliRunner().invoke(cli.app(), ["doctor", "--url", first, "--namespace", namespace])
    assert told.exit_code == 0, told.output
    assert "s3cret" not in told.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"authority": "strange-ca"}, "the server's certificate is not trusted: self-signed certificate"),
        ({}, "the server wants a client's certificate: name one by ?ssl_certfile="),
        ({"client": "client-strange"}, "the server does not trust the client's certificate"),
        ({"client": "client-expired"}, "the server refuses the client's certificate, which has expired"),
        (None, "the port speaks TLS; the URL of a server with TLS begins with rediss+cluster://"),
    ],
)
async def test_mistakes_at_a_cluster_with_tls(
    make_cache: MakeCache, files: Files, cluster: LocalCluster, options: dict[str, str] | None, words: str
) -> None:
    """`with` raises what is to be mended, as with one server."""
    nodes = cluster.url.partition("://")[2]
    url = f"redis+cluster://{nodes}" if options is None else f"rediss+cluster://{nodes}{files.options(**options)}"
    with pytest.raises(ConfigError, match=re.escape(words)):
        async with make_cache(url, **FAST):
            pass


async def test_tls_at_a_cluster_without(make_cache: MakeCache, files: Files, server: EmbeddedServer) -> None:
    """The scheme to take is that of a cluster."""
    words = "the port does not speak TLS; a URL without TLS begins with redis+cluster://"
    with pytest.raises(ConfigError, match=re.escape(words)):
        async with make_cache(f"rediss+cluster://{HOST}:{server.port}{files.options()}", **FAST):
            pass


async def test_a_client_of_the_user_for_a_cluster_with_tls(files: Files, cluster: LocalCluster, namespace: str) -> None:
    """Its certificates are taken, and the URL that is shown is of the same kind."""
    tls: dict[str, Any] = {
        "ssl": True,
        "ssl_ca_certs": str(files.folder / "ca.pem"),
        "ssl_certfile": str(files.folder / "client.pem"),
        "ssl_keyfile": str(files.folder / "client.key"),
    }

    def use() -> None:
        client = redis.RedisCluster(host=HOST, port=cluster.nodes[0].server.port, **tls)
        with NearCache(client, Settings(namespace=namespace)) as cache:
            assert cache.set_many(MANY) is True
            assert cache.get_many(MANY) == MANY
            assert cache.url.startswith("rediss+cluster://")
        client.close()

    await asyncio.to_thread(use)
    asked = redis.asyncio.RedisCluster(host=HOST, port=cluster.nodes[0].server.port, **tls)
    async with AsyncNearCache(asked, Settings(namespace=namespace)) as cache:
        assert await cache.get_many(MANY) == MANY
        assert cache.url.startswith("rediss+cluster://")
    await asked.aclose()
