"""The demo on a real server: it runs through, it notices when a worker ends, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nearcache.cli.demo.database import build
from nearcache.cli.demo.workers import DemoFailed, Workers
from nearcache.transport.embedded import EmbeddedServer

DEMO = [sys.executable, "-m", "nearcache.cli", "demo"]


def test_whole_demo() -> None:
    """`--json` prints one document and nothing else: all phases happened, every promise was kept, exit code 0."""
    ended = subprocess.run(
        [*DEMO, "--json", "--duration", "4", "--workers", "2"], capture_output=True, text=True, check=False
    )
    figures = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, figures["failures"], figures["ok"]) == (0, "", [], True)
    updates, outage, check = figures["updates"], figures["outage"], figures["check"]
    assert 0 < updates["drops"] <= updates["updates"]
    assert 0 < updates["p50_us"] <= updates["p99_us"] <= updates["max_us"]
    assert outage["invalidations_refused"] == outage["updates"] > 0
    assert outage["tiers"]["l1"]["answers"] > 0
    assert outage["tiers"]["database"]["answers"] > 0
    assert figures["recovery"]["l1_again_after_s"].keys() == {"1", "2"}
    assert check == {"answers": 400, "differences": 0, "control_found": 2}
    assert figures["versions"]["python"]


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C or SIGTERM while workers read: exit code 130, no process and no file left."""
    demos = [
        subprocess.Popen(
            [*DEMO, "--plain", "--duration", "20", "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            start_new_session=True,
        )
        for _ in range(2)
    ]
    for demo in demos:
        assert demo.stdout is not None
        while "worker healthy" not in demo.stdout.readline():
            assert demo.poll() is None
    os.killpg(demos[0].pid, signal.SIGINT)  # to every process, as a terminal does
    demos[1].send_signal(signal.SIGTERM)  # to one, as kill does
    for demo in demos:
        _, errors = demo.communicate()  # returns when every process with these pipes has ended
        assert demo.returncode == 130
        assert errors == "interrupted; the server, the workers and the database are removed\n"
    assert list(tmp_path.iterdir()) == []
    assert not [command for command in command_lines() if str(tmp_path) in command]  # the server's has its folder


def command_lines() -> Iterator[str]:
    """Of every process that runs, where there is /proc."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.read_text(errors="replace")


def test_ended_and_failing_workers_are_noticed(tmp_path: Path) -> None:
    """A worker that fails stops the demo with its error, one that is killed with its exit code."""
    build(tmp_path / "shop.db", seed=1)
    with EmbeddedServer() as server, closing(Workers(2, server.url, tmp_path / "shop.db", 1, 1.0)) as workers:
        workers.ask(workers, "stream", True)
        with pytest.raises(DemoFailed, match=r"(?s)worker 1 failed.*LookupError.*category 0"):
            workers.ask(workers[:1], "reports", [0])
        workers.pop(0).process.join()
        os.kill(workers[0].process.pid or 0, signal.SIGKILL)
        with pytest.raises(DemoFailed, match="worker 2 ended: exit code -9"):
            workers.ask(workers, "stream", False)
