"""The servers that tests run against: Valkey always, Debian's Redis where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from nearcache.transport.embedded import EmbeddedServer

REDIS = shutil.which("redis-server")

KINDS = ("valkey", "redis") if REDIS else ("valkey",)

RESP2_ONLY = {"rename-command": 'HELLO ""'}
"""Configuration of a server that can't be asked for RESP3."""

NOT_RUN = (
    "" if REDIS else "every test of a server on Redis: redis-server is not on the PATH (apt-get install redis-server)"
)
"""What is left out here, and why; told at the end of a run."""


def make(kind: str, config: Mapping[str, str] = {}, port: int | None = None) -> EmbeddedServer:
    """A server of one of KINDS, not yet started; use it in a `with`."""
    return EmbeddedServer(port=port, binary=REDIS if kind == "redis" else None, config=config)
