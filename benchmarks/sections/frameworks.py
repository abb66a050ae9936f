"""Applications of each framework under load, with several workers, rows that change, and a server that is killed.

Each answers reads of a row by its cache, and writes a row to a database and then deletes it from the cache. A read that
begins more than max_staleness after a write was answered, and gives an older row, is stale. Beside each the framework's
usual cache does the same; what it loses is no fault of its own, since it promises less.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.sections import hits_of_django
from nearcache.testing import EmbeddedServer
from nearcache.transport.embedded import HOST, free_port
from tests.support.report import Report
from tests.support.tables import Table

WORKERS, READERS, ROWS = 3, 4, 150
MAX_STALENESS = 2.0
OURS = "nearcache"

_ROWS = """
import os, sqlite3

def row(id):
    with sqlite3.connect(os.environ["ROWS"], timeout=20) as database:
        (value,) = database.execute("SELECT value FROM row WHERE id = ?", (id,)).fetchone()
    database.close()
    return value

def write(id, value):
    with sqlite3.connect(os.environ["ROWS"], timeout=20) as database:
        database.execute("UPDATE row SET value = ? WHERE id = ?", (value, id))
    database.close()
"""

_DJANGO = """
from django.conf import settings
ours = {"BACKEND": "nearcache.integrations.django.NearCacheBackend", "OPTIONS": {"namespace": "load"}}
chosen = ours if os.environ["CACHE"] == "nearcache" else {"BACKEND": os.environ["CACHE"]}
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for the load",
                   CACHES={"default": {"LOCATION": os.environ["URL"], **chosen}})
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

def read(request, id):
    return HttpResponse(str(cache.get_or_set(f"row:{id}", lambda: row(id), 60)))

def change(request, id, value):
    write(id, value)
    cache.delete(f"row:{id}")
    return HttpResponse("done")

urlpatterns = [path("<int:id>", read), path("<int:id>/<int:value>", change)]
app = get_wsgi_application()
"""

_FLASK = """
from flask import Flask
app = Flask(__name__)
if os.environ["CACHE"] == "nearcache":
    from nearcache.integrations.flask import init_app
    app.config.update(NEARCACHE_URL=os.environ["URL"], NEARCACHE_NAMESPACE="load")
    cache = init_app(app)
    cached = cache.cached("row:{id}", ttl=60)(row)
    forget = cached.invalidate
else:
    from flask_caching import Cache
    cache = Cache(app, config={"CACHE_TYPE": os.environ["CACHE"], "CACHE_REDIS_URL": os.environ["URL"]})
    cached = cache.memoize(60)(row)
    forget = lambda id: cache.delete_memoized(row, id)

@app.get("/<int:id>")
def read(id):
    return str(cached(id))

@app.get("/<int:id>/<int:value>")
def change(id, value):
    write(id, value)
    forget(id)
    return "done"
"""

_FASTAPI = """
from contextlib import asynccontextmanager
from fastapi import FastAPI

async def load(id):
    return row(id)

if os.environ["CACHE"] == "nearcache":
    from nearcache import AsyncNearCache
    from nearcache.integrations.fastapi import lifespan
    cache = AsyncNearCache.from_url(os.environ["URL"], namespace="load")
    app = FastAPI(lifespan=lifespan(cache))
    cached = cache.cached("row:{id}", ttl=60)(load)
else:
    from cashews import cache
    cache.setup(os.environ["URL"], client_side=True)
    app = FastAPI()
    cached = cache(ttl=60, key="row:{id}")(load)

@app.get("/{id}")
async def read(id: int):
    return await cached(id)

@app.get("/{id}/{value}")
async def change(id: int, value: int):
    write(id, value)
    await cache.delete(f"row:{id}")
    return "done"
