"""The servers that tests run against: Valkey always, Debian's Redis where it is installed; with a false clock, too."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nearcache.transport.embedded import EmbeddedServer, find_binary

REDIS = shutil.which("redis-server")

KINDS = ("valkey", "redis") if REDIS else ("valkey",)

RESP2_ONLY = {"rename-command": 'HELLO ""'}
"""Configuration of a server that can't be asked for RESP3."""

NOT_RUN = (
    "" if REDIS else "every test of a server on Redis: redis-server is not on the PATH (apt-get install redis-server)"
)
"""What is left out here, and why; told at the end of a run."""

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
NO_FAKETIME = "libfaketime is not installed (apt-get install libfaketime)"


def make(kind: str, config: Mapping[str, str] = {}, port: int | None = None) -> EmbeddedServer:
    """A server of one of KINDS, not yet started; use it in a `with`."""
    return EmbeddedServer(port=port, binary=REDIS if kind == "redis" else None, config=config)


@contextmanager
def with_clock(kind: str, config: Mapping[str, str] = {}) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A running server whose clock follows a file: seconds that are added to the machine's, such as "-10".

    Its monotonic clock is the machine's. FAKETIME must not be None.

    Yields:
        The server, and the file.
    """
    assert FAKETIME is not None
    with TemporaryDirectory(prefix="nearcache-clock-") as folder:
        clock, program = Path(folder, "clock"), Path(folder, "server")
        clock.write_text("+0")
        told = {
            # Behind it the C library comes before the allocator that Debian's Redis brings, which asks for the time
            # before libfaketime is ready.
            "LD_PRELOAD": f"{FAKETIME} libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        binary = REDIS if kind == "redis" else find_binary()
        words = shlex.join(["env", *(f"{word}={value}" for word, value in told.items()), str(binary)])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o700)
        with EmbeddedServer(binary=str(program), config=config) as server:
            yield server, clock
