"""Versions of values: a write's number and the server's time in one int."""

from __future__ import annotations

from typing import TypeAlias

Version: TypeAlias = int
"""A write's number in the upper bits, the server's time (µs) in the lower: one comparison orders two values."""

CREATED_BITS = 64


def version_of(number: int, created: int) -> Version:
    """The version of a value made at ``created`` (server µs) under the write number ``number``."""
    return number << CREATED_BITS | created


def created_of(version: Version) -> int:
    """The server's time (µs) at which the value of this version was made."""
    return version & ((1 << CREATED_BITS) - 1)


def number_of(version: Version) -> int:
    """The write number of a version."""
    return version >> CREATED_BITS


def whole(text: object) -> int | None:
    """A counter or a floor as Redis keeps it; None for what is no whole number, which is damage."""
    return int(text) if isinstance(text, bytes) and text.isdigit() and len(text) < 17 else None  # noqa: PLR2004


def share_of(text: object) -> float:
    """The part of the keys that L1 may hold, as Redis keeps it; what is absent or damaged limits nothing."""
    try:
        share = float(text) if isinstance(text, bytes) else 1.0
    except ValueError:
        return 1.0
    return share if 0 <= share <= 1 else 1.0


NO_FLOOR = 1 << 63
"""Above every number: without a floor, every value counts as cleared."""
