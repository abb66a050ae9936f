"""The examples of docs/values.md run, and its list of types is the codec's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nearcache.protocol.types import KNOWN

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "values.md").read_text()
SHARING, CODEC = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_is_linked() -> None:
    """From the README, and from the hint that a refusal gives."""
    assert "docs/values.md" in (ROOT / "README.md").read_text()


def test_the_example_of_sharing_runs() -> None:
    """What it asserts holds."""
    exec(SHARING, {})


def test_the_codec_of_the_example_carries_models() -> None:
    """Alone, in lists, and beside all other values; what does not fit is a miss."""
    pytest.importorskip("pydantic")
    names: dict[str, Any] = {"__name__": __name__}
    exec(CODEC, names)
    codec, user = names["ModelCodec"](names["User"]), names["User"](id=1, name="Ada")
    for value in (user, [user], [user, user], [], [1, user.model_dump()], ("User", {"id": 1}), "User\n", None):
        back = codec.decode(codec.encode(value))
        assert back == value
        assert type(back) is type(value)
    for wrong in ([user, 1], {"a": user}):
        with pytest.raises(TypeError):
            codec.encode(wrong)
    with pytest.raises(KeyError):
        codec.decode(codec.encode(user).replace(b"User", b"Uzer"))


def test_the_list_of_types_is_complete() -> None:
    """Each type that is carried stands there, but those of ipaddress, which are six."""
    listed = TEXT.partition("## What is carried")[2].partition(" and the six types")[0]
    assert set(re.findall(r"\w+", listed)) - {"and"} == {
        kind.__name__.removesuffix("Type") for kind in KNOWN if kind.__module__ != "ipaddress"
    }
