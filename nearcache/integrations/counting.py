"""Counters for interfaces that count in numbers which were set, as those of Django and cachelib do."""

from __future__ import annotations

import time
from hashlib import blake2b

from nearcache.engine.ports import MISSING
from nearcache.errors import CodecError, RemoteUnavailable
from nearcache.sync import NearCache

PATIENCE = 2.0
"""Seconds that a caller waits while another makes a counter of the number."""
PAUSE = 0.002


def add_to_number(near: NearCache, key: str, delta: int) -> int:
    """Add to a number, and keep its ttl.

    The first call makes a counter of a number that was set; from then on it is one script, which loses nothing.

    Raises:
        KeyError: there is none.
        TypeError: the value is no int.
        RemoteUnavailable: Redis did not answer, or somebody who makes a counter of it has died.
    """
    # One caller of the fleet may delete the number: two that have read 5 would delete each other's counter of 6.
    lock = f"nearcache:counting:{blake2b(key.encode(), digest_size=16).hexdigest()}"
    deadline, missed = time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline:
        try:
            return near.incr(key, delta, initial=None)
        except KeyError:
            # Twice without a lock: between the delete and the counter of another it is missing, but not absent.
            if missed and near.get(lock) is None:
                raise
            missed = True
        except CodecError:
            missed = False
            if near.add(lock, value=True, ttl=PATIENCE):
                try:
                    return _convert(near, key, delta)
                finally:
                    near.delete(lock)
        time.sleep(PAUSE)
    raise RemoteUnavailable(f"{key!r} was not counted: others have been changing it for {PATIENCE:.0f} s")


def _convert(near: NearCache, key: str, delta: int) -> int:
    """Make a counter of a number, and add to it; with the lock in hand."""
    try:
        return near.incr(key, delta, initial=None)  # another may have had the lock before
    except CodecError:
        value, left = near.get(key, MISSING), near.explain(key).remaining
    if type(value) is not int and value is not MISSING:
        raise TypeError(f"the value of {key!r} is of type {type(value).__name__}: must be an int to be counted")
    if value is MISSING or left is None or left <= 0:
        raise KeyError(key)
    near.delete(key)
    return near.incr(key, delta, initial=value, ttl=left)
