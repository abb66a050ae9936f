"""How a schedule says that an invariant of the protocol does not hold."""

from __future__ import annotations


class Violated(AssertionError):
    """An invariant of the protocol does not hold."""


def must(holds: object, what: str) -> None:
    """An invariant."""
    if not holds:
        raise Violated(what)
