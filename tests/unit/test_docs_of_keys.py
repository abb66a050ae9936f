"""docs/keys.md: each key in its table is the key of that call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nearcache import NearCache

PAGE = Path(__file__).parents[2] / "docs/keys.md"
ROW = re.compile(r"\| (?:`@cache\.cached(\(.*?\))?`(?: on `(.*?)`)?|(the same)) \| (.*?) \| (.*?) \|")


def _rows() -> list[tuple[str, str, list[str], list[str]]]:
    found, last = [], ("", "")
    for options, signature, same, calls, keys in ROW.findall(PAGE.read_text()):
        first, *_ = re.findall(r"\w+(?=\()", calls)
        fields = ", ".join(re.findall(r"\{(\w+)\}", options))
        last = last if same else (options or "()", signature.removeprefix("app.") or f"{first}({fields})")
        found.append((*last, re.findall("`(.*?)`", calls), re.findall("`(.*?)`", keys)))
    return found


@pytest.mark.parametrize(("options", "signature", "calls", "keys"), _rows())
def test_the_keys_of_the_page(options: str, signature: str, calls: list[str], keys: list[str]) -> None:
    """As a reader would try them."""
    space: dict[str, Any] = {"__name__": "app", "cache": NearCache.from_url("memory://")}
    exec(f"@cache.cached{options}\ndef {signature}: ...", space)
    assert [eval(call.replace("(", ".key(", 1), space) for call in calls] == keys


def test_the_table_is_found() -> None:
    """All eight rows."""
    assert len(_rows()) == 8
