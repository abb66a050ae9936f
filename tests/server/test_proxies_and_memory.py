"""What docs/guarantees.md says of proxies, and of a server that evicts."""

from __future__ import annotations

import random
import socketserver
import threading
from collections.abc import Iterator

import pytest

from nearcache import ConfigError, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support import servers
from tests.support.waiting import redis_of, until


class HangsUp(socketserver.StreamRequestHandler):
    """Twemproxy, as far as the cache can tell: it closes the connection at a command that it does not know."""

    def handle(self) -> None:
        """Take commands until one of them is not known."""
        while head := self.rfile.readline():
            if not head.startswith(b"*"):
                return
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
            if words[0] in (b"HELLO", b"INFO", b"TIME", b"SUBSCRIBE", b"CLIENT"):
                return
            self.wfile.write(b"$-1\r\n")


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """The URL of such a proxy."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangsUp) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("option", ["", "?protocol=2"])
def test_a_proxy_that_hangs_up_is_as_a_server_that_is_away(hangs_up: str, namespace: str, option: str) -> None:
    """Nothing raises, loaders answer, and health says so."""
    with NearCache.from_url(hangs_up + option, namespace=namespace) as cache:
        assert cache.get_or_set("a", lambda: 1) == 1
        assert cache.get("b") is None
        assert cache.set("b", 1) is False
        assert not cache.healthy
        assert "connection failed" in str(cache.health().reason)


@pytest.mark.parametrize("kind", servers.KINDS)
def test_a_proxy_without_time(kind: str, namespace: str) -> None:
    """No connection can be used without the server's clock, which is told at once."""
    with (
        servers.make(kind, {"rename-command": 'TIME ""'}) as own,
        pytest.raises(ConfigError, match="TIME was refused"),
        NearCache.from_url(own.url, namespace=namespace),
    ):
        pass


VALUES = 600
SIZE = 5000
ROOM = 1_000_000
"""Bytes; a third of what is stored."""


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-random", "allkeys-lru", "allkeys-random"])
async def test_a_server_that_evicts(fresh_server: EmbeddedServer, namespace: str, policy: str) -> None:
    """Nothing stale is served, whatever it evicts; the counter, which has no ttl, stays under the volatile policies."""
    url = fresh_server.url
    chance = random.Random(7)
    with (
        redis_of(url) as client,
        NearCache.from_url(url, namespace=namespace) as one,
        NearCache.from_url(url, namespace=namespace) as two,
    ):
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + ROOM)
        truth: dict[str, bytes | None] = {}
        for _ in range(3 * VALUES):
            key, value = f"key:{chance.randrange(VALUES)}", chance.randbytes(SIZE)
            truth[key] = value if one.set(key, value) else None
            two.get(f"key:{chance.randrange(VALUES)}")
        assert client.info("stats")["evicted_keys"] > VALUES / 2
        number = int(client.hget(one._core.remote.names.counters, "s") or 0)  # type: ignore[attr-defined]
        await until(lambda: two.healthy and two._core.invalidation.last >= number)
        assert [key for key, value in truth.items() if two.get(key) not in (None, value)] == []
        if policy.startswith("volatile"):
            assert [one.stats().flushes, two.stats().flushes] == [0, 0]
            assert number


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_cluster_of_one_shard(kind: str, namespace: str) -> None:
    """Every script keeps to one slot, so a plain URL is enough, for L1 too."""
    with servers.make(kind, {"cluster-enabled": "yes"}) as own:
        with redis_of(own.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        with NearCache.from_url(own.url, namespace=namespace) as cache:
            assert cache.healthy
            assert cache.set_many({"a": 1, "b": 2}, tags=["t"])
            assert cache.mark_stale("a")
            assert cache.get_or_set("a", lambda: 3, tags=["t", "u"]) == 3
            assert cache.get_many(["a", "b"]) == {"a": 3, "b": 2}
            assert cache.invalidate_tags("t", "u")
            assert cache.delete("a", "b", hold=1)
            assert cache.clear()
            assert cache.health().status == "ok"
            assert cache.stats().l2_errors == 0
