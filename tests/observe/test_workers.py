"""Real workers: a scrape of any of them has the sum over all, in prometheus-client's multiprocess mode."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support.waiting import wait_until
from tests.support.web import answer_of, served

pytestmark = pytest.mark.one_server
"""It is the workers that differ here, not the servers."""

WORKERS = 4
BURST = 100
KEYS = 20

WSGI = """
import os
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from nearcache import NearCache
from nearcache.observe.prometheus import register

cache = NearCache.from_env()
register(cache)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        key = environ["PATH_INFO"].strip("/")
        cache.get_or_set(key, lambda: "loaded")
        cache.get(key)
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
CONFIG = """
from prometheus_client import multiprocess

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""
ASGI = """
import os
from nearcache import AsyncNearCache
from nearcache.observe.prometheus import metrics_app, register

cache = AsyncNearCache.from_env()
end, metrics = register(cache), metrics_app(cache)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        end()
        await cache.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async def load():
        return "loaded"
    if scope["path"] == "/metrics":
        return await metrics(scope, receive, send)
    key = scope["path"].strip("/")
    await cache.get_or_set(key, load)
    await cache.get(key)
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

GUNICORN = ["gunicorn", "--workers", str(WORKERS), "--config", "configuration.py", "--no-control-socket"]
COMMANDS = {
    "gunicorn": [*GUNICORN, "--bind", f"{HOST}:PORT", "wsgi:app"],
    "gunicorn --preload": [*GUNICORN, "--preload", "--bind", f"{HOST}:PORT", "wsgi:app"],
    "uvicorn": ["uvicorn", "--workers", str(WORKERS), "--host", HOST, "--port", "PORT", "asgi:app"],
}


@pytest.fixture(params=COMMANDS)
def url(request: pytest.FixtureRequest, server: EmbeddedServer, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The address of an application with four workers."""
    for name, text in {"wsgi": WSGI, "asgi": ASGI, "configuration": CONFIG}.items():
        (tmp_path / f"{name}.py").write_text(text)
    files = tmp_path / "metrics"
    files.mkdir()
    environ = {
        "NEARCACHE_URL": server.url,
        "NEARCACHE_NAMESPACE": namespace,
        "PROMETHEUS_MULTIPROC_DIR": str(files),
    }
    with served(["-m", *COMMANDS[request.param]], tmp_path, environ, "/metrics") as address:
        yield address
    # prometheus-client reads the file of another worker that is just making it, and that scrape fails: nothing of ours.
    told = (tmp_path / "log").read_text()
    assert told.count("Traceback") == told.count("struct.error: unpack_from requires a buffer"), told


def sums(url: str) -> dict[str, float]:
    """What one scrape has: the sums by name and result."""
    found: dict[str, float] = {}
    status, text = answer_of(f"{url}/metrics")
    for family in text_string_to_metric_families(text if status == 200 else ""):
        for sample in family.samples:
            name = f"{sample.name} {sample.labels.get('result', '')}".strip()
            found[name] = found.get(name, 0) + sample.value
    return found


def gets(url: str) -> dict[str, float]:
    """The gets of a scrape, by result."""
    return {name.split()[-1]: value for name, value in sums(url).items() if name.startswith("nearcache_gets_total ")}


def test_the_sums_of_a_scrape_equal_the_load(url: str, namespace: str) -> None:
    """Each request reads a key twice: so many gets there are, whoever answered; a worker that ends takes none along."""
    workers: list[str] = []

    def send(number: int) -> None:
        status = 0
        while status != 200:  # refused while the workers start
            status, worker = answer_of(f"{url}/key-{number % KEYS}")
        workers.append(worker)

    def everyone() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(BURST)))
        return len(set(workers)) == WORKERS

    wait_until(everyone)
    wait_until(lambda: sum(gets(url).values()) == 2 * len(workers))
    now = sums(url)
    assert now["nearcache_loads_total"] >= KEYS
    assert all(now[f"nearcache_gets_total {result}"] for result in ("l1_hit", "l2_hit", "miss"))
    wait_until(lambda: sums(url).get("nearcache_healthy") == 1)

    send(1)
    os.kill(int(workers[-1]), signal.SIGTERM)  # its counts of the last second are written as it ends
    wait_until(lambda: sum(gets(url).values()) == 2 * len(workers))
