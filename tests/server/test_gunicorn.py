"""gunicorn with --preload: one cache made at import, four workers forked with it, each with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support.waiting import wait_until
from tests.support.web import asked, served

pytestmark = pytest.mark.one_server
"""It is the processes that differ here, not the servers."""

WORKERS = 4

APP = """
import json, os, time
from urllib.parse import parse_qs
from nearcache import NearCache

cache = NearCache.from_env()
cache.set("made", "at import")  # the bus runs before gunicorn forks

def app(environ, start_response):
    wanted = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "set" in wanted:
        answer = cache.set(wanted["set"], wanted["value"])
    else:
        answer = cache.get_or_set(wanted["get"], lambda: "loaded")
    time.sleep(0.02)  # so that the next request finds another worker
    body = json.dumps([os.getpid(), answer, cache.wait_healthy(5)]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def url(server: EmbeddedServer, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The address of an application that says nothing bad."""
    (tmp_path / "application.py").write_text(APP)
    options = ["--preload", "--workers", str(WORKERS), "--bind", f"{HOST}:PORT", "--no-control-socket"]
    near = {"NEARCACHE_URL": server.url, "NEARCACHE_NAMESPACE": namespace}
    with served(
        ["-W", "error", "-m", "gunicorn", *options, "application:app"], tmp_path, near, "/?get=made"
    ) as address:
        yield f"{address}/"
    for bad in ("Traceback", "WORKER TIMEOUT"):
        assert bad not in (tmp_path / "log").read_text()


def all_workers(url: str) -> dict[int, Any]:
    """What each of the workers answers."""
    answers: dict[int, Any] = {}

    def ask(_number: int) -> None:
        worker, answer, healthy = asked(url)
        assert healthy
        answers[worker] = answer

    def everyone() -> bool:
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            list(pool.map(ask, range(2 * WORKERS)))
        return len(answers) == WORKERS

    wait_until(everyone)
    return answers


def all_have(url: str, value: str) -> bool:
    """Whether each of them answers this."""
    return set(all_workers(url).values()) == {value}


def test_workers_are_coherent_with_each_other(url: str) -> None:
    """Each of the four has an L1 that is proven; what one writes, all have; nobody dies of it."""
    first = all_workers(f"{url}?get=made")
    assert set(first.values()) == {"at import"}
    for turn in range(5):
        _, acknowledged, _ = asked(f"{url}?set=made&value={turn}")
        assert acknowledged is True
        wait_until(partial(all_have, f"{url}?get=made", str(turn)))
    assert set(all_workers(f"{url}?get=new").values()) == {"loaded"}
    assert set(all_workers(f"{url}?get=made")) == set(first)
