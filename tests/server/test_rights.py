"""Users without one of the rights that writes need: they write nothing, disturb nobody, and read what they may."""

from __future__ import annotations

from contextlib import closing

import pytest

from nearcache import ConfigError, NearCache, RemoteUnavailable
from nearcache.protocol.names import Names
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import redis_of, until

WRITES = ["hincrby", "hset", "set", "del", "setrange", "getrange", "pttl", "pexpire", "publish"]
"""The commands of scripts, without which a user only reads."""
SECRET = "a-secret"


def user_of(server: EmbeddedServer, namespace: str, name: str, *rules: str) -> str:
    """Make a user with all rights but these; its URL."""
    with redis_of(f"redis://127.0.0.1:{server.port}/0") as client:
        pattern = f"{{{namespace}:*"
        client.execute_command(
            "ACL", "SETUSER", name, "reset", "on", f">{SECRET}", f"~{pattern}", f"&{pattern}", "+@all", *rules
        )
    return f"redis://{name}:{SECRET}@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("command", WRITES)
async def test_a_right_that_is_missing(fresh_server: EmbeddedServer, namespace: str, command: str) -> None:
    """`with` raises and names it; without `with` nothing is written or journalled, and reads are answered."""
    url = user_of(fresh_server, namespace, "app", f"-{command}")
    with NearCache.from_url(f"redis://127.0.0.1:{fresh_server.port}/0", namespace=namespace) as owner:
        assert owner.set("there", 1, tags=["t"]) is True
        with (
            pytest.raises(ConfigError, match=f"(?i){command}") as caught,
            NearCache.from_url(url, namespace=namespace, reconnect_max=0.05),
        ):
            pass
        assert SECRET not in str(caught.value)
        before = owner.stats()
        cache = NearCache.from_url(url, namespace=namespace, reconnect_max=0.05)
        try:
            assert cache.get("there") == 1
            assert cache.set("a", 1, tags=["t"]) is False
            assert cache.delete("there") is False
            assert cache.mark_stale("there") is False
            assert cache.clear() is False
            assert cache.add("a", 1) is False
            assert cache.touch("there", 60) is False
            with pytest.raises(RemoteUnavailable):
                cache.incr("n")
            assert cache.get_or_set("b", lambda: 2) == 2
            assert cache.health().journal == 0
            assert cache.get("there") == 1
        finally:
            cache.close()
        assert owner.set("again", 1) is True
        await until(lambda: owner._core.invalidation.last >= before.invalidations_sent)
        assert owner.stats().flushes == before.flushes
        assert owner.peek("there") == 1


@pytest.mark.parametrize("command", ["publish", "pexpire"])
async def test_a_right_that_is_granted_later(fresh_server: EmbeddedServer, namespace: str, command: str) -> None:
    """It is tried again while the bus goes on, and writes begin."""
    url = user_of(fresh_server, namespace, "app", f"-{command}")
    with closing(NearCache.from_url(url, namespace=namespace, max_staleness=0.4)) as cache:
        assert cache.set("a", 1) is False
        await until(lambda: cache.healthy)
        flushes = cache.stats().flushes
        user_of(fresh_server, namespace, "app")  # with all rights
        await until(lambda: cache.health().status == "ok")
        assert cache.set("a", 1) is True
        assert cache.get_or_set("b", lambda: 2) == 2
        assert cache.stats().flushes == flushes


async def test_a_right_that_stays_away(fresh_server: EmbeddedServer, namespace: str) -> None:
    """It is tried at a slow pace, not with each heartbeat."""
    url = user_of(fresh_server, namespace, "app", "-publish")
    with closing(NearCache.from_url(url, namespace=namespace, max_staleness=0.1)) as cache:
        assert cache.set("a", 1) is False
        await until(lambda: cache._core.rights_pause >= 1)
        with redis_of(f"redis://127.0.0.1:{fresh_server.port}/0") as client:
            tried = client.info("commandstats")["cmdstat_publish"]["rejected_calls"]
        assert tried <= 4


