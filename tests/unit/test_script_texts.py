"""The texts of the Lua scripts: each has what it needs of the prelude."""

from __future__ import annotations

import re

import pytest

from nearcache.protocol import scripts
from nearcache.protocol.scripts import Script

SCRIPTS = {name: one for name, one in vars(scripts).items() if isinstance(one, Script)}
SHARED = {"now", "whole", "begin", "tell", "holder", "held", "floor_of", "ours", "record_at", "alive"}
"""The functions of the prelude."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_what_it_calls_of_the_prelude_and_no_more(name: str) -> None:
    """A function that lacks is found only where it is called, perhaps seldom; one too many is made at each call."""
    lines = SCRIPTS[name].text.decode().splitlines()
    defined: list[str] = []
    for line in lines:
        code = line.split("--")[0]
        new = re.match(r"local function (\w+)", code)
        if new is not None:
            defined.append(new[1])
        called = set(re.findall(r"(?<![.\w])(\w+)\(", code.removeprefix("local function"))) & SHARED
        assert called <= set(defined), f"{line!r} calls what stands below it, or nowhere"
    text = "\n".join(line.split("--")[0] for line in lines)
    assert len(defined) == len(set(defined))
    assert all(len(re.findall(rf"\b{one}\(", text)) > 1 for one in defined)


def test_the_prelude_is_known_whole() -> None:
    """The names above are all of its functions."""
    assert {name for _, name in scripts._FUNCTIONS} == SHARED
    assert len(SCRIPTS) == 12
