"""Exceptions out of signal handlers: no lock stays held, no flight stays behind, nobody else gets the exception."""

from __future__ import annotations

import functools
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.local.interrupts import from_signal_handler, make_lock, release_left
from nearcache.local.singleflight import Flights, Purpose
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.connections import TIMEOUT


class SoftTimeLimit(Exception):
    """As Celery's."""


class Handlers:
    """Handlers of every kind."""

    def method(self, *_: object) -> None:
        """A bound method."""
        raise SoftTimeLimit

    def __call__(self, *_: object) -> None:
        """An object."""
        raise SoftTimeLimit


def plain(*_: object) -> None:
    """A function."""
    raise SoftTimeLimit


def with_more(_more: str, *_: object) -> None:
    """A partial."""
    raise SoftTimeLimit


@contextmanager
def handled(handler: Any) -> Iterator[Callable[[], None]]:
    """The handler of SIGUSR1; yields what sends it to this thread."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield lambda: signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def is_free(lock: Any) -> bool:
    """Whether another thread gets it."""
    got: list[bool] = []

    def take() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got[0]


@pytest.mark.parametrize("handler", [plain, Handlers().method, Handlers(), functools.partial(with_more, "")])
def test_an_exception_of_a_handler_is_known(handler: Any) -> None:
    """Of whatever kind it is; an exception of the code below it is not one."""
    with handled(handler) as send:
        with pytest.raises(SoftTimeLimit) as caught:
            send()
        assert from_signal_handler(caught.value)
        assert not from_signal_handler(ValueError())
        with pytest.raises(ZeroDivisionError) as other:
            1 / 0  # noqa: B018
        assert not from_signal_handler(other.value)


def test_an_operation_that_ends_with_an_exception_leaves_no_lock() -> None:
    """Wherever the exception came: here right after the lock was taken, where no ``with`` would release it."""
    lock = make_lock()

    async def interrupted() -> None:
        lock.acquire()
        lock.acquire()
        raise KeyboardInterrupt

    async def outer() -> None:
        lock.acquire()
        with pytest.raises(KeyboardInterrupt):
            run_sync(interrupted())  # in a loader or a signal handler: the lock may be the outer operation's
        assert lock._is_owned()
        raise KeyboardInterrupt

    for operation in (interrupted, outer):
        with pytest.raises(KeyboardInterrupt):
            run_sync(operation())
        assert is_free(lock)
    lock = make_lock()
    lock.acquire()
    release_left()
    assert is_free(lock)


def test_a_handler_that_raises_in_a_loader_is_its_caller_s_alone() -> None:
    """The follower leads, and gets the value of its own load."""
    cache = NearCache.from_url("memory://")
    followed: list[object] = []
    follower = threading.Thread(target=lambda: followed.append(cache.get_or_set("k", lambda: "value")))

    with handled(plain) as send:

        def loader() -> str:
            follower.start()
            while not cache._core.flights._flying(("k", Purpose.VALUE)).followed:  # type: ignore[union-attr]
                time.sleep(0.001)
            send()
            return "too late"

        with pytest.raises(SoftTimeLimit):
            cache.get_or_set("k", loader)
    follower.join(5)
    assert followed == ["value"]
    cache.close()


def test_a_flight_that_was_not_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the very line that would have ended it; its exception, which refers to it, is kept."""
    cache = NearCache.from_url("memory://", lease=30)
    real = Flights.end
    interrupts = [KeyboardInterrupt()]

    def end(self: Flights, *args: Any) -> None:
        if interrupts:
            raise interrupts.pop()
        real(self, *args)

    monkeypatch.setattr(Flights, "end", end)
    with pytest.raises(KeyboardInterrupt) as kept:
        cache.get_or_set("k", lambda: 1)
    values: list[int] = []
    reader = threading.Thread(target=lambda: values.append(cache.get_or_set("k", lambda: 2)), daemon=True)
    reader.start()
    reader.join(5)
    assert values in ([1], [2])
    assert kept.value.__traceback__ is not None
    cache.close()


def test_a_time_limit_while_redis_hangs_reaches_the_caller(proxy: FaultProxy, namespace: str) -> None:
    """It is no failure of Redis, though it comes while Redis is waited for."""
    with NearCache.from_url(proxy.url, namespace=namespace, redis_timeout=1.5) as cache:
        assert cache.wait_healthy(5)
        cache.get("connected")
        proxy.hold("replies")
        main = threading.main_thread().ident or 0
        with handled(plain):
            for operation in (lambda: cache.get("a"), lambda: cache.get_or_set("b", lambda: 1)):
                timer = threading.Timer(TIMEOUT, signal.pthread_kill, [main, signal.SIGUSR1])
                timer.start()
                with pytest.raises(SoftTimeLimit):
                    operation()
                timer.join()
        proxy.heal()


def test_an_interrupt_while_the_bus_starts_makes_no_second_bus(
    server: EmbeddedServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come when the thread runs already, and nobody knows of it: the next use starts no other one."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", real)
        real(self)
        raise KeyboardInterrupt

    with NearCache.from_url(server.url, namespace="warm-" + namespace) as warm:
        warm.get("imports")
        before = set(threading.enumerate())
        cache = NearCache.from_url(server.url, namespace=namespace)
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            cache.get("a")
        assert cache.wait_healthy(5)
        bus = cache._bus.thread
        assert bus is not None
        for other in set(threading.enumerate()) - before - {bus}:
            other.join(5)
        assert set(threading.enumerate()) - before == {bus}
        cache.close()
        assert not bus.is_alive()


def interrupted_at(line: int, call: Callable[[], object], *names: str) -> bool:
    """Whether a call was interrupted before so many lines of these files were executed in this thread."""
    left, done = line, False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left, done
        if event == "line" and not done:
            left -= 1
            if left < 0:
                done = True
                raise SoftTimeLimit
        return trace if frame.f_code.co_filename.endswith(names) else None

    sys.settrace(trace)
    try:
        call()
    except SoftTimeLimit:
        return True
    finally:
        sys.settrace(None)
    return done


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("url", ["memory://", "redis://127.0.0.1:1"])
def test_an_interrupt_takes_no_permit_away(url: str) -> None:
    """Wherever it comes: of the threads for loads with a time limit, or of the loads while Redis is away."""
    limits: Any = {"loader_hard_timeout": 5} if url == "memory://" else {}
    files = ("runtime/threads.py", "runtime/latches.py", "engine/attempt.py", "engine/load.py", "local/loads.py")
    with NearCache.from_url(url, max_concurrent_loads=3, ttl=60, redis_timeout=0.05) as cache:
        of_threads, of_loads = cache._runtime._threads._free, cache._core.loads.permits._free  # type: ignore[attr-defined]
        line, interrupted = 0, True
        while interrupted:
            call = functools.partial(cache.get_or_set, f"key {line}", lambda: 1, **limits)
            interrupted = interrupted_at(line, call, *files)
            cache._runtime.drain(5)
            if of_threads.qsize() < 3:  # a thread that did not start refers to itself
                gc.collect()
            assert (of_threads.qsize(), of_loads.qsize()) == (3, 3), line
            line += 1
    assert line > 50
