"""Two processes of different protocol versions in one namespace: the newcomer uses neither tier, and says so."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer

NEWCOMER = """
import asyncio, inspect, json, sys
from nearcache import AsyncNearCache, CoherenceFailed, NearCache
from nearcache.protocol import names

names.MAJOR = 9
kind, url, namespace = sys.argv[1:]
events, loads = [], []

async def value():
    loads.append(1)
    return "loaded"

async def main():
    make = AsyncNearCache if kind == "aio" else NearCache
    cache = make.from_url(url, namespace=namespace, reconnect_max=0.02)
    cache.on_event(events.append)
    done = lambda answer: answer if inspect.isawaitable(answer) else asyncio.sleep(0, answer)
    loader = value if kind == "aio" else lambda: loads.append(1) or "loaded"
    healthy = await done(cache.wait_healthy(0.5))
    read = [await done(cache.get("there")) for _ in range(2)]
    loaded = [await done(cache.get_or_set("there", loader)) for _ in range(3)]
    wrote = await done(cache.set("there", "foreign"))
    health = cache.health()
    failures = [event.reason for event in events if isinstance(event, CoherenceFailed)]
    entries = cache.stats().l1_entries
    await done(cache.close())
    print(json.dumps([healthy, read, loaded, len(loads), wrote, entries, health.status, health.bus, failures]))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_newcomer_of_another_protocol_uses_loaders_only(server: EmbeddedServer, namespace: str, kind: str) -> None:
    """CoherenceFailed once; nothing is read, filled, written or kept; the others in the namespace go on."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        assert cache.wait_healthy(5)
        assert cache.set("there", "kept") is True
        command = [sys.executable, "-c", NEWCOMER, kind, server.url, namespace]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        healthy, read, loaded, loads, wrote, entries, status, bus, failures = json.loads(done.stdout)
        assert healthy is False
        assert read == [None, None]
        assert (loaded, loads) == (["loaded"] * 3, 3)
        assert wrote is False
        assert entries == 0
        assert (status, bus) == ("down", "refused")
        (failure,) = failures
        assert "kept by protocol 2/1, this is 9/1" in failure
        assert cache.healthy
        assert cache.peek("there") == "kept"
        cache.clear_local()
        assert cache.get("there") == "kept"
