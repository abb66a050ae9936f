"""Applications behind a server of the web, in processes of their own: started, asked, and ended by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from nearcache.transport.embedded import HOST, free_port
from tests.support.waiting import wait_until

PATIENCE = 30.0


@contextmanager
def served(command: Sequence[str], folder: Path, environ: Mapping[str, str], ready: str) -> Iterator[str]:
    """The address of an application, whose master has to end well, with its workers.

    Args:
        command: words for the interpreter; PORT in them stands for a free port.
        folder: where the application is; the file "log" there gets what is printed.
        environ: what is added to the environment.
        ready: a path that is answered as soon as requests are.
    """
    port, log = str(free_port()), folder / "log"
    with log.open("wb") as output:
        master = subprocess.Popen(
            [sys.executable, *(word.replace("PORT", port) for word in command)],
            cwd=folder,
            env={**os.environ, **environ},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: answer_of(f"http://{HOST}:{port}{ready}")[0] == 200)
        yield f"http://{HOST}:{port}"
        assert master.poll() is None
        master.send_signal(signal.SIGTERM)
        assert master.wait(PATIENCE) in (0, -signal.SIGTERM), log.read_text()  # uvicorn ends by the signal that it got
    finally:
        master.kill()
        master.wait()


def answer_of(url: str) -> tuple[int, str]:
    """Status and body; 0 as long as nobody answers."""
    try:
        with urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:  # refused, ended, or not in time
        return 0, ""


def asked(url: str) -> Any:
    """The document that is answered; None as long as there is none."""
    status, body = answer_of(url)
    return json.loads(body) if status == 200 else None
