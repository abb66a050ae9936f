"""Which examples the documentation has, and what runs each of them.

``python -m tests.support.examples`` prints how many there are.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import nearcache

ROOT = Path(__file__).parents[2]
RUN_BY = {
    "README.md": "tests/unit/test_readme.py",
    "docs/django.md": "tests/integrations/test_docs.py",
    "docs/fastapi.md": "tests/integrations/test_docs.py",
    "docs/flask.md": "tests/integrations/test_docs.py",
    "docs/migrating.md": "tests/integrations/test_docs.py",
    "docs/security.md": "tests/server/test_docs_of_security.py",
    "docs/sqlalchemy.md": "tests/integrations/test_docs.py",
    "docs/testing.md": "tests/unit/test_docs_of_testing.py",
    "docs/values.md": "tests/unit/test_docs_of_values.py",
}
"""Pages whose examples are programs or files, and the test that runs them. tests/unit/test_docs.py runs all others."""
NAMED = re.compile(r"# [\w/]+\.py\b")
"""The first line of a block that is a file: a test of the page runs it, wherever it stands."""
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, list[str]]:
    """The examples of each page that has any, by its path in the repository."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {str(path.relative_to(ROOT)): BLOCK.findall(path.read_text()) for path in paths}
    return {page: blocks for page, blocks in found.items() if blocks}


def docstrings() -> dict[str, int]:
    """How many docstrings with an example each module of the library has; pytest's --doctest-modules runs them."""
    finder, counts = doctest.DocTestFinder(exclude_empty=True), {}
    for module in pkgutil.walk_packages(nearcache.__path__, "nearcache."):
        if module.name.endswith("__main__"):
            continue
        examples = [one for one in finder.find(importlib.import_module(module.name)) if one.examples]
        if examples:
            counts[module.name] = len(examples)
    return counts


if __name__ == "__main__":
    found = pages()
    print(
        f"examples: {sum(map(len, found.values()))} on {len(found)} pages, and {sum(docstrings().values())} docstrings "
        "have one; `make test` runs them"
    )
