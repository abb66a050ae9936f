"""Each page is a test: its Python blocks run from the top to the bottom, with the names that earlier ones have made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sybil import Document, Region, Sybil
from sybil.parsers.myst import PythonCodeBlockParser

from tests.support.examples import NAMED, RUN_BY

_blocks = PythonCodeBlockParser()


def examples_of(document: Document) -> Iterable[Region]:
    """The blocks, but for those that are files."""
    return [region for region in _blocks(document) if not NAMED.match(region.parsed)]


pytest_collect_file = Sybil(
    parsers=[examples_of],
    patterns=["*.md"],
    excludes=[Path(page).name for page in RUN_BY],
).pytest()
