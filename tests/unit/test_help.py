"""What `help` shows: the text of each field, and which methods are awaited."""

from __future__ import annotations

import inspect
import pydoc
import re
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearcache import AsyncNearCache, Health, NearCache, Settings, Stats
from nearcache.cli import app

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("shown", [Stats, Health, Settings])
def test_help_shows_a_text_for_each_field(shown: type) -> None:
    """In the order of the fields."""
    names = [field.name for field in fields(shown)]
    text = inspect.getdoc(shown) or ""
    shown_lines = [line.strip(" |") for line in pydoc.plain(pydoc.render_doc(shown)).splitlines()]
    assert {line.strip(" |") for line in text.splitlines()} <= set(shown_lines)
    assert [name for name in re.findall(r"^ *(\w+): \S.{10}", text, re.MULTILINE) if name in names] == names


PLAIN = {name for name in dir(AsyncNearCache) if not name.startswith("_")} - {
    name for name, method in inspect.getmembers(AsyncNearCache) if inspect.iscoroutinefunction(method)
}
MADE_BY = {"from_url", "from_env", "shared"}


def test_the_docstring_names_what_is_not_awaited() -> None:
    """All of it, and nothing else; both classes have the same words."""
    assert AsyncNearCache.__doc__
    sentence = re.search(r"``peek``, .*?\s+are plain", AsyncNearCache.__doc__, re.DOTALL)
    assert sentence
    assert set(re.findall("``(.*?)``", sentence[0])) == PLAIN - MADE_BY
    assert {name for name in dir(NearCache) if not name.startswith("_")} == {
        name for name in dir(AsyncNearCache) if not name.startswith("_")
    }


def test_the_readme_names_methods_that_are_not_awaited() -> None:
    """It does not say that all words are awaited."""
    sentence = re.search(r"what may ask Redis is awaited, while (.*?)\s+are plain", README, re.DOTALL)
    assert sentence
    assert set(re.findall("`(.*?)`", sentence[1])) <= PLAIN


def test_the_help_of_the_command_has_each_and_its_exit_codes() -> None:
    """And how to name the server."""
    runner, application = CliRunner(), app()
    shown = runner.invoke(application, ["--help"], env={"COLUMNS": "80"}).output
    assert "NEARCACHE_URL" in shown
    for command in application.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]  # each has one
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name
        assert "Exit code" in runner.invoke(application, [name, "--help"]).output, name
        summary = re.search(rf"^  {name} .*", shown, re.MULTILINE)
        assert summary
        assert summary[0].endswith("."), "the first sentence fits on a line of 80 characters"
        assert not summary[0].endswith("..."), summary[0]
