"""What docs/operations.md says of events and connections is true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from nearcache import events
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, until

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_every_event_is_explained() -> None:
    """A row of each."""
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert {kind.__name__ for kind in events.Event.__subclasses__()} <= rows


def test_the_rate_limiter(server: EmbeddedServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands there: so many requests in a window, and open without Redis."""
    monkeypatch.setenv("NEARCACHE_URL", server.url)
    monkeypatch.setenv("NEARCACHE_NAMESPACE", namespace)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    (text,) = re.findall(r"## A rate limiter.*?```python\n(.*?)```", PAGE, re.DOTALL)
    there: dict[str, Any] = {}
    exec(text, there)  # an example of the docs
    with there["cache"]:
        assert [there["allowed"]("ada", limit=2) for _ in range(3)] == [True, True, False]
        assert there["allowed"]("bob", limit=2)
        monkeypatch.setattr("time.time", lambda: 1_000_060.0)
        assert there["allowed"]("ada", limit=2)
    monkeypatch.setenv("NEARCACHE_URL", f"redis://{HOST}:{free_port()}/0")
    exec(text, there)  # as above
    with there["cache"]:
        assert there["allowed"]("ada", limit=0)


async def test_the_sum_of_connections(make_cache: MakeCache) -> None:
    """The bus, and one for each thread that asks at the same time, up to max_connections; two for asyncio."""
    cache = make_cache(max_connections=3)
    with redis_of(cache.url) as client:

        def connections() -> int:
            return len(client.client_list())

        before = connections()
        async with cache:
            await asyncio.gather(*(cache.get(f"k{number}") for number in range(64)))
            own = connections() - before
            assert own == 2 if cache.mode == "aio" else 2 <= own <= 1 + 3
        await until(lambda: connections() == before)
