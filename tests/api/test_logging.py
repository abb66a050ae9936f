"""Logging: silent until the application asks; then one line per change of state, and never a secret."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from nearcache import CorruptValue, Disconnected, NearCache
from nearcache.local.invalidation import FLUSHES_MAX
from nearcache.protocol.codec import MsgpackCodec
from nearcache.testing import FaultProxy, ManualClock
from nearcache.transport.embedded import EmbeddedServer, free_port
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, channel_name, redis_of, until, value_name

pytestmark = pytest.mark.one_server
"""What is logged is the same on each kind of server."""

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-pa55"

BUSY = """
import sys, time
{setup}
from nearcache import Connected, CorruptValue, Disconnected, NearCache
from nearcache.transport.embedded import EmbeddedServer
import redis

def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)

with EmbeddedServer(config={{"requirepass": "{secret}"}}) as server:
    events = []
    with NearCache.from_url(server.url, namespace="shop", reconnect_max=0.02) as cache:
        cache.on_event(events.append)
        for number in range(100):
            cache.set(f"key:{{number}}", number)
            cache.get(f"key:{{number}}")
        with redis.Redis.from_url(server.url) as client:
            client.set("{{shop:0}}:v:bad", b"garbage {secret}")
        cache.get("bad")
        cache.get("bad")
        server.restart()
        until(lambda: any(isinstance(event, Connected) for event in events))
    wrong = NearCache.from_url(server.url.replace("{secret}", "wrong-{secret}"), namespace="shop", reconnect_max=0.02)
    wrong.on_event(events.append)
    wrong.get("a")
    until(lambda: "CoherenceFailed" in repr(events))
    wrong.wait_healthy(0.2)
    wrong.close()
"""


def run(setup: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    """A busy life of a cache in a process of its own: writes, a corrupt value, a restart, a wrong password."""
    script = BUSY.format(setup=setup, secret=SECRET)
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )


def test_a_library_is_silent_by_default() -> None:
    """Without a word from the application nothing is printed, whatever happens, not even by logging's last resort."""
    done = run("")  # where warnings are errors, as events they break nothing
    assert (done.stdout, done.stderr) == ("", "")


def test_what_only_a_change_of_the_program_mends_is_a_warning() -> None:
    """A wrong password: one line, with the address and without a secret, and what is lost and comes back is none."""
    done = run("", warnings="default")
    (line, *rest) = done.stderr.splitlines()
    assert "NearCacheWarning: redis://127.0.0.1:" in line
    assert line.endswith("namespace='shop': the server refused the user or password; check both in the URL")
    assert all(one.startswith("  ") for one in rest), done.stderr  # the line of source, if it is found
    assert SECRET not in done.stderr


