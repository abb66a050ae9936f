"""The README's examples run, and are as short as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NAMES = ("plain", "FastAPI", "Django", "Flask")
ANSWER = "{'id': 7, 'name': 'user 7'}"

# Around each block: what it leaves out, the imports that its comments name, and a request.
BEFORE = {
    "plain": "",
    "FastAPI": """
from fastapi import FastAPI
from nearcache import AsyncNearCache
from nearcache.integrations.fastapi import lifespan
""",
    "Django": "",
    "Flask": """
from flask import Flask
from nearcache.integrations.flask import init_app
""",
}
AFTER = {
    "plain": "",
    "FastAPI": """
from fastapi.testclient import TestClient
with TestClient(app) as client:
    print(client.get("/user/7").json(), client.get("/user/7").json(), cache.stats().loads)
""",
    "Django": """
from django.conf import settings
settings.configure(CACHES=CACHES)
from django.core.cache import cache
print(cache.set("user:7", 7), cache.get("user:7"), cache.near.stats().l1_hits)
""",
    "Flask": """
print(user(7), user(7), cache.stats().loads)
""",
}
PRINTED = {
    "plain": f"{ANSWER} {ANSWER} True None 1\n",
    "FastAPI": f"{ANSWER} {ANSWER} 1\n",
    "Django": "None 7 1\n",
    "Flask": f"{ANSWER} {ANSWER} 1\n",
}
SERVER = """
import os
from nearcache.testing import EmbeddedServer
server = EmbeddedServer()
server.start()
os.environ["NEARCACHE_URL"] = server.url
"""


def test_there_is_a_block_of_each_kind() -> None:
    """Plain, and of three frameworks."""
    assert len(BLOCKS) == len(NAMES)


@pytest.mark.parametrize(("name", "block"), list(zip(NAMES, BLOCKS, strict=True)), ids=NAMES)
def test_a_block_runs(name: str, block: str) -> None:
    """What a newcomer copies from the README works; the plain one as it stands."""
    code = block if name == "plain" else SERVER + BEFORE[name] + block + AFTER[name]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PRINTED[name]


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_a_block_is_eight_lines(block: str) -> None:
    """It can be read at a glance."""
    assert len([line for line in block.splitlines() if line]) <= 8


def test_both_commands_are_targets() -> None:
    """The README's two commands exist."""
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
