"""The README's quick start runs, and is as short as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
(QUICK_START,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_quick_start_runs() -> None:
    """What a newcomer copies from the README works as it stands."""
    done = subprocess.run([sys.executable, "-c", QUICK_START], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'id': 7, 'name': 'user 7'} {'id': 7, 'name': 'user 7'} True None 1\n"


def test_quick_start_is_eight_lines() -> None:
    """It can be read at a glance."""
    assert len([line for line in QUICK_START.splitlines() if line]) <= 8


def test_both_commands_are_targets() -> None:
    """The README's two commands exist."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
