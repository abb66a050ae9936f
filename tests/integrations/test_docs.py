"""Each page of a framework runs, in the order of the page, against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nearcache.transport.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
PAGES = ("django", "fastapi", "flask", "sqlalchemy")


def run(code: str, folder: Path, valkey: EmbeddedServer, namespace: str) -> None:
    """Run a program; what it asserts holds, and it warns of nothing."""
    (folder / "the_page.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "the_page.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **os.environ, "NEARCACHE_URL": valkey.url, "NEARCACHE_NAMESPACE": namespace},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, valkey: EmbeddedServer, namespace: str, tmp_path: Path) -> None:
    """Blocks that begin with the name of a file are files; all others are one program."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert f"docs/{page}.md" in (ROOT / "README.md").read_text()
    program = []
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        if name is None:
            program.append(block)
        else:
            (tmp_path / name[1]).write_text(block)
    assert program
    run("\n".join(program), tmp_path, valkey, namespace)


MIGRATING = (ROOT / "docs" / "migrating.md").read_text()
STEPS = re.findall(r"```python (before|after) ?(\w*)\n(.*?)```", MIGRATING, re.DOTALL)
IDS = [f"{at} {when} {peer}" for at, (when, peer, _) in enumerate(STEPS)]


@pytest.mark.parametrize(
    ("when", "peer", "code"), STEPS, ids=[f"{at} {one[0]} {one[1]}" for at, one in enumerate(STEPS)]
)
def test_each_step_of_a_migration_runs(
    when: str, peer: str, code: str, valkey: EmbeddedServer, namespace: str, tmp_path: Path
) -> None:
    """Before it, where the peer is installed, and after it; each is a program."""
    if peer and find_spec(peer) is None:
        pytest.skip(f"NOT RUN: the example of {peer}, which is not installed")
    own = code.replace("127.0.0.1:6379", f"127.0.0.1:{valkey.port}")
    assert (own != code) == ("127.0.0.1" in code)
    run(own, tmp_path, valkey, namespace)


def test_the_page_of_migrations_is_whole() -> None:
    """It is linked, every section has both, and no block is left out."""
    assert "docs/migrating.md" in (ROOT / "README.md").read_text()
    assert MIGRATING.count("```python") == len(STEPS)
    for section in MIGRATING.split("\n## ")[1:]:
        assert "```python before" in section
        assert "```python after" in section
