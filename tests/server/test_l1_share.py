"""`nearcache l1 --share`: what the namespace says of L1 reaches every process within its max_staleness."""

from __future__ import annotations

import json
import time
from multiprocessing.connection import Connection

import pytest

from nearcache import NearCache
from nearcache.protocol.names import Names
from nearcache.transport.embedded import EmbeddedServer
from tests.server.test_commands import run
from tests.support.processes import Crew, serve
from tests.support.waiting import redis_of, until

KEYS = [f"key:{number}" for number in range(100)]
STALENESS = 1.0


class Instance:
    """A process with a cache of its own."""

    def __init__(self, cache: NearCache) -> None:
        self.cache = cache

    async def fill(self) -> int:
        """Read everything; how many entries L1 has then."""
        assert len(self.cache.get_many(KEYS)) == len(KEYS)
        return self.cache.stats().l1_entries

    async def entries(self) -> int:
        """How many entries L1 has."""
        return self.cache.stats().l1_entries

    async def why(self) -> str | None:
        """Why the last key has left L1."""
        return self.cache.explain(KEYS[-1]).left_l1


async def attend(url: str, namespace: str, pipe: Connection) -> None:
    """Run an Instance."""
    with NearCache.from_url(url, namespace=namespace, max_staleness=STALENESS) as cache:
        await serve(pipe, Instance(cache))


def told(cache: NearCache, *words: str) -> float:
    """What the command prints."""
    share: float = json.loads(run(cache, "l1", *words, "--json").stdout)["share"]
    return share


async def test_two_processes_follow(server: EmbeddedServer, namespace: str) -> None:
    """At 0 they hold nothing and drop what they held; at a half, half of the keys; at 1, everything again."""
    where = (server.url, namespace)
    with NearCache.from_url(server.url, namespace=namespace, max_staleness=STALENESS) as cache:
        cache.set_many(dict.fromkeys(KEYS, 1))
        with Crew(attend, {"one": where, "two": where}) as crew:
            assert crew.ask("fill") == [100, 100]
            assert told(cache) == 1.0
            begun = time.monotonic()
            assert told(cache, "--share", "0") == 0.0
            await until(lambda: crew.ask("entries") == [0, 0])
            assert time.monotonic() - begun < STALENESS
            assert crew.ask("why") == ["the share of keys that L1 may hold was lowered"] * 2
            assert crew.ask("fill") == [0, 0]
            with Crew(attend, {"late": where}) as late:  # it hears of it before its L1 is proven
                assert late.ask("fill") == [0]
            run(cache, "l1", "--share", "0.5")
            await until(lambda: all(30 < held < 70 for held in crew.ask("fill")))
            run(cache, "l1", "--share", "1")
            await until(lambda: crew.ask("fill") == [100, 100])


async def test_it_reaches_every_bucket(server: EmbeddedServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bucket has the share beside its own counter."""
    monkeypatch.setenv("NEARCACHE_BUCKETS", "16")
    with NearCache.from_url(server.url, namespace=namespace, max_staleness=STALENESS, buckets=16) as cache:
        cache.set_many(dict.fromkeys(KEYS, 1))
        assert cache.stats().l1_entries == len(KEYS)
        assert told(cache, "--share", "0") == 0.0
        await until(lambda: not cache.stats().l1_entries)
        run(cache, "l1", "--share", "0.5")
        await until(lambda: cache.set_many(dict.fromkeys(KEYS, 1)) and 30 < cache.stats().l1_entries < 70)


async def test_no_instance_holds_more_than_its_setting(server: EmbeddedServer, namespace: str) -> None:
    """The smaller one counts; damage limits nothing, and a clear does not end it."""
    with NearCache.from_url(server.url, namespace=namespace, max_staleness=0.2, l1_share=0.1) as cache:
        run(cache, "l1", "--share", "1")
        cache.set_many(dict.fromkeys(KEYS, 1))
        assert 0 < cache.stats().l1_entries < 30
        run(cache, "l1", "--share", "0")
        await until(lambda: not cache.stats().l1_entries)
        cache.clear()
        assert told(cache) == 0.0
        with redis_of(server.url) as client:
            client.hset(Names(namespace).counters, "l", "many")
        await until(lambda: cache.set_many(dict.fromkeys(KEYS, 1)) and 0 < cache.stats().l1_entries < 30)


@pytest.mark.parametrize("share", ["-0.1", "1.5", "x"])
def test_a_share_is_from_0_to_1(server: EmbeddedServer, namespace: str, share: str) -> None:
    """Anything else is refused."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        assert run(cache, "l1", "--share", share).exit_code == 2
        assert told(cache) == 1.0
