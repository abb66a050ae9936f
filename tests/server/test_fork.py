"""After a fork the child has a cache of its own behind the same object; the tests' own process is never forked."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from nearcache.transport.embedded import EmbeddedServer

pytestmark = pytest.mark.one_server
"""It is the processes that differ here, not the servers."""

THREADS = """
    import os, sys
    from nearcache import NearCache

    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], ttl=60)
    cache.set_many({f"k{i}": i for i in range(50)})

    def right():
        return all(cache.get(f"k{i}") == i for _ in range(20) for i in range(50) if i or cache.clear_local() is None)

    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            mine = f"child-{number}"
            good = right() and cache.wait_healthy(5) and cache.set(mine, number) and cache.peek(mine) == number
            cache.close()
            os._exit(0 if good else 1)
        children.append(child)
    good = right()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(good, right(), cache.wait_healthy(5), codes)
    cache.close()
"""

TASKS = """
    import asyncio, os, sys
    from nearcache import AsyncNearCache

    cache = AsyncNearCache.from_url(sys.argv[1], namespace=sys.argv[2], ttl=60)

    async def right():
        await cache.set_many({f"k{i}": i for i in range(50)})
        good = [await cache.get(f"k{i}") == i for i in range(50)]
        healthy = await cache.wait_healthy(5)
        await cache.close()
        return all(good) and healthy

    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            os._exit(0 if asyncio.run(right()) else 1)
        children.append(child)
    good = asyncio.run(right())
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(good, codes)
"""

IN_THE_MIDDLE = """
    import os, signal, sys, threading, time
    from nearcache import NearCache

    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], max_connections=4, redis_timeout=1)
    stop = threading.Event()

    def work(number):
        turn = 0
        while not stop.is_set():
            turn += 1
            cache.set(f"w:{number}", turn, tags=["t"])
            cache.get_or_set(f"l:{number}:{turn % 50}", lambda: turn)
            cache.get_many([f"l:{number}:{other}" for other in range(50)])
            cache.delete(f"l:{number}:{turn % 7}")
            cache.invalidate_tags("t")

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    cache.wait_healthy(5)
    codes = []
    for number in range(20):
        time.sleep(0.01)
        child = os.fork()
        if not child:
            signal.alarm(20)  # a child that hangs is killed, and its code is not 0
            good = all(
                cache.set(f"c:{turn}", turn) and cache.get(f"c:{turn}") == turn
                and cache.get_or_set(f"d:{number}:{turn}", lambda: turn) == turn
                for turn in range(50)
            )
            cache.close()
            os._exit(0 if good else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join(10)
    print(codes == [0] * 20 or codes, cache.wait_healthy(5), cache.set("a", 1))
    cache.close()
"""

CHILDREN_THAT_END = """
    import os, sys, time
    from nearcache import NearCache

    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2], max_staleness=20)
    events = []
    cache.wait_healthy(5)
    cache.set("a", 1)
    stop = cache.on_event(events.append)
    children = []
    for number in range(3):
        child = os.fork()
        if not child:  # without close: by its last reference, or by the end of the interpreter, used or not
            stop()
            if number:
                cache.set("b", number)
            if number == 2:
                del cache
            sys.exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    time.sleep(0.1)
    print(codes, events, cache.set("c", 1), cache.healthy)
    cache.close()
"""

IN_A_LOADER = """
    import os, signal, sys
    from nearcache import NearCache

    cache = NearCache.from_url(sys.argv[1], namespace=sys.argv[2])
    cache.wait_healthy(5)
    codes = []

    def load():
        child = os.fork()
        if not child:
            signal.alarm(20)
            return "child"  # into a flow that began in the parent: its lease and its connection are not the child's
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return "parent"

    value = cache.get_or_set("a", load)
    if value == "child":
        good = all(cache.set("b", turn) and cache.get("b") == turn for turn in range(50))
        cache.close()
        os._exit(0 if good else 1)
    cache.clear_local()
    print(codes, value, cache.set("c", 1), cache.get("a"))
    cache.close()
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (THREADS, "True True True [0, 0, 0]"),
        (TASKS, "True [0, 0]"),
        (IN_THE_MIDDLE, "True True True"),
        (IN_A_LOADER, "[0] parent True parent"),
        (CHILDREN_THAT_END, "[0, 0, 0] [] True True"),
    ],
    ids=["sync", "aio", "threads in the middle", "in a loader", "children that end"],
)
def test_parent_and_children_go_on(server: EmbeddedServer, namespace: str, script: str, said: str) -> None:
    """No reply reaches the wrong process, every L1 is proven, and a child's close leaves the parent alone."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), server.url, namespace],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == said, done.stderr
