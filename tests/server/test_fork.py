"""After a fork the child has a cache of its own behind the same object; the tests' own process is never forked."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from nearcache.remote.embedded import EmbeddedServer

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


@pytest.mark.parametrize(
    ("script", "said"), [(THREADS, "True True True [0, 0, 0]"), (TASKS, "True [0, 0]")], ids=["sync", "aio"]
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
