"""The project's habits: one version, one set of tools, commands that are documented."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import nearcache

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_version_is_said_in_one_place() -> None:
    """The package's line is what the build reads, and what is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "nearcache/__init__.py"
    assert nearcache.__version__ == metadata.version("nearcache")


def test_the_hooks_are_the_tools_of_make_check() -> None:
    """The same programs from the same environment; a hook of another source could have another version."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    (check,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    tools = {"ruff check", "ruff format", "mypy", "pyright", "lint-imports"}
    for tool in tools:
        assert f"$(BIN)/{tool}" in check, tool
        assert f".venv/bin/{tool}" in hooks, tool
    assert set(re.findall(r"entry: \.venv/bin/(ruff \w+|[\w-]+)", hooks)) == tools
    assert hooks.count("- repo:") == hooks.count("- repo: local")


def test_every_target_has_its_line_of_help() -> None:
    """And every target that the documents name exists."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    for target in phony.split():
        assert re.search(rf"^{target}:.*## \w", MAKEFILE, re.MULTILINE), target
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"(?:^    |`)make ([\w-]+)", page.read_text(), re.MULTILINE):
            assert target in phony.split(), f"{page.name}: make {target}"


def test_the_changelog_keeps_its_form() -> None:
    """Keep a Changelog: what is not released stands on top, under known headings."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Changelog", "[Unreleased]"]
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(headings[2:]) <= known | {f"[{nearcache.__version__}]"}


def test_the_top_level_has_four_folders() -> None:
    """The package, its tests, its benchmarks and its documents."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - {"build", "dist"} == {"nearcache", "tests", "benchmarks", "docs"}
