"""One namespace in two databases of one server, and databases that are swapped: each has its own numbers."""

from __future__ import annotations

import pytest

from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import redis_of, until

STALENESS = 1.0


def url(server: EmbeddedServer, database: int) -> str:
    """Of a database."""
    return f"redis://127.0.0.1:{server.port}/{database}"


async def test_two_databases_do_not_hear_each_other(server: EmbeddedServer, namespace: str) -> None:
    """Pub/sub knows no databases: on one channel, each write of one would be a gap to the other."""
    with (
        NearCache.from_url(url(server, 0), namespace=namespace) as zero,
        NearCache.from_url(url(server, 1), namespace=namespace) as one,
        NearCache.from_url(url(server, 1), namespace=namespace) as other,
    ):
        assert all(cache.wait_healthy(5) for cache in (zero, one, other))
        assert zero.set("k", "zero")
        for number in range(20):
            assert one.set("k", number)
        await until(lambda: other._core.invalidation.last == one._core.invalidation.last)
        assert other.get("k") == 19
        assert zero.peek("k") == "zero"
        assert [cache.stats().flushes for cache in (zero, one, other)] == [0, 0, 0]


@pytest.mark.parametrize("equal", [True, False], ids=["counters equal", "counters differ"])
async def test_databases_that_are_swapped_flush(fresh_server: EmbeddedServer, namespace: str, equal: bool) -> None:
    """The connection stays, the data are others: with equal counters only the history tells."""
    with (
        NearCache.from_url(url(fresh_server, 0), namespace=namespace, max_staleness=STALENESS) as zero,
        NearCache.from_url(url(fresh_server, 1), namespace=namespace, max_staleness=STALENESS) as one,
    ):
        assert zero.wait_healthy(5)
        assert one.wait_healthy(5)
        assert zero.set("k", "zero")
        assert one.set("k", "one")
        counters = f"{{{namespace}:0}}:m"
        with redis_of(url(fresh_server, 0)) as client, redis_of(url(fresh_server, 1)) as second:
            if equal:
                second.hset(counters, "s", client.hget(counters, "s"))
            client.execute_command("SWAPDB", 0, 1)
        await until(lambda: zero.stats().flushes)
        await until(lambda: zero.healthy)
        assert zero.get("k") in ("one", None), "what the server has now"
        assert zero.peek("k") != "zero"
