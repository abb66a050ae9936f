"""The Lua scripts: each file under ``lua/`` is one atomic step of the protocol, with what it needs of a prelude."""

from __future__ import annotations

import hashlib
import re
import struct
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

_FOLDER = files("nearcache.protocol") / "lua"
_PRELUDE = (_FOLDER / "_prelude.lua").read_text()
_FUNCTIONS = re.findall(r"^(local function (\w+).*?^end)$", _PRELUDE, re.MULTILINE | re.DOTALL)
"""The functions of the prelude, and their names."""


def _prelude_of(body: str) -> str:
    """What a script needs of the prelude: each call makes each function anew."""
    needed: list[str] = []
    for text, name in reversed(_FUNCTIONS):  # a function calls only those above it
        if any(re.search(rf"\b{name}\(", user) for user in (body, *needed)):
            needed.append(text)
    return "".join(f"{text}\n" for text in reversed(needed))


class Script(NamedTuple):
    """A script's text and its digest, by which the server knows it."""

    text: bytes
    sha: bytes

    @property
    def sharded(self) -> Script:
        """The same for a cluster, where a message reaches those that listen on the shard of its names."""
        return _sharded(self)

    @classmethod
    def load(cls, name: str) -> Script:
        """Read ``lua/NAME.lua`` and put in front what it needs of the prelude, below a ``#!lua`` line."""
        body = (_FOLDER / f"{name}.lua").read_text()
        head, body = body.split("\n", 1) if body.startswith("#!") else ("", body)
        return cls.of(f"{head}\n{_prelude_of(body)}{body}".lstrip("\n").encode())

    @classmethod
    def of(cls, text: bytes) -> Script:
        """A script of this text."""
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


@lru_cache
def _sharded(script: Script) -> Script:
    return Script.of(script.text.replace(b"'PUBLISH'", b"'SPUBLISH'"))


SET = Script.load("set")
NUMBERS_OF_SET = struct.Struct(">QQQQ")
"""Its numbers, as one field, since each field is an object on both sides: seen, tag life ms, deadline, stale ms."""
ADD = Script.load("add")
TOUCH = Script.load("touch")
INCR = Script.load("incr")
DELETE = Script.load("delete")
MARK_STALE = Script.load("mark_stale")
CLEAR = Script.load("clear")
LEASE = Script.load("lease")
FILL = Script.load("fill")
ABORT = Script.load("abort")
GREET = Script.load("greet")
PROBE = Script.load("probe")
