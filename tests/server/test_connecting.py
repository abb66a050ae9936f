"""Connecting has one deadline, whatever hangs: the resolver, or a server that greets a byte at a time."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nearcache import AsyncNearCache, NearCache
from nearcache.engine.ports import RemoteFailed, RemoteTimeout
from nearcache.transport import connecting
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.endpoint import PROBES
from tests.support.faults import trickle
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, shut, until

FAST: dict[str, Any] = {"redis_timeout": 0.1, "redis_connect_timeout": 0.2, "reconnect_max": 0.02}
LONG = 5.0
"""Seconds that nothing here may take; what hangs would take longer."""


pytestmark = pytest.mark.one_server
"""The shared server plays no part."""


async def test_a_server_that_greets_a_byte_at_a_time(make_cache: MakeCache) -> None:
    """Each byte comes within redis_timeout, the greeting never: a read waits for connecting no longer than it may."""
    with trickle() as port:
        cache = make_cache(f"redis://127.0.0.1:{port}/0", **FAST)
        begun = time.monotonic()
        assert await cache.get_or_set("a", cache.loader(1)) == 1
        assert await cache.set("a", 1) is False
        assert time.monotonic() - begun < LONG
        assert cache.stats().l2_errors > 0
        await shut(cache)


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits no longer, few threads are left in it however long it hangs, and all end with it."""
    answer = threading.Event()
    asked: list[object] = []

    def getaddrinfo(host: object, *_args: object, **_options: object) -> Any:
        asked.append(host)
        answer.wait()
        raise socket.gaierror("nobody of this name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    cache = NearCache.from_url("redis://nobody.invalid/0", breaker_reset=0.01, **FAST)
    try:
        begun = time.monotonic()
        assert cache.get_or_set("a", lambda: 1) == 1
        assert time.monotonic() - begun < LONG
        while len(asked) < connecting.HANGING_MAX:
            time.sleep(0.01)
        for number in range(50):
            assert cache.get_or_set(f"a:{number}", lambda: 1) == 1
        assert not cache.wait_healthy(0.3)
        most = connecting.HANGING_MAX + 1  # a reader and the bus may begin at the same time
        assert len(asked) <= most
        assert len(connecting._hanging) <= most
    finally:
        answer.set()
        cache.close()
    while connecting._hanging:
        time.sleep(0.01)


async def test_readers_do_not_connect_while_the_link_is_down(make_cache: MakeCache, proxy: Any) -> None:
    """Only the bus connects, however many read: every connection that the proxy accepted is one of its attempts."""
    proxy.hold("replies")
    cache = make_cache(proxy.url, **FAST)
    core = cache._core
    made = core.new_bus
    attempts: list[object] = []

    def counted() -> Any:
        attempts.append(1)
        return made()

    core.new_bus = counted
    await cache.get("a")
    await until(lambda: not core.breaker.sends and not core.breaker.bus)
    accepted, tried = proxy.accepted, len(attempts)
    for number in range(100):
        assert await cache.get_or_set(f"a:{number}", cache.loader(number)) == number
        assert await cache.set(f"a:{number}", number) is False
    await until(lambda: len(attempts) > tried + 1)
    # Each attempt that fails may ask the port whether it speaks TLS, until it was asked PROBES times.
    assert 0 < proxy.accepted - accepted <= len(attempts) - tried + PROBES
    proxy.heal()
    assert await cache.wait_healthy(10)


def test_what_connecting_raises_is_raised() -> None:
    """In the thread of whoever wants the connection, an interruption too."""
    for error in (RemoteFailed("no"), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            connecting.within(LONG, "here", fail, lambda: None)


def test_what_comes_after_the_deadline_is_closed() -> None:
    """Once when it is given up, which wakes who waits for the socket, and once when it has come all the same."""
    come, closed = threading.Event(), []

    def connect() -> None:
        come.wait()

    with pytest.raises(RemoteTimeout):
        connecting.within(0.01, "there", connect, lambda: closed.append(1))
    assert closed == [1]
    come.set()
    while len(closed) < 2:
        time.sleep(0.001)


def test_without_a_thread_to_connect_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one failure more."""

    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    with pytest.raises(RemoteFailed, match="no thread"):
        connecting.within(LONG, "nowhere", lambda: None, lambda: None)


def test_few_threads_hang_in_one_address() -> None:
    """Then nobody tries there any more, until they have ended; other addresses are another matter."""
    end = threading.Event()

    def hang() -> None:
        end.wait()

    for _ in range(connecting.HANGING_MAX):
        with pytest.raises(RemoteTimeout, match="too long"):
            connecting.within(0.01, "hangs", hang, lambda: None)
    with pytest.raises(RemoteTimeout, match="often enough"):
        connecting.within(LONG, "hangs", lambda: None, lambda: None)
    connecting.within(LONG, "another", lambda: None, lambda: None)
    end.set()
    while connecting._hanging:
        time.sleep(0.001)
    connecting.within(LONG, "hangs", lambda: None, lambda: None)


async def test_user_and_password_from_files(
    fresh_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With characters that a URL would have to quote, over the wrong ones of the URL."""
    word = "p@ss/w:rd?#%40 ü"
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", f">{word}", "~*", "&*", "+@all")
    (tmp_path / "word").write_text(f"{word}\n")
    for name, text in (
        ("URL", fresh_server.url.replace("//", "//other:wrong@")),
        ("USERNAME", "app"),
        ("PASSWORD_FILE", str(tmp_path / "word")),
        ("NAMESPACE", "shop"),
    ):
        monkeypatch.setenv(f"NEARCACHE_{name}", text)
    with NearCache.from_env() as cache:
        assert cache.wait_healthy(5)
        assert cache.set("a", 1)
        assert "@" not in cache.url
    async with AsyncNearCache.from_env() as awaited:
        assert await awaited.get("a") == 1
