"""Celery's workers with a cache that was made and used at import: each pool, children that end, soft time limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer

TASKS = """
import os, time
from celery import Celery
from nearcache import NearCache

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(task_default_queue=os.environ["NEARCACHE_NAMESPACE"], worker_hijack_root_logger=False)
cache = NearCache.from_env(redis_timeout=2)
cache.set("made", "at import")  # the bus runs before the pool forks


@app.task
def read(key):
    return os.getpid(), cache.get_or_set(key, lambda: f"loaded {key}"), cache.wait_healthy(5)


@app.task
def write(key, value):
    return cache.set(key, value)


@app.task(soft_time_limit=0.5)
def hang(key):
    return cache.get_or_set(key, lambda: time.sleep(30))


@app.task
def load_after(key):
    began = time.monotonic()
    value = cache.get_or_set(key, lambda: "loaded")
    return value, time.monotonic() - began
"""


class Worker:
    """A worker, and a client of its queue."""

    def __init__(self, broker: str, queue: str) -> None:
        self.app = Celery("tasks", broker=broker, backend=broker)
        self.app.conf.task_default_queue = queue

    def send(self, task: str, *arguments: object) -> Any:
        """Send a task; the answer is had by ``get``."""
        return self.app.send_task(f"tasks.{task}", arguments)

    def ask(self, task: str, *arguments: object) -> Any:
        """Send a task, and wait for its answer."""
        return self.send(task, *arguments).get(timeout=30)


@contextmanager
def worker(valkey: EmbeddedServer, namespace: str, folder: Path, *options: str) -> Iterator[Worker]:
    """A worker that ends well and says nothing bad."""
    (folder / "tasks.py").write_text(TASKS)
    broker, log = f"redis://127.0.0.1:{valkey.port}/1", folder / "log"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--without-mingle", "--without-gossip"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--without-heartbeat", "--concurrency=2", *options],
            cwd=folder,
            env={**os.environ, "NEARCACHE_URL": valkey.url, "NEARCACHE_NAMESPACE": namespace, "BROKER": broker},
            stdout=output,
            stderr=output,
        )
        try:
            own = Worker(broker, namespace)
            yield own
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            own.app.close()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "NearCacheWarning" not in log.read_text(), log.read_text()


POOLS = {
    "prefork": ["--pool=prefork"],
    "prefork, children that end": ["--pool=prefork", "--max-tasks-per-child=5"],
    "threads": ["--pool=threads"],
    "gevent": ["--pool=gevent"],
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_is_coherent(
    pool: str, valkey: EmbeddedServer, namespace: str, cache: NearCache, tmp_path: Path
) -> None:
    """With what others write, and they with what it writes; each child has a cache that is proven."""
    with worker(valkey, namespace, tmp_path, *POOLS[pool]) as own:
        asked = [own.send("read", key) for key in ("made", *map(str, range(15)))]
        answers = [each.get(timeout=30) for each in asked]
        assert [value for _, value, _ in answers] == ["at import", *(f"loaded {number}" for number in range(15))]
        assert all(healthy for _, _, healthy in answers)
        children = {child for child, _, _ in answers}
        expected = {"prefork": range(1, 3), "prefork, children that end": range(3, 9)}.get(pool, range(1, 2))
        assert len(children) in expected
        for turn in range(2):
            assert cache.set("made", turn)
            deadline = time.monotonic() + 10
            while not all(own.ask("read", "made")[1] == turn for _ in range(2)):
                assert time.monotonic() < deadline
            assert own.ask("write", "made", f"by a task {turn}") is True
            while cache.get("made") != f"by a task {turn}":
                assert time.monotonic() < deadline


def test_a_soft_time_limit_ends_a_load(valkey: EmbeddedServer, namespace: str, tmp_path: Path) -> None:
    """Its exception reaches the task, and nobody waits for a load that has ended."""
    with worker(valkey, namespace, tmp_path, "--pool=prefork", "--loglevel=CRITICAL") as own:
        own.ask("read", "made")
        with pytest.raises(SoftTimeLimitExceeded):
            own.ask("hang", "a")
        value, took = own.ask("load_after", "a")
        assert value == "loaded"
        assert took < 5  # a lease is 10 s


def test_tasks_that_run_at_once(cache: NearCache) -> None:
    """Eager tasks, as an application's tests have them, run in their caller: with its cache, and inside its load."""
    app = Celery("eager")
    app.conf.update(task_always_eager=True, task_eager_propagates=True)

    def load_and_read(key: str) -> Any:
        return cache.get_or_set(key, lambda: f"loaded {key}")

    def load_and_fail(key: str) -> Any:
        return cache.get_or_set(key, lambda: {"there": 1}["absent"])

    def successor(number: int) -> int:
        return number + 1

    read, fail = app.task(load_and_read), app.task(soft_time_limit=5)(load_and_fail)
    cached = app.task(cache.cached("eager:{number}")(successor))
    try:
        assert read.delay("a").get() == "loaded a"
        assert cache.get_or_set("b", lambda: read.delay("a").get() + ", from a load") == "loaded a, from a load"
        assert cache.get_or_set("c", lambda: read.delay("c").get()) == "loaded c"  # the key that is being loaded
        with pytest.raises(KeyError, match="absent"):
            fail.delay("d")
        assert cached.delay(1).get() == cached.delay(1).get() == 2
        assert cache.delete("a") is True
        assert read.delay("a").get() == "loaded a"
    finally:
        app.close()
