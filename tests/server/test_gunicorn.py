"""gunicorn with --preload: one cache made at import, four workers forked with it, each with a cache of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from nearcache.transport.embedded import HOST, EmbeddedServer, free_port

pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)
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
    """The address of an application whose master ends well, with its workers, and says nothing bad."""
    (tmp_path / "application.py").write_text(APP)
    port = free_port()
    options = ["--preload", "--workers", str(WORKERS), "--bind", f"{HOST}:{port}", "--chdir", str(tmp_path)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        master = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "gunicorn", *options, "--no-control-socket", "application:app"],
            env={**os.environ, "NEARCACHE_URL": server.url, "NEARCACHE_NAMESPACE": namespace},
            stdout=output,
            stderr=output,
        )
        try:
            eventually(lambda: asked(f"http://{HOST}:{port}/?get=made"))
            yield f"http://{HOST}:{port}/"
            assert master.poll() is None
            master.send_signal(signal.SIGTERM)
            assert master.wait(20) == 0, log.read_text()
        finally:
            master.kill()
            master.wait()
    assert "Traceback" not in log.read_text()
    assert "WORKER TIMEOUT" not in log.read_text()


def asked(url: str) -> Any:
    """What the application answers; None as long as it does not."""
    try:
        with urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (URLError, ConnectionError):
        return None


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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

    eventually(everyone)
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
        eventually(partial(all_have, f"{url}?get=made", str(turn)))
    assert set(all_workers(f"{url}?get=new").values()) == {"loaded"}
    assert set(all_workers(f"{url}?get=made")) == set(first)
