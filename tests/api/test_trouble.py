"""Redis in trouble of other kinds than being away: full, read-only, loading, busy, without disk, rights or room.

Each is made on a real server that runs. Nothing is raised into a read, failures are counted, and the cache heals
without being made anew. What is told is one line per change of state, however many calls there are.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from nearcache import Accepted, BreakerClosed, BreakerOpened, CoherenceFailed, Connected, Disconnected, Refused
from nearcache.transport.embedded import EmbeddedServer, free_port
from tests.support import servers
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, shut, until

pytestmark = pytest.mark.one_server
"""The shared server is not asked; those here are."""

CONFIG = {"enable-debug-command": "yes", "enable-protected-configs": "yes"}
SHORT: dict[str, Any] = {"max_staleness": 1, "redis_timeout": 0.5, "reconnect_max": 0.05, "breaker_reset": 0.05}
ROUNDS = 30
PASSWORD = "pa55"


@pytest.fixture(scope="module", params=servers.KINDS)
def troubled(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server whose configuration may be changed in every way; each trouble here ends with its test."""
    with servers.make(request.param, CONFIG) as own:
        yield own


@contextmanager
def full(client: Any) -> Iterator[None]:
    """OOM: no memory left, and nothing may be evicted."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def read_only(client: Any) -> Iterator[None]:
    """READONLY: a primary that was made a replica, of nobody who answers."""
    client.execute_command("REPLICAOF", "127.0.0.1", free_port())
    yield
    client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def without_replicas(client: Any) -> Iterator[None]:
    """NOREPLICAS: writes want a replica."""
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextmanager
def without_disk(client: Any) -> Iterator[None]:
    """MISCONF: the last snapshot could not be written."""
    home = client.config_get("dir")["dir"]
    client.config_set("save", "3600 1")
    with tempfile.TemporaryDirectory() as folder:
        client.config_set("dir", folder)
        Path(folder).rmdir()
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            pass
        Path(folder).mkdir()
    yield
    client.config_set("dir", home)
    client.config_set("save", "")
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] != "ok":
        pass


@contextmanager
def without_rights(client: Any) -> Iterator[None]:
    """NOPERM: scripts are forbidden to the user that the cache has."""
    client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    yield
    client.execute_command("ACL", "SETUSER", "default", "+eval", "+evalsha")


@contextmanager
def with_a_password(client: Any) -> Iterator[None]:
    """NOAUTH: who connects anew needs a password."""
    client.config_set("requirepass", PASSWORD)
    _kill_others(client)
    yield
    client.config_set("requirepass", "")


@contextmanager
def without_room(client: Any) -> Iterator[None]:
    """As many clients as there may be: who connects anew is turned away."""
    client.config_set("maxclients", 1)
    _kill_others(client)
    yield
    client.config_set("maxclients", 1000)


@contextmanager
def busy(client: Any) -> Iterator[None]:
    """BUSY: a script that does not end."""
    client.config_set("lua-time-limit", 20)

    def run() -> None:
        with suppress(redis.RedisError), redis_of(_url(client)) as other:
            other.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    while True:
        try:
            client.get("a")
        except redis.exceptions.ResponseError:
            break
    yield
    client.script_kill()
    thread.join()


@contextmanager
def loading(client: Any) -> Iterator[None]:
    """LOADING: the data set is read from disk, slowly. It ends by itself."""
    with client.pipeline() as pipe:
        for number in range(1500):
            pipe.set(f"filler:{number}", "x" * 100)
        pipe.execute()
    client.config_set("key-load-delay", 1000)
    client.config_set("loading-process-events-interval-bytes", 1024)

    def run() -> None:
        with redis.Redis.from_url(_url(client), socket_timeout=30) as other:
            other.execute_command("DEBUG", "RELOAD")

    thread = threading.Thread(target=run)
    thread.start()
    while True:
        try:
            client.get("a")
        except redis.exceptions.BusyLoadingError:
            break
    yield
    thread.join()
    client.config_set("key-load-delay", 0)


def _url(client: Any) -> str:
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"


def _kill_others(client: Any) -> None:
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@dataclass(frozen=True)
class Trouble:
    """One kind of it, and what is to be seen."""

    make: Callable[[Any], Any]
    reads: bool
    """Whether Redis goes on to answer reads, and so must be asked."""
    lines: dict[str, int]
    """How often each thing is logged from the beginning to the end."""


AWAY = {"disconnected": 1, "breaker opened": 1, "breaker closed": 1, "connected": 1}

TROUBLES = [
    Trouble(full, True, {"refused": 1, "accepted": 1}),
    Trouble(without_replicas, True, {"refused": 1, "accepted": 1}),
    Trouble(without_disk, True, {"refused": 1, "accepted": 1}),
    Trouble(without_rights, True, {"refused": 1, "accepted": 1}),
    Trouble(read_only, False, AWAY | {"refused": 1, "accepted": 1}),
    Trouble(busy, False, AWAY),
    Trouble(loading, False, AWAY),
    Trouble(without_room, False, AWAY),
    Trouble(with_a_password, False, AWAY | {"coherence failed": 1}),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.make.__name__)
async def test_trouble_is_lived_through(
    make_cache: MakeCache, troubled: EmbeddedServer, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    """No read raises, each failure is counted, all is well again afterwards, and the log stays short."""
    with redis_of(troubled.url) as client:
        other = make_cache(troubled.url)
        async with make_cache(troubled.url, **SHORT) as cache:
            await other.set_many({f"key:{number}": number for number in range(ROUNDS)})
            await cache.get("key:0")
            await shut(other)
            heard = Heard(cache)
            caplog.set_level(logging.DEBUG, "nearcache")
            before = cache.stats()
            with trouble.make(client):
                await used(cache, trouble)
                if not trouble.reads:
                    await until(lambda: heard.of(Disconnected))
                    await until(lambda: heard.of(CoherenceFailed) or "coherence failed" not in trouble.lines)
                    await used(cache, trouble)
            assert cache.stats().l2_errors > before.l2_errors
            assert bool(heard.of(BreakerOpened)) != trouble.reads
            await healed(cache)
            assert len(heard.of(Refused)) == len(heard.of(Accepted))
            assert len(heard.of(BreakerOpened)) == len(heard.of(BreakerClosed))
        lines = Counter(record.message.split("'")[1] for record in caplog.records)
        told = {word: count for word, count in lines.items() if word not in {"flushed", "journalled", "drained"}}
        assert told == {word: count for word, count in trouble.lines.items() if count}, caplog.text
        assert (trouble.make is not full) <= lines["journalled"] <= 1 + lines["drained"], caplog.text


async def used(cache: Twin, trouble: Trouble) -> None:
    """Every kind of call, many times."""
    for number in range(ROUNDS):
        key = f"key:{number}"
        found = await cache.get(key)
        assert found == number if trouble.reads else found in {number, None}
        assert await cache.get_or_set(f"new:{number}", cache.loader(number)) == number
        assert await cache.set(f"own:{number}", number) is False
        if trouble.make is not full:
            assert await cache.delete(f"gone:{number}") is False


async def healed(cache: Twin) -> None:
    """Whatever there was, it is over: writes are acknowledged, L1 is proven, nothing is refused, nothing waits."""

    async def well() -> bool:
        await cache.set("a", 1)
        return bool(await cache.set("a", 1) and cache.healthy and not len(cache._core.tier.journal))

    await until(well)
    assert await cache.get_or_set("fresh", cache.loader(1)) == 1
    assert await cache.delete("fresh") is True
    assert not cache._core.breaker.refused


async def test_a_primary_that_is_none_any_more_is_left_at_once(make_cache: MakeCache, troubled: EmbeddedServer) -> None:
    """The first refused write closes every connection, though the next heartbeat is far away; reads ask it no more."""
    with redis_of(troubled.url) as client:
        async with make_cache(troubled.url, max_staleness=60, reconnect_max=0.05) as cache:
            heard = Heard(cache)
            await cache.set("a", 1)
            with read_only(client):
                assert await cache.set("b", 1) is False
                await until(lambda: heard.of(Disconnected))
                cache.clear_local()
                assert await cache.get("a") is None
            await healed(cache)


async def test_a_changed_password(make_cache: MakeCache, troubled: EmbeddedServer) -> None:
    """WRONGPASS in mid-life: told, degraded, and healed when the password is back."""
    with redis_of(troubled.url) as client:
        rights = ["~*", "&*", "+@all"]
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{PASSWORD}", *rights)
        async with make_cache(f"redis://app:{PASSWORD}@127.0.0.1:{troubled.port}/0", **SHORT) as cache:
            heard = Heard(cache)
            await cache.set("a", 1)
            client.execute_command("ACL", "SETUSER", "app", "resetpass", ">another")
            client.execute_command("CLIENT", "KILL", "USER", "app")
            await until(lambda: "refused the user or password" in repr(heard))
            for number in range(ROUNDS):
                assert await cache.get_or_set(f"b:{number}", cache.loader(number)) == number
            assert PASSWORD not in repr(heard)
            client.execute_command("ACL", "SETUSER", "app", f">{PASSWORD}")
            await until(lambda: heard.of(Connected))
            await healed(cache)