"""

_GUNICORN = ["gunicorn", "--workers", str(WORKERS), "--threads", "4", "--no-control-socket"]
_UVICORN = ["uvicorn", "--workers", str(WORKERS), "--log-level", "critical"]
_OF_DJANGO, _DJANGO_REDIS = "django.core.cache.backends.redis.RedisCache", "django_redis.cache.RedisCache"
APPLICATIONS = {
    "Django": (_DJANGO, _GUNICORN, (OURS, _OF_DJANGO, _DJANGO_REDIS)),
    "Flask": (_FLASK, _GUNICORN, (OURS, "RedisCache")),
    "FastAPI": (_FASTAPI, _UVICORN, (OURS, "cashews")),
}
_SHORT = {_OF_DJANGO: "RedisCache", _DJANGO_REDIS: "django-redis"}
NEEDS = {"cashews": "cashews", _DJANGO_REDIS: "django_redis"}


@dataclass
class Seen:
    """What the clients have seen."""

    took: list[float] = field(default_factory=list)
    errors: int = 0
    stale: int = 0
    written: dict[int, list[tuple[float, int]]] = field(
        default_factory=lambda: {row: [(0.0, 0)] for row in range(ROWS)}
    )


def show(report: Report) -> bool:
    """Run each, print and keep; whether ours has no error and nothing stale."""
    seconds = 8.0 if report.quick else 20.0
    rows: list[list[str]] = []
    notes = [f"{WORKERS} workers, {READERS} clients, {ROWS} rows; the server is away for a fifth of {seconds:.0f} s."]
    held = True
    for framework, (code, server, caches) in APPLICATIONS.items():
        for cache in caches:
            if cache in NEEDS and importlib.util.find_spec(NEEDS[cache]) is None:
                notes.append(f"NOT RUN: {framework} with {cache}, which is not installed.")
                continue
            seen = _run(code, server, cache, seconds)
            held &= cache != OURS or not (seen.errors or seen.stale)
            p50, p99 = (f"{statistics.quantiles(seen.took, n=100)[at] * 1e3:.1f}" for at in (49, 98))
            counts = {"reads": len(seen.took), "errors": seen.errors, "stale": seen.stale}
            rows.append([framework, _SHORT.get(cache, cache), *(f"{count:,}" for count in counts.values()), p50, p99])
            report.keep(f"frameworks, {framework}, {cache}", counts)
    hits = hits_of_django.measure(5 if report.quick else 15)
    report.show(hits_of_django.table(hits))
    report.keep("frameworks, hits of Django", {label: vars(hits.ns(label)) for label in hits.rounds[0]})
    columns = ["", "cache", "reads", "errors", f"stale by over {MAX_STALENESS:.0f} s", "p50 ms", "p99 ms"]
    report.show(Table("Applications under load, while the server is killed and restarted", columns, rows, notes))
    return held


def _run(code: str, server: list[str], cache: str, seconds: float) -> Seen:
    with tempfile.TemporaryDirectory(prefix="nearcache-load-") as folder, EmbeddedServer() as redis:
        where = Path(folder)
        database = sqlite3.connect(where / "rows")
        with database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, value INTEGER)")
            database.executemany("INSERT INTO row VALUES (?, 0)", [(row,) for row in range(ROWS)])
        database.close()
        (where / "application.py").write_text(_ROWS + code)
        port = free_port()
        bind = ["--bind", f"{HOST}:{port}"] if "gunicorn" in server else ["--host", HOST, "--port", str(port)]
        with (where / "log").open("wb") as log:
            master = subprocess.Popen(
                [sys.executable, "-m", *server, *bind, "application:app"],
                cwd=folder,
                env={**os.environ, "URL": redis.url, "CACHE": cache, "ROWS": str(where / "rows")},
                stdout=log,
                stderr=log,
            )
            try:
                return _load(f"http://{HOST}:{port}", redis, seconds)
            finally:
                master.send_signal(signal.SIGTERM)
                try:
                    master.wait(20)
                except subprocess.TimeoutExpired:
                    master.kill()
                    master.wait()


def _load(url: str, redis: EmbeddedServer, seconds: float) -> Seen:
    deadline = time.monotonic() + 20
    while _asked(f"{url}/0") is None:
        if time.monotonic() > deadline:
            raise RuntimeError("the application does not answer")
        time.sleep(0.05)
    seen, end = Seen(), time.monotonic() + seconds
    clients: list[Callable[[], None]] = [lambda: _write(url, seen, end), *[lambda: _read(url, seen, end)] * READERS]
    threads = [threading.Thread(target=client) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(seconds * 0.3)
    redis.kill()
    time.sleep(seconds * 0.2)
    redis.restart()
    for thread in threads:
        thread.join()
    return seen


def _asked(url: str) -> str | None:
    try:
        with urlopen(url, timeout=20) as answer:
            return str(answer.read().decode())
    except (URLError, ConnectionError):
        return None


def _write(url: str, seen: Seen, end: float) -> None:
    value = 0
    while time.monotonic() < end:
        value += 1
        row = value % ROWS
        if _asked(f"{url}/{row}/{value}") is None:
            seen.errors += 1
        else:
            seen.written[row].append((time.monotonic(), value))
        time.sleep(0.02)


def _read(url: str, seen: Seen, end: float) -> None:
    number = 0
    while (began := time.monotonic()) < end:
        number += 1
        row = number % ROWS
        answer = _asked(f"{url}/{row}")
        if answer is None:
            seen.errors += 1
            continue
        seen.took.append(time.monotonic() - began)
        due = max((value for at, value in tuple(seen.written[row]) if at <= began - MAX_STALENESS), default=0)
        seen.stale += int(answer) < due
