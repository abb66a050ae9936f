"""What a reader remembers from before it asked; keys share stamps by stripe, so that their number is bounded."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from nearcache.protocol.versions import Version

STRIPES = 1024


class Snapshot(NamedTuple):
    """What a reader remembers from before it asked: has anything been written since?"""

    epoch: int
    stripe: int
    stamp: Version
    turn: int = 0
    trusted: bool = True
    """False: the key is journalled. What L2 has may be older, and a fill may undo the write: load only."""


def stripe_of(key: str) -> int:
    """The stripe of a key: keys share stamps to bound their number; sharing costs a refused put at most."""
    return crc32(key.encode()) % STRIPES
