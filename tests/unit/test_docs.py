"""The documentation as a whole: every public name has its place, every example is run, and the site is built."""

from __future__ import annotations

import inspect
import re
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

import nearcache
import nearcache.testing
from nearcache import (
    AsyncCachedFunction,
    AsyncNearCache,
    CachedFunction,
    Codec,
    MsgpackCodec,
    NearCache,
    NearCacheError,
    NearCacheWarning,
    errors,
)
from tests.support.examples import NAMED, ROOT, RUN_BY, docstrings, pages

REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.md")))
NAMES = [
    *(f"nearcache.{name}" for name in nearcache.__all__),
    *(f"nearcache.testing.{name}" for name in nearcache.testing.__all__),
    *(f"nearcache.integrations.django.{name}" for name in ("NearCacheBackend", "invalidate_on_commit", "PickleCodec")),
    *(f"nearcache.integrations.fastapi.{name}" for name in ("lifespan", "dependency", "router")),
    *(f"nearcache.integrations.flask.{name}" for name in ("Backend", "init_app")),
    "nearcache.integrations.sqlalchemy.invalidate_on_commit",
    "nearcache.observe.prometheus.register",
    "nearcache.observe.otel.instrument",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_has_every_public_name(name: str) -> None:
    """Once, as a directive of autodoc."""
    assert len(re.findall(rf"^\.\. auto\w+:: {re.escape(name)}$", REFERENCE, re.MULTILINE)) == 1


def test_the_reference_has_every_method_of_both_classes() -> None:
    """None is left out by name."""
    for one in ("NearCache", "AsyncNearCache"):
        options = REFERENCE.partition(f".. autoclass:: nearcache.{one}\n")[2].replace("```", "\n").partition("\n\n")[0]
        assert [line.strip() for line in options.splitlines()] == [":members:", ":inherited-members:"]


ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Warning | NearCacheError)]


@pytest.mark.parametrize("error", ERRORS)
def test_each_error_names_its_place_in_the_docs(error: type) -> None:
    """In what help() shows; the page has a section of its name, and the table a row."""
    page, _, anchor = re.findall(r"See (docs/\w+\.md)(#)(\w+)\.", error.__doc__ or "")[0]
    assert anchor == error.__name__.lower()
    text = (ROOT / page).read_text()
    assert f"\n## {error.__name__}\n" in text
    assert error in (NearCacheError, NearCacheWarning) or f"\n| [{error.__name__}](#{anchor}) |" in text


METHODS = [
    (one, name)
    for one in (NearCache, AsyncNearCache, CachedFunction, AsyncCachedFunction, Codec, MsgpackCodec)
    for name in sorted({*vars(one), *(vars(one.__mro__[1]) if one in (NearCache, AsyncNearCache) else ())})
    if not name.startswith("_") and name not in getattr(one, "__annotations__", {})
]
QUIET = {"stats", "health", "healthy", "settings", "url", "close", "invalidate_tags"}
"""These raise nothing, or what ``set`` does."""
TWIN = re.compile(r"As :meth:`(NearCache|CachedFunction)\.\w+`")


@pytest.mark.parametrize(("one", "name"), METHODS, ids=[f"{one.__name__}.{name}" for one, name in METHODS])
def test_a_docstring_is_complete(one: type, name: str) -> None:
    """It names each argument, and has an example; or that of its twin has, which it names."""
    found = inspect.getattr_static(one, name)
    function = getattr(found, "fget", None) or getattr(found, "__func__", found)
    text = inspect.getdoc(function) or ""
    if TWIN.match(text):
        return
    assert ">>> " in (one.__doc__ or "" if one is Codec else text), "an example"
    for argument in inspect.signature(function).parameters.keys() - {"self", "cls"}:
        assert re.search(rf"\b{argument}\b", text), argument
    assert "Raises:" in text or name in QUIET, "what it raises"


PAGES = sorted(pages().keys() - RUN_BY.keys())


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python blocks from the top to the bottom, in one namespace, but for those that are files."""
    monkeypatch.setenv("NEARCACHE_URL", "memory://")  # what from_env() finds
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(ROOT / page)
    for example in document.examples():
        if not NAMED.match(example.parsed):
            example.evaluate()
    for left in document.namespace.values():
        if isinstance(left, sqlite3.Connection):
            left.close()  # Python 3.13 warns of it in the test in which its memory is released, whichever that is


def test_every_page_with_examples_is_run() -> None:
    """By the test that is said to run it, else by the test above."""
    found = pages()
    for page, test in RUN_BY.items():
        assert found.pop(page), page
        assert Path(page).stem.lower() in (ROOT / test).read_text().lower(), test
    for page, blocks in found.items():
        assert page == "docs/operations.md" or not any(map(NAMED.match, blocks)), "tests/observe runs these alone"
    assert sum(docstrings().values()) >= 40


@pytest.mark.timeout(400)  # it takes ten seconds of the processor, and tests share that
@pytest.mark.skipif(find_spec("sphinx") is None, reason="NOT RUN: Sphinx (extra docs) is not installed")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` builds it: each link of a page has its target, and each page its place."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).exists(), page
