"""How a cache ends that nobody closed: with its process, its loop or its last reference; and what interrupts it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest

from nearcache import AsyncNearCache, NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import redis_of, until, wait_until

pytestmark = pytest.mark.one_server
"""It is the processes that differ here, not the servers."""


def run(script: str, *args: str) -> tuple[str, str, int]:
    """What a script printed, what it said on stderr, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


NEVER_CLOSED = """
    import sys, time
    from nearcache import NearCache
    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2])
    assert cache.set("a", 1) and cache.wait_healthy(5) and cache.get_or_set("b", lambda: 2) == 2
    print(time.time())
"""

THREADS_IN_THE_MIDDLE = """
    import sys, threading, time
    from nearcache import NearCache
    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2])
    go = threading.Barrier(9)
    def work(number):
        go.wait()
        while True:
            cache.get_or_set(f"a:{number}:{time.monotonic()}", lambda: 1)
            cache.set(f"b:{number}", 1)
    for number in range(8):
        threading.Thread(target=work, args=[number], daemon=True).start()
    go.wait()
    time.sleep(0.2)
    print(time.time())
"""

LOOP_ENDED = """
    import asyncio, gc, sys, time
    from nearcache import AsyncNearCache
    async def main():
        global cache
        cache = AsyncNearCache.from_url(sys.argv[1], namespace=sys.argv[2])
        assert await cache.set("a", 1) and await cache.wait_healthy(5)
        assert await cache.get_or_set("b", load) == 2
    async def load():
        return 2
    asyncio.run(main())
    del cache
    gc.collect()
    print(time.time())
"""

TASKS_IN_THE_MIDDLE = """
    import asyncio, sys, time
    from nearcache import AsyncNearCache
    async def main():
        cache = AsyncNearCache.from_url(sys.argv[1], namespace=sys.argv[2])
        async def load():
            await asyncio.sleep(0.001)
            return 1
        async def work(number):
            while True:
                await cache.get_or_set(f"a:{number}:{time.monotonic()}", load)
                await cache.set(f"b:{number}", 1)
        tasks = [asyncio.create_task(work(number)) for number in range(20)]
        await asyncio.sleep(0.2)
    asyncio.run(main())
    print(time.time())
"""

DROPPED_AND_ENDED = """
    import sys, time
    from nearcache import NearCache
    for number in range(5):
        NearCache.from_url(sys.argv[1], namespace=sys.argv[2]).set("a", number)
    print(time.time())
"""


@pytest.mark.parametrize(
    "script",
    [NEVER_CLOSED, THREADS_IN_THE_MIDDLE, LOOP_ENDED, TASKS_IN_THE_MIDDLE, DROPPED_AND_ENDED],
    ids=["never closed", "threads in the middle", "loop ended", "tasks in the middle", "dropped"],
)
def test_a_process_that_never_closes_ends_at_once(server: EmbeddedServer, namespace: str, script: str) -> None:
    """Exit code 0, promptly, and not a word on stderr, with every warning on."""
    said, complaint, code = run(script, server.url, namespace)
    assert (complaint, code) == ("", 0)
    assert time.time() - float(said) < 5


def threads_of_ours() -> list[threading.Thread]:
    """Those that a cache made."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("nearcache")]


async def test_a_dropped_cache_leaves_nothing_behind(server: EmbeddedServer, namespace: str) -> None:
    """No thread, no connection, no cache: with the last reference everything goes."""
    with redis_of(server.url) as client:
        before = {one["id"] for one in client.client_list()}
        cache = NearCache.from_url(server.url, namespace=namespace)
        assert cache.set("a", 1)
        assert cache.wait_healthy(5)
        gone = weakref.ref(cache), weakref.ref(cache._tier)
        del cache
        gc.collect()
        assert gone[0]() is None
        await until(lambda: not threads_of_ours())
        await until(lambda: not {one["id"] for one in client.client_list()} - before)
        await until(lambda: gc.collect() is not None and gone[1]() is None)


async def test_a_dropped_async_cache_leaves_nothing_behind(server: EmbeddedServer, namespace: str) -> None:
    """The same: its task ends while the loop goes on."""
    with redis_of(server.url) as client:
        before = {one["id"] for one in client.client_list()}
        cache = AsyncNearCache.from_url(server.url, namespace=namespace)
        assert await cache.set("a", 1)
        assert await cache.wait_healthy(5)
        del cache
        gc.collect()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await until(lambda: not {one["id"] for one in client.client_list()} - before)


@pytest.mark.parametrize("user", ["", "deaf:pa55@"], ids=["with a bus", "whose bus is refused"])
def test_a_loop_that_ended_leaves_no_connection(server: EmbeddedServer, namespace: str, user: str) -> None:
    """Though somebody still has the cache."""
    kept: list[AsyncNearCache] = []

    async def main() -> None:
        kept.append(AsyncNearCache.from_url(server.url.replace("//", f"//{user}"), namespace=namespace))
        assert await kept[0].get("a") is None
        assert kept[0].stats().l2_errors == 0

    with redis_of(server.url) as client:
        client.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">pa55", "~*", "+@all")
        before = {one["id"] for one in client.client_list()}
        asyncio.run(main())
        wait_until(lambda: {one["id"] for one in client.client_list()} <= before)
    assert kept


async def test_a_dropped_cache_whose_server_is_away(namespace: str) -> None:
    """Its thread waits for the next attempt, or connects: it ends all the same."""
    NearCache.from_url("redis://127.0.0.1:1/0", namespace=namespace).get("a")
    gc.collect()
    await until(lambda: not threads_of_ours())


def test_a_cache_dropped_in_the_middle_of_its_bus(server: EmbeddedServer, namespace: str) -> None:
    """A callback on the bus's own thread may drop the last reference."""
    holder: list[Any] = [NearCache.from_url(server.url, namespace=namespace)]
    dropped = threading.Event()

    def drop(_event: object) -> None:
        holder.clear()
        gc.collect()
        dropped.set()

    holder[0].on_event(drop)
    holder[0].get("a")
    assert dropped.wait(5)
    wait_until(lambda: not threads_of_ours())