def test_structlog_configured_by_the_application_is_left_alone() -> None:
    """Structlog's global configuration is neither read nor changed."""
    done = run(
        "import structlog\n"
        "def fail(*args): raise AssertionError('read')\n"
        "structlog.configure(processors=[fail], logger_factory=fail)\n"
        "import atexit\n"
        "atexit.register(lambda: print(structlog.get_config()['processors'] == [fail]))"
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_one_line_per_change_of_state() -> None:
    """With logging.basicConfig each rare fact is one line, with namespace and facts, and no secret."""
    done = run("import logging; logging.basicConfig(level=logging.INFO, format='%(name)s %(levelname)s %(message)s')")
    lines = done.stderr.splitlines()
    assert all(line.startswith("nearcache ") for line in lines), done.stderr
    assert all("namespace='shop'" in line for line in lines)
    words = [line.split("'")[1] for line in lines]
    assert words[:2] == ["connected", "corrupt value"]
    assert sorted(set(words) - {"breaker opened", "breaker closed"}) == [
        "coherence failed",
        "connected",
        "corrupt value",
        "disconnected",
        "flushed",
    ]
    assert [words.count(word) for word in ("connected", "corrupt value", "disconnected", "coherence failed")] == [
        2,
        1,
        1,
        1,
    ]
    assert SECRET not in done.stderr
    levels = {line.split("'")[1]: line.split()[1] for line in lines}
    assert levels["connected"] == levels["flushed"] == "INFO"
    assert levels["disconnected"] == levels["corrupt value"] == "WARNING"
    assert levels["coherence failed"] == "ERROR"


def test_the_logger_has_a_null_handler() -> None:
    """With the first cache it has one, so that logging's last resort prints nothing; nothing else is configured."""
    NearCache.from_url("memory://")
    logger = logging.getLogger("nearcache")
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.level == logging.NOTSET
    assert logger.propagate
    assert not structlog.is_configured()


async def test_reads_and_writes_log_nothing(make_cache: MakeCache, caplog: pytest.LogCaptureFixture) -> None:
    """Only changes of state are told: two lines would be two connections."""
    caplog.set_level(logging.DEBUG, "nearcache")
    async with make_cache() as cache:
        for number in range(50):
            await cache.set(f"key:{number}", number)
            await cache.get(f"key:{number}")
            await cache.get_or_set(f"load:{number}", cache.loader(number))
        await cache.delete("key:1")
        await cache.clear()
    assert len(caplog.records) == 1
    assert "connected" in caplog.records[0].message


async def test_an_outage_is_not_a_line_per_attempt(
    make_cache: MakeCache, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """However long Redis is away and however often it is asked: lost once, open once, back once."""
    caplog.set_level(logging.DEBUG, "nearcache")
    async with make_cache(proxy.url, reconnect_max=0.02) as cache:
        heard = Heard(cache)
        proxy.cut()
        await until(lambda: heard.of(Disconnected))
        for number in range(50):
            await cache.get(f"key:{number}")
            await cache.set(f"key:{number}", number)
        assert not await cache.wait_healthy(0.2)
        proxy.heal()
        assert await cache.wait_healthy(5)
    words = [record.message.split("'")[1] for record in caplog.records]
    assert words.count("connected") == 2
    assert words.count("disconnected") == 1
    assert words.count("breaker opened") == words.count("breaker closed") == 1


async def test_a_corrupt_value_is_told_once(
    make_cache: MakeCache, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the key and never the value."""
    async with make_cache() as cache:
        with redis_of(cache.url) as client:
            client.set(value_name(namespace, "bad"), SECRET * 3)
        caplog.set_level(logging.WARNING, "nearcache")
        for _ in range(5):
            await cache.get("bad")
    (record,) = caplog.records
    assert "key='bad'" in record.message
    assert SECRET not in caplog.text


class Talkative:
    """A codec whose errors repeat the value."""

    def encode(self, value: object) -> bytes:
        """Text."""
        if value == "unfit":
            raise ValueError("x" * 1_000_000)
        return str(value).encode()

    def decode(self, data: bytes) -> object:
        """Fails."""
        raise ValueError(data.decode() * 1000)


async def test_what_a_damaged_value_holds_is_not_logged(
    make_cache: MakeCache, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by the default codec nor by one that quotes it; and no line is long."""
    caplog.set_level(logging.WARNING, "nearcache")
    junk = MsgpackCodec().encode([SECRET]) + SECRET.encode() * 1000
    async with make_cache() as one, make_cache(codec=Talkative(), namespace=f"{namespace}-2") as other:
        await one.set("a", "value")
        with redis_of(one.url) as client:
            name = value_name(namespace, "a")
            client.set(name, client.get(name) + junk)
        one.clear_local()
        assert await one.get("a") is None
        await other.set("b", [SECRET])
        assert await other.get("b") is None
        other.clear_local()
        assert await other.get("b") is None
        assert await other.get_or_set("c", other.loader("unfit")) == "unfit"
    assert [record.message.split("'")[1] for record in caplog.records] == ["corrupt value"] * 2 + ["load failed"]
    assert SECRET not in caplog.text
    assert max(len(record.message) for record in caplog.records) < 1000


def test_keys_of_damaged_values_are_told_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Each once, and no more than a thousand in an hour; all are counted."""
    clock = ManualClock()
    with clock, NearCache.from_url("memory://", codec=Talkative(), copy="serialized") as cache:
        told: list[str] = []
        cache.on_event(lambda event: told.append(event.key) if isinstance(event, CorruptValue) else None)
        caplog.set_level(logging.WARNING, "nearcache")
        keys = [f"key:{number}" for number in range(1500)]

        def read_all() -> None:
            for key in keys:
                cache.set(key, "x")
                assert cache.get(key) is None

        read_all()
        read_all()
        assert told == keys[:1000]
        assert len(caplog.records) == 1000
        assert cache.stats().corrupt_values == 3000
        clock.advance(3601)
        read_all()
        assert told == keys


def test_junk_on_the_channel_is_one_line(
    server: EmbeddedServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However many messages can't be read, they cost a few flushes for each heartbeat; afterwards L1 serves again."""
    caplog.set_level(logging.INFO, "nearcache")
    with NearCache.from_url(server.url, namespace=namespace) as cache, redis_of(server.url) as client:
        assert cache.set("a", 1)
        caplog.clear()
        began = time.monotonic()
        for _ in range(20):
            pipeline = client.pipeline(transaction=False)
            for number in range(1000):
                pipeline.publish(channel_name(namespace), f"junk {number}")
            pipeline.execute()
        deadline = time.monotonic() + 10
        while cache.stats().invalidations_received < 20_000 or cache.get("a") != cache.peek("a"):
            assert time.monotonic() < deadline
        heartbeats = 1 + (time.monotonic() - began) / (cache.settings.max_staleness / 4)
        assert cache.stats().flushes <= (FLUSHES_MAX + 1) * heartbeats
    assert [record.message.split("'")[1] for record in caplog.records] == ["flushed"]


def test_a_handler_that_fails_harms_nobody(server: EmbeddedServer, namespace: str) -> None:
    """What an application's log handler raises does not reach a read."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    logger, handler = logging.getLogger("nearcache"), Failing()
    logger.addHandler(handler)
    try:
        logger.setLevel(logging.DEBUG)
        with NearCache.from_url(server.url, namespace=namespace) as cache:
            assert cache.set("a", 1) is True
            assert cache.healthy
        with NearCache.from_url(f"redis://127.0.0.1:{free_port()}/0", namespace=namespace) as cache:
            for number in range(5):
                assert cache.get(f"key:{number}") is None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
