"""The demo for real: it runs through, it notices when something dies, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nearcache.cli.demo.run import Demo, Options, set_up
from nearcache.cli.demo.show import Silent
from nearcache.cli.demo.workers import DemoFailed

DEMO = [sys.executable, "-m", "nearcache.cli", "demo"]


def test_whole_show() -> None:
    """`--json` prints one document and nothing else: all phases happened, every promise was kept, exit code 0."""
    ended = subprocess.run(
        [*DEMO, "--json", "--duration", "6", "--workers", "3"], capture_output=True, text=True, check=False
    )
    figures = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, figures["failures"], figures["ok"]) == (0, "", [], True)
    assert figures["updates"]["drops"] == 2 * figures["updates"]["updates"] - figures["updates"]["dropped_early"] > 0
    assert 0 < figures["updates"]["p50_us"] <= figures["updates"]["p99_us"] <= figures["updates"]["max_us"]
    outage = figures["outage"]
    assert outage["invalidations_refused"] == outage["updates"] > 0
    assert outage["reads"]["answers"] > 0
    assert outage["reads"]["tiers"]["l1"]["answers"] > 0
    assert outage["reads"]["tiers"]["database"]["answers"] > 0
    assert outage["reads"]["tiers"]["l2"]["answers"] == 0
    assert figures["recovery"]["healthy_after_s"].keys() == {"1", "2", "3"}
    assert figures["recovery"]["l1_again_after_s"].keys() == {"1", "2", "3"}
    assert figures["check"]["compared"] == 600
    assert figures["check"]["differences"] == 0
    assert figures["check"]["control_caught"] == 3
    assert figures["versions"]["python"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C or SIGTERM in the middle of the show: exit code 130, no process and no file left."""
    demo = subprocess.Popen(
        [*DEMO, "--plain", "--duration", "20", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    with demo:
        assert demo.stdout is not None
        while "reading" not in demo.stdout.readline():
            assert demo.poll() is None
        os.killpg(demo.pid, how) if how is signal.SIGINT else demo.send_signal(how)  # as a terminal does, as kill does
        _, errors = demo.communicate()  # ends with the last process that has these pipes: the workers have them
    assert demo.returncode == 130
    assert errors == "interrupted; server, workers and database are gone\n"
    assert list(tmp_path.iterdir()) == []
    assert not [command for command in command_lines() if str(tmp_path) in command]  # so had the server its config


def command_lines() -> list[str]:
    """Of every process that runs, where there is /proc."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_text(errors="replace"))
    return found


@pytest.fixture
def demo() -> Iterator[Demo]:
    """Two workers, ready."""
    with set_up(Options(duration=8, workers=2), Silent(), {}) as ready:
        yield ready


def test_dead_worker_is_noticed(demo: Demo) -> None:
    """A worker that is killed ends the demo with an error that names it."""
    os.kill(demo.workers.pids[1], signal.SIGKILL)
    with pytest.raises(DemoFailed, match=r"worker 2 .* exit code -9"):
        demo.workers.ask([1], "status")


def test_failing_worker_is_noticed(demo: Demo) -> None:
    """An error in a worker ends the demo with the worker's number and the error."""
    with pytest.raises(DemoFailed, match=r"(?s)worker 1 failed.*LookupError.*category 0"):
        demo.workers.ask([0], "answers", [0])
