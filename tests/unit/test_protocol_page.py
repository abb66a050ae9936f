"""docs/protocol.md against the code: what it names exists, and what exists is named."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from nearcache.engine.bus_state import BusState
from nearcache.protocol.names import PROTOCOL

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
LUA = ROOT / "nearcache" / "protocol" / "lua"
LETTERS = (*"ABCDEFGHIJKLMNOPQSTUVWXYZ", "AA", "BB", "CC")
REFERENCE = re.compile(r"`((?:nearcache|tests)/[\w/]+\.(?:py|lua))(?:::([\w.]+))?`")
SHORT = re.compile(r"`(Invalidation|Subscription|Requests|Tier)\.(\w+)`")
"""A method that a table names by its class alone."""
HOMES = {
    "Invalidation": "nearcache/local/invalidation.py",
    "Subscription": "nearcache/engine/subscription.py",
    "Requests": "nearcache/engine/requests.py",
    "Tier": "nearcache/local/tier.py",
}


@cache
def names_in(path: Path) -> set[str]:
    """The functions, classes and methods of a file, a method as Class.method."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def missing(references: list[tuple[str, str]]) -> list[str]:
    """Those that do not exist."""
    return [
        f"{path}::{name}"
        for path, name in references
        if not (ROOT / path).exists() or (name and name not in names_in(ROOT / path))
    ]


def row(first: str) -> str:
    """The row of a table by its first cell."""
    found = re.search(rf"^\| {first}\b.*$", TEXT, re.MULTILINE)
    assert found, first
    return found[0]


def test_every_function_and_test_that_the_page_names_exists() -> None:
    """By file and name, the library's and the tests'."""
    named = REFERENCE.findall(TEXT)
    assert len(named) > 100
    assert not missing(named)


def test_every_method_that_is_named_by_its_class_alone_exists() -> None:
    """In the file that has the class; `Tier.lock` is an attribute."""
    named = [(HOMES[owner], f"{owner}.{name}") for owner, name in SHORT.findall(TEXT) if name != "lock"]
    assert len(named) > 10
    assert not missing(named)


def test_every_letter_has_its_schedule_its_guard_and_its_test() -> None:
    """Under a heading of its own: numbered steps, a function, and a test."""
    for letter in LETTERS:
        found = re.search(rf"^### {letter}\. .*?(?=^### )", TEXT, re.MULTILINE | re.DOTALL)
        assert found, letter
        schedule, _, guards = found[0].partition("Kept by")
        assert re.search(r"^    1 ", schedule, re.MULTILINE), letter
        assert re.search(r"^    2 ", schedule, re.MULTILINE), letter
        kept_by, _, tests = guards.partition("Test")
        assert "`nearcache/" in kept_by, letter
        assert re.search(r"`tests/(schedules|server)/", tests), letter


def test_the_code_knows_no_other_letter() -> None:
    """Those of the library, and those of the tests' docstrings that begin or end with one."""
    for path in sorted((ROOT / "nearcache").rglob("*.py")):
        text = path.read_text()
        for letters in re.findall(r"docs/protocol\.md, ([A-Z]{1,2})\b", text) + re.findall(
            r"\(([A-Z](?:, [A-Z])*|AA|BB|CC)\)", text
        ):
            assert set(letters.split(", ")) <= set(LETTERS), path
    for path in sorted((ROOT / "tests" / "schedules").glob("*.py")):
        for letter in re.findall(r'"""\(([A-Z])\)', path.read_text()):
            assert letter in LETTERS, path


VARIANTS = {
    "a_load_from_a_lagging_replica",
    "a_load_from_before_an_own_set",
    "the_fill_race_with_a_failed_write",
    "the_fill_race_with_an_own_set",
}
"""Schedules of a rule that stands on the page with another schedule."""


def test_every_schedule_has_its_place_on_the_page() -> None:
    """A schedule that the page does not name shows a rule that the page lacks."""
    unnamed = set()
    for path in sorted((ROOT / "tests" / "schedules").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else ()
            if isinstance(node, ast.FunctionDef) and any("schedule(" in ast.unparse(one) for one in decorators):
                named = f"`tests/schedules/{path.name}::{node.name}`" in TEXT
                unnamed |= set() if named else {node.name}
    assert unnamed == VARIANTS


def test_every_promise_has_its_functions_and_its_tests() -> None:
    """One row each: the promise, what keeps it, what fails without it."""
    for number in range(1, 9):
        _, promise, kept_by, tests, _ = row(f"G{number}").split("|")
        assert promise.strip() != f"G{number}"
        assert "`nearcache/" in kept_by
        assert "`tests/" in tests


def test_every_script_stands_in_both_tables() -> None:
    """What it takes and answers, and its steps."""
    for script in LUA.glob("[a-z]*.lua"):
        assert len(re.findall(rf"^\| `{script.stem}` \|", TEXT, re.MULTILINE)) == 2, script.stem


def test_every_name_in_redis_and_every_kind_of_message_is_on_the_page() -> None:
    """By the last part of the name, and by the kind's letter."""
    for name in ("v:<key>", "l:<key>", "m", "t:<tag>", "c", "x"):
        assert f"| `{{ns:0}}:{name}` |" in TEXT
    assert f"`{PROTOCOL.decode()}`" in TEXT
    for kind in "ICTSFP":
        assert re.search(rf"^\| `{kind}` \|", TEXT, re.MULTILINE), kind


def test_every_state_of_the_bus_is_on_the_page() -> None:
    """One row each."""
    for state in BusState:
        assert row(state.name)


def test_files_that_a_page_names_exist() -> None:
    """As `engine/load.py`, below the repository or the package; a bare name, as `load.py`, would be no address."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for name in set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|lua))\b", page.read_text())):
            assert (ROOT / name).exists() or (ROOT / "nearcache" / name).exists(), f"{page.name}: {name}"
    assert not re.findall(r"`[a-z_]+\.(?:py|lua)`", (ROOT / "docs" / "design.md").read_text())


def test_classes_that_the_design_names_exist() -> None:
    """As `ThreadLatch`, or `BaseCache._look`: the last part of the name occurs in the sources."""
    known = {word for path in (ROOT / "nearcache").rglob("*.py") for word in re.findall(r"\w+", path.read_text())}
    text = (ROOT / "docs" / "design.md").read_text()
    named = {name.rpartition(".")[2] for name in re.findall(r"`([A-Z]\w+(?:\.\w+)*)`", text)}
    assert len(named) > 20
    assert named <= known, named - known


def test_nothing_refers_to_a_page_outside_the_repository() -> None:
    """Code and documents point to pages that a reader has."""
    pages = {path.name for path in (ROOT / "docs").rglob("*.md")} | {path.name for path in ROOT.glob("*.md")}
    for folder in ("nearcache", "tests", "benchmarks", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".lua"}:
                named = set(re.findall(r"\b([A-Za-z]\w+\.md)\b", path.read_text()))
                assert named <= pages, f"{path.relative_to(ROOT)}: {named - pages}"
