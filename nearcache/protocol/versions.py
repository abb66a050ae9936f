"""Versions: a write's number and the server's time in one int, so that one comparison orders two values."""

from __future__ import annotations

from typing import TypeAlias

Version: TypeAlias = int
"""A write's number above the server's µs at which the value was made: one int, so that one comparison orders two."""

CREATED_BITS = 64


def version_of(number: int, created: int) -> Version:
    """The version of a value that was made at ``created`` (server µs) under the write number ``number``."""
    return number << CREATED_BITS | created


def created_of(version: Version) -> int:
    """The server's µs at which the value of this version was made."""
    return version & ((1 << CREATED_BITS) - 1)


def number_of(version: Version) -> int:
    """The write number of a version."""
    return version >> CREATED_BITS


NO_FLOOR = 1 << 63
"""Above every number: what has no floor counts as cleared."""
