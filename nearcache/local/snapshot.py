"""Snapshots, taken before a read, tell whether something was written meanwhile; keys share stamps by stripe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from nearcache.local.marks import NO_MARK, Mark
from nearcache.protocol.versions import Version

STRIPES = 1024


class Snapshot(NamedTuple):
    """What a reader notes before it sends anything, to be compared when it puts the reply."""

    epoch: int
    stripe: int
    stamp: Version
    turn: int = 0
    trusted: bool = True
    """False: the key is journalled. The value in L2 may be older, and a fill may undo the write: load only."""
    mark: Mark = NO_MARK
    """A record that began before it may be older than a value that was returned before this read began."""


class Snapshots(NamedTuple):
    """Those of several keys, by columns: to make one for each key takes twice as long."""

    epoch: int
    stripes: Sequence[int]
    stamps: Sequence[Version]
    turns: Sequence[int]
    trusted: Sequence[bool]
    marks: Sequence[Mark]

    def of(self, at: int) -> Snapshot:
        """The one of a key."""
        return Snapshot(self.epoch, self.stripes[at], self.stamps[at], self.turns[at], self.trusted[at], self.marks[at])


def bucket_of(key: str, buckets: int) -> int:
    """The bucket of a key; all keys of a stripe lie in one, since the number of buckets divides that of stripes."""
    return crc32(key.encode()) % buckets


def stripe_of(key: str) -> int:
    """The stripe of a key: keys share stamps to bound their number; sharing costs a refused put at most."""
    return crc32(key.encode()) % STRIPES
