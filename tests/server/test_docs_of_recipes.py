"""docs/recipes.md: its commands, run as they stand against caches on a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
NODE_PATH = os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), "/usr/share/nodejs")))
"""Where Debian's package node-redis is, too."""
PROGRAM = """
const fs = require('fs')
async function use(client) {
  await client.connect()
%s
  console.log(number)
  await client.quit()
}
use(require('redis').createClient({ url: 'redis://127.0.0.1:%d' }))
"""

pytestmark = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")


def run(block: str, server: EmbeddedServer, folder: Path) -> str:
    """A block of the page, with this interpreter and this server; what it printed."""
    block = block.replace("python3", sys.executable).replace("-h cache", f"-p {server.port}")
    done = subprocess.run(
        ["sh", "-ec", block], cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert not done.stderr
    return done.stdout.decode("utf-8", "replace")


async def test_a_key_is_invalidated_from_outside(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    """In Redis and in every L1, under the next number, so that nobody flushes; a load under way fills nothing."""
    with (
        NearCache.from_url(fresh_server.url, namespace="shop") as one,
        NearCache.from_url(fresh_server.url, namespace="shop") as other,
    ):
        assert one.set("user:7", "old")
        assert one.set("user:8", "kept")
        assert [other.get("user:7"), other.get("user:8")] == ["old", "kept"]
        number = int(run(BLOCKS[0], fresh_server, tmp_path))
        await until(lambda: one.peek("user:7") is None and other.peek("user:7") is None)
        assert other.get("user:7") is None
        assert other.peek("user:8") == "kept"

        def load() -> str:
            run(BLOCKS[0], fresh_server, tmp_path)  # behind the loader's read
            return "old"

        assert one.get_or_set("user:7", load) == "old"
        assert other.get("user:7") is None, "the fill came too late"
        assert one.set("user:7", "new")
        assert other.get("user:7") == "new"
        assert one._core.invalidation.seen == number + 2
        assert [one.stats().flushes, other.stats().flushes] == [0, 0]


async def test_some_keys_are_loaded_by_one_call(fresh_server: EmbeddedServer) -> None:
    """As the page says; and again, the key that was left out is asked for alone."""
    page = (ROOT / "docs/recipes.md").read_text()
    (example,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def load_users" in one)
    with NearCache.from_url(fresh_server.url, namespace="shop") as cache:
        exec(example, {"cache": cache})  # the page's own
        asked: list[list[str]] = []

        def load(keys: list[str]) -> dict[str, str]:
            asked.append(keys)
            return {}

        assert cache.get_or_set_many(["user:1", "user:3"], load) == {"user:1": "Ada"}
        assert asked == [["user:3"]]


async def test_a_namespace_is_cleared_from_outside(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    """As by clear()."""
    with NearCache.from_url(fresh_server.url, namespace="shop") as cache:
        assert cache.set("user:7", 1)
        run(BLOCKS[1], fresh_server, tmp_path)
        await until(lambda: cache.peek("user:7") is None)
        assert cache.get("user:7") is None
        assert cache.add("user:7", 2)
        assert cache.stats().flushes == 0


async def test_too_few_names_are_refused(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    """And nothing is done."""
    with NearCache.from_url(fresh_server.url, namespace="shop") as cache:
        assert cache.set("user:7", 1)
        assert "two names" in run(BLOCKS[0].replace("'{shop:0}:l:user:7'", ""), fresh_server, tmp_path)
        assert cache.get("user:7") == 1


def node(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program for node; it finds the packages of NODE_PATH."""
    env = {**os.environ, "NODE_PATH": NODE_PATH}
    return subprocess.run(["node", "-e", program], cwd=folder, env=env, capture_output=True, text=True, check=False)


def has_node_redis() -> bool:
    """Whether node and its package redis are installed."""
    return shutil.which("node") is not None and not node("require('redis')", ROOT).returncode


async def test_a_key_is_invalidated_by_another_language(fresh_server: EmbeddedServer, tmp_path: Path) -> None:
    """The lines for node-redis do what those for redis-cli do."""
    if not has_node_redis():
        pytest.skip("node and its package redis are not installed: apt install nodejs node-redis")
    (lines,) = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    run(BLOCKS[0].splitlines()[0], fresh_server, tmp_path)
    with NearCache.from_url(fresh_server.url, namespace="shop") as cache:
        assert cache.set("user:7", "old")
        before = cache._core.invalidation.seen
        done = node(PROGRAM % (lines, fresh_server.port), tmp_path)
        assert not done.returncode, done.stderr
        assert int(done.stdout) == before + 1
        await until(lambda: cache.peek("user:7") is None)
        assert cache.get("user:7") is None
        assert cache.stats().flushes == 0