@pytest.mark.parametrize("command", ["set", "get", "hincrby", "publish"])
async def test_a_right_that_is_taken_away_while_a_cache_runs(
    fresh_server: EmbeddedServer, namespace: str, command: str
) -> None:
    """Nothing is stored, and no number goes without its message: nobody else flushes."""
    url = user_of(fresh_server, namespace, "app")
    plain = f"redis://127.0.0.1:{fresh_server.port}/0"
    with NearCache.from_url(plain, namespace=namespace) as owner, NearCache.from_url(url, namespace=namespace) as app:
        assert owner.set("k", 1)
        user_of(fresh_server, namespace, "app", f"-{command}")
        for value in range(2, 6):
            assert app.set("k", value, tags=["t"]) is False
        assert owner.set("last", 1)
        await until(lambda: owner._core.invalidation.last >= owner._core.invalidation.seen)
        assert owner.stats().flushes == 0
        assert owner.get("k") in (1, None)  # as it was, or deleted by the journal


async def test_a_counter_that_may_not_begin_anew_keeps_its_number(fresh_server: EmbeddedServer, namespace: str) -> None:
    """It was set back, and the right to write it is gone: a number taken for nothing would be a gap to all others."""
    url, counters = user_of(fresh_server, namespace, "app"), Names(namespace).counters
    with NearCache.from_url(url, namespace=namespace) as app, redis_of(fresh_server.url) as client:
        assert app.set("k", 1)
        user_of(fresh_server, namespace, "app", "-hset")
        client.hset(counters, "s", 5)
        assert app.set("k", 2) is False
        assert client.hget(counters, "s") == b"5"


async def test_a_write_that_may_not_publish_disturbs_nobody(fresh_server: EmbeddedServer, namespace: str) -> None:
    """The default of Redis 7 gives a user no channel: were its writes sent, each would be a gap to all others."""
    url = user_of(fresh_server, namespace, "app", "resetchannels")
    plain = f"redis://127.0.0.1:{fresh_server.port}/0"
    with NearCache.from_url(plain, namespace=namespace) as one, NearCache.from_url(plain, namespace=namespace) as other:
        assert one.set("k", 1)
        assert other.get("k") == 1
        wrong = NearCache.from_url(url, namespace=namespace, reconnect_max=0.05)
        try:
            for number in range(20):
                assert wrong.set(f"k{number}", number) is False
            assert wrong.get("k") == 1
            assert wrong.health().journal == 0
        finally:
            wrong.close()
        assert one.set("last", 1)
        await until(lambda: other._core.invalidation.last == one._core.invalidation.last)
        assert [one.stats().flushes, other.stats().flushes] == [0, 0]
        assert other.peek("k") == 1


async def test_where_evalsha_is_refused_scripts_go_by_eval(fresh_server: EmbeddedServer, namespace: str) -> None:
    """Every operation works; of many, one alone is refused on each connection."""
    url = user_of(fresh_server, namespace, "app", "-evalsha", "+eval")
    with NearCache.from_url(url, namespace=namespace) as cache:
        assert cache.healthy
        assert cache.set("a", 1, tags=["t"]) is True
        assert cache.mark_stale("a") is True
        assert cache.get_or_set("a", lambda: 2, tags=["t"]) == 2
        assert cache.invalidate_tags("t") is True
        assert cache.delete("a", hold=0.1) is True
        assert cache.clear() is True
        assert cache.stats().l2_errors == 0
        assert cache.health().status == "ok"
        with redis_of(f"redis://127.0.0.1:{fresh_server.port}/0") as client:
            log = client.acl_log()
        assert sum(entry["object"] == "evalsha" for entry in log) == 1
        assert log[0]["count"] <= 3


async def test_where_scripts_are_refused_it_is_said_so(fresh_server: EmbeddedServer, namespace: str) -> None:
    """Without EVAL nothing can be written, whatever else the user may do."""
    url = user_of(fresh_server, namespace, "app", "-evalsha", "-eval")
    with pytest.raises(ConfigError, match=r"(?i)eval"), NearCache.from_url(url, namespace=namespace):
        pass


async def test_where_evalsha_has_another_name_scripts_go_by_eval(namespace: str) -> None:
    """As on servers that rename it away."""
    with (
        EmbeddedServer(config={"rename-command": 'EVALSHA ""'}) as server,
        NearCache.from_url(server.url, namespace=namespace) as cache,
    ):
        assert cache.healthy
        assert cache.set("a", 1) is True
        assert cache.stats().l2_errors == 0
