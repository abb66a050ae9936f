"""Counters for interfaces that count in numbers which were set, as those of Django and cachelib do."""

from __future__ import annotations

from nearcache.engine.ports import MISSING
from nearcache.errors import CodecError
from nearcache.sync import NearCache

TRIES = 3
"""How often a number that was set is tried to be made a counter while others change it."""


def add_to_number(near: NearCache, key: str, delta: int) -> int:
    """Add to a number, and keep its ttl.

    The first call makes a counter of a number that was set; from then on it is one script, which loses nothing.

    Raises:
        KeyError: there is none, or others have changed it meanwhile.
        TypeError: the value is no int.
        RemoteUnavailable: Redis did not answer.
    """
    for _ in range(TRIES):
        try:
            return near.incr(key, delta, initial=None)
        except CodecError:
            value, left = near.get(key, MISSING), near.explain(key).remaining
        if value is MISSING:
            continue
        if type(value) is not int:
            raise TypeError(f"the value of {key!r} is of type {type(value).__name__}: must be an int to be counted")
        if left is not None and left > 0 and near.delete_existing(key):  # True for one of those who try
            return near.incr(key, delta, initial=value, ttl=left)
    raise KeyError(key)
