"""Servers with several workers, each of which imports the application: coherent with each other, and ended well."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support.waiting import wait_until
from tests.support.web import asked, served

WSGI = """
import json, os, time
from nearcache import NearCache

cache = NearCache.from_env()

def app(environ, start_response):
    key = environ["PATH_INFO"].strip("/")
    value = cache.get_or_set(key, lambda: "loaded")
    time.sleep(0.02)  # so that the next request finds another worker, or another thread
    body = json.dumps([os.getpid(), value, cache.wait_healthy(5)]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import asyncio, os
from fastapi import FastAPI
from nearcache import AsyncNearCache
from nearcache.integrations.fastapi import lifespan

cache = AsyncNearCache.from_env()
app = FastAPI(lifespan=lifespan(cache))

async def load():
    return "loaded"

@app.get("/{key}")
async def read(key: str):
    value = await cache.get_or_set(key, load)
    await asyncio.sleep(0.02)
    return [os.getpid(), value, await cache.wait_healthy(5)]
"""

GUNICORN = ["gunicorn", "--workers", "2", "--no-control-socket"]
SERVERS = {
    "gunicorn sync": (WSGI, [*GUNICORN, "--worker-class", "sync"]),
    "gunicorn gthread": (WSGI, [*GUNICORN, "--worker-class", "gthread", "--threads", "4"]),
    "gunicorn gthread, preloaded": (WSGI, [*GUNICORN, "--worker-class", "gthread", "--threads", "4", "--preload"]),
    "gunicorn gevent": (WSGI, [*GUNICORN, "--worker-class", "gevent"]),
    "uvicorn": (ASGI, ["uvicorn", "--workers", "2"]),
}


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, valkey: EmbeddedServer, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The address of an application that says nothing bad."""
    code, options = SERVERS[request.param]
    (tmp_path / "application.py").write_text(code)
    where = ["--bind", f"{HOST}:PORT"] if "gunicorn" in options else ["--host", HOST, "--port", "PORT"]
    near = {"NEARCACHE_URL": valkey.url, "NEARCACHE_NAMESPACE": namespace, "NEARCACHE_REDIS_TIMEOUT": "2"}
    with served(["-m", *options, *where, "application:app"], tmp_path, near, "/warm") as address:
        yield address
    log = (tmp_path / "log").read_text()
    for bad in ("Traceback", "WORKER TIMEOUT", "NearCacheWarning"):
        assert bad not in log, log


def test_workers_see_what_others_write(url: str, cache: NearCache) -> None:
    """Each has an L1 that is proven, and drops what another process has changed."""
    found: dict[int, Any] = {}

    def ask_all() -> list[Any]:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(asked, [f"{url}/a"] * 8))
        assert all(healthy for _, _, healthy in answers)
        found.update((worker, value) for worker, value, _ in answers)
        return [value for _, value, _ in answers]

    def all_have(value: object) -> bool:
        return set(ask_all()) == {value} == set(found.values()) and len(found) == 2

    wait_until(partial(all_have, "loaded"))
    for turn in range(3):
        found.clear()
        assert cache.set("a", turn)
        wait_until(partial(all_have, turn))
