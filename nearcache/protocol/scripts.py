"""The Lua scripts: each file under ``lua/`` is one atomic step of the protocol, behind a common prelude."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

_FOLDER = files("nearcache.protocol") / "lua"
_PRELUDE = (_FOLDER / "_prelude.lua").read_text()


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
        """Read ``lua/NAME.lua`` and put the prelude in front, below a ``#!lua`` line."""
        body = (_FOLDER / f"{name}.lua").read_text()
        head, body = body.split("\n", 1) if body.startswith("#!") else ("", body)
        return cls.of(f"{head}\n{_PRELUDE}{body}".lstrip("\n").encode())

    @classmethod
    def of(cls, text: bytes) -> Script:
        """A script of this text."""
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


@lru_cache
def _sharded(script: Script) -> Script:
    return Script.of(script.text.replace(b"'PUBLISH'", b"'SPUBLISH'"))


SET = Script.load("set")
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