EMBEDDED = """
    import gc, os
    from nearcache import NearCache
    cache = NearCache.from_url("embedded://")
    cache.set("a", 1)
    server = cache._backend.server
    del cache
    gc.collect()
    print(server.running)
"""


def test_a_dropped_cache_stops_its_own_server() -> None:
    """`embedded://` starts a server for one cache."""
    assert run(EMBEDDED) == ("False\n", "", 0)


SIGNALS = """
    import random, signal, sys, threading, time
    from nearcache import NearCache
    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], max_connections=4, redis_timeout=1)
    cache.set("a", 1)
    handled = 0
    def handler(*_):
        global handled
        handled += 1
        cache.get("a"); cache.get(f"x{handled % 7}"); cache.set(f"x{handled % 5}", handled)
        cache.get_or_set(f"y{handled % 3}", lambda: handled)
        cache.delete("y1")
    signal.signal(signal.SIGALRM, handler)
    until = time.monotonic() + 30
    while handled < 400 and time.monotonic() < until:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.002))
        cache.set("a", 1); cache.get_or_set("y1", lambda: 2); cache.get("x2"); cache.delete("x1")
        cache.get_many(["a", "b"])
    signal.setitimer(signal.ITIMER_REAL, 0)
    core = cache._core
    print(handled >= 400, len(core.flights), len(core.waiters), core.remote.transport._permits.qsize())
    cache.close()
"""


def test_a_signal_handler_may_use_the_cache(server: EmbeddedServer, namespace: str) -> None:
    """Whatever its thread is in the middle of: no lock is waited for by the one who has it."""
    assert run(SIGNALS, server.url, namespace) == ("True 0 0 4\n", "", 0)


def test_a_signal_may_come_while_the_bus_starts(server: EmbeddedServer, namespace: str) -> None:
    """Its handler uses the cache on the thread that is just starting it."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:

        def interrupted() -> None:
            with cache._bus.starting:
                cache._bus.thread, thread = None, cache._bus.thread
                done.append(cache.get("a"))
                cache._bus.thread = thread

        done: list[object] = []
        thread = threading.Thread(target=interrupted, daemon=True)
        thread.start()
        thread.join(10)
        assert done == [None]


INTERRUPTED = """
    import faulthandler, random, signal, sys, threading, time
    from nearcache import NearCache
    faulthandler.dump_traceback_later(40, exit=True)
    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], max_connections=4, redis_timeout=0.3, lease=0.5,
                               wait_timeout=0.2)
    interrupted = 0
    until = time.monotonic() + 20
    while interrupted < 400 and time.monotonic() < until:
        try:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00002, 0.0015))
            for _ in range(100):  # one that came in a destructor is lost
                cache.set("a", 1); cache.get_or_set(f"y{random.randrange(5)}", lambda: 2); cache.get("x2")
                cache.delete("y1", "y2"); cache.get_many(["a", "b"]); cache.clear_local()
        except KeyboardInterrupt:
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    done = []
    def use(mine):
        for number in range(30):
            until = time.monotonic() + 8  # a timeout on a busy machine opens the breaker for a second
            while not (cache.set(mine, number) and cache.get(mine) == number):
                assert time.monotonic() < until, "writes do not work any more"
                time.sleep(0.05)
            for key in range(5):
                assert cache.get_or_set(f"y{key}", lambda: 2) == 2
        done.append(cache.wait_healthy(5))
    threads = [threading.Thread(target=use, args=[f"own:{number}"], daemon=True) for number in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(20)
    print(interrupted >= 400, done, cache._core.remote.transport._permits.qsize(), threading.active_count())
    cache.close()
"""


def test_an_interruption_at_any_point_leaves_no_lock_held(server: EmbeddedServer, namespace: str) -> None:
    """Hundreds of KeyboardInterrupts at random points; then other threads go on as if nothing had been."""
    said, complaint, code = run(INTERRUPTED, server.url, namespace)
    assert (said, code) == (f"True {[True] * 8} 4 2\n", 0), complaint


AT_THE_END = """
    import atexit, builtins, faulthandler, sys
    from nearcache import NearCache
    faulthandler.dump_traceback_later(20, exit=True)
    operations = {
        "get": lambda cache: cache.get("a", "nothing"),
        "set": lambda cache: cache.set("a", 1) in (True, False),
        "load": lambda cache: cache.get_or_set("b", lambda: 7, loader_hard_timeout=1.0),
    }
    caches = {
        name: NearCache.from_url(sys.argv[1], namespace=sys.argv[2] + name, redis_timeout=0.3) for name in operations
    }
    def act():
        for name, operation in operations.items():
            print(name, operation(caches[name]))
    class Last:
        def __del__(self):
            act()
    if sys.argv[3] == "atexit":
        atexit.register(act)
    else:
        builtins.kept_to_the_end = Last()
"""


@pytest.mark.parametrize("when", ["atexit", "finaliser"])
def test_the_first_use_at_the_end_of_the_interpreter(server: EmbeddedServer, namespace: str, when: str) -> None:
    """No thread can be started any more: nothing waits for one, and a loader runs without its time limit."""
    said = "get nothing\nset True\nload 7\n"
    assert run(AT_THE_END, server.url, namespace, when) == (said, "", 0)
