"""docs/protocol.md against the code: what it names exists, and what exists is named."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
LETTERS = "ABCDEFGHIJKLMNOPQS"


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


def test_every_function_and_test_that_the_page_names_exists() -> None:
    """By file and name, the library's and the tests'."""
    named = re.findall(r"`((?:nearcache|tests)/[\w/]+\.(?:py|lua))(?:::([\w.]+))?`", TEXT)
    assert len(named) > 60
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and name not in names_in(ROOT / path))
    ]
    assert not missing


def test_every_letter_has_its_row_and_the_code_knows_no_other() -> None:
    """A letter that the code refers to stands in the table, with a schedule."""
    for letter in LETTERS:
        assert re.search(rf"^\| {letter} \|.*`tests/schedules/", TEXT, re.MULTILINE), letter
    for path in sorted((ROOT / "nearcache").rglob("*.py")):
        for letter in re.findall(r"docs/protocol\.md, ([A-Z])\b", path.read_text()):
            assert letter in LETTERS, path


def test_every_script_and_name_in_redis_is_on_the_page() -> None:
    """The scripts by their files, the names by their last part."""
    for script in (ROOT / "nearcache" / "protocol" / "lua").glob("[a-z]*.lua"):
        assert re.search(rf"^\| `{script.stem}` \|", TEXT, re.MULTILINE), script.stem
    for name in ("v:<key>", "l:<key>", "m", "t:<tag>", "c"):
        assert f"`{{ns:0}}:{name}`" in TEXT


def test_nothing_refers_to_a_page_outside_the_repository() -> None:
    """Code and documents point to pages that a reader has."""
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {path.name for path in ROOT.glob("*.md")}
    for folder in ("nearcache", "tests", "benchmarks", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".lua"}:
                named = set(re.findall(r"\b([A-Za-z]\w+\.md)\b", path.read_text()))
                assert named <= pages, f"{path.relative_to(ROOT)}: {named - pages}"
