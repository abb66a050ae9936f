"""The examples of docs/values.md run, and its list of types is the codec's."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from nearcache.protocol.types import KNOWN

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "values.md").read_text()
SHARING, TYPES, CODEC = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_is_linked() -> None:
    """From the README, and from the hint that a refusal gives."""
    assert "docs/values.md" in (ROOT / "README.md").read_text()


def test_the_example_of_sharing_runs() -> None:
    """What it asserts holds."""
    exec(SHARING, {})


def test_the_example_of_types_runs() -> None:
    """What it asserts holds."""
    exec(compile(TYPES, "values.md", "exec", dont_inherit=True), {"__name__": __name__})  # not this file's __future__


def test_the_codec_of_the_example_gives_back_what_it_takes() -> None:
    """What JSON would change is refused, and what is no JSON."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(CODEC, names)
    codec = names["JsonCodec"]()
    values: tuple[Any, ...] = ({"a": [1, 2.0, None, True, "x"]}, [], {}, "é", 2**63, [[[]]])
    for value in values:
        assert codec.decode(codec.encode(value)) == value
    for wrong in ((1, 2), float("nan"), {1: 2}, {"a": UUID(int=1)}, b"x", {1}, date(2024, 1, 1), [(1,)]):
        with pytest.raises(TypeError):
            codec.encode(wrong)


def test_the_list_of_types_is_complete() -> None:
    """Each type that is carried stands there, but those of ipaddress, which are six."""
    listed = TEXT.partition("## What is carried")[2].partition(" and the six\ntypes")[0]
    assert set(re.findall(r"\w+", listed)) - {"and"} == {
        kind.__name__.removesuffix("Type") for kind in KNOWN if kind.__module__ != "ipaddress"
    }
