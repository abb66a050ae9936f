"""The endpoints of docs/operations.md run as they stand there; readiness depends on Redis only if asked to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nearcache.testing import FaultProxy
from nearcache.transport.embedded import HOST
from tests.support.waiting import wait_until
from tests.support.web import answer_of, served

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
EXAMPLES = {
    text.split(".")[0]: f"# {text}" for text in re.findall(r"```python\n# ((?:wsgi|asgi)\.py.*?)```", PAGE, re.DOTALL)
}
COMMANDS = {
    "wsgi": ["gunicorn", "--bind", f"{HOST}:PORT", "--no-control-socket", "wsgi:app"],
    "asgi": ["uvicorn", "--host", HOST, "--port", "PORT", "asgi:app"],
}


@contextmanager
def running(kind: str, folder: Path, redis: str, namespace: str, *, needs_redis: bool) -> Iterator[str]:
    """The address of the example, served by its server."""
    example = EXAMPLES[kind].replace("NEEDS_REDIS = False", f"NEEDS_REDIS = {needs_redis}")
    (folder / f"{kind}.py").write_text(example)
    environ = {"NEARCACHE_URL": redis, "NEARCACHE_NAMESPACE": namespace, "NEARCACHE_MAX_STALENESS": "0.4"}
    with served(["-m", *COMMANDS[kind]], folder, environ, "/live") as address:
        yield address
    assert b"Traceback" not in (folder / "log").read_bytes()


def asked(url: str) -> tuple[int, Any]:
    """Status and document; 0 as long as nobody answers."""
    status, body = answer_of(url)
    return status, json.loads(body or "null")


@pytest.mark.one_server
@pytest.mark.parametrize("needs_redis", [False, True])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_ready_and_alive(kind: str, needs_redis: bool, proxy: FaultProxy, namespace: str, tmp_path: Path) -> None:
    """Ready before the first use; while Redis is away still, with the reason, unless asked to fail."""
    with running(kind, tmp_path, proxy.url, namespace, needs_redis=needs_redis) as url:
        assert asked(f"{url}/ready") == (200, {"cache": "ok", "reason": None})
        assert asked(f"{url}/a") == (200, {"page": "the page /a"})
        proxy.cut()
        wait_until(lambda: asked(f"{url}/a")[0] == 200 and asked(f"{url}/ready")[1]["cache"] == "down")
        status, body = asked(f"{url}/ready")
        assert status == (503 if needs_redis else 200)
        assert body["reason"]
        assert asked(f"{url}/live") == (200, {})
        assert asked(f"{url}/b") == (200, {"page": "the page /b"})
        proxy.heal()
        wait_until(lambda: asked(f"{url}/ready") == (200, {"cache": "ok", "reason": None}))
