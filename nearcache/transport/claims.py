"""Whose the buckets of a namespace are: what each has told of its protocol, and which empty one may be taken.

Instances of two numbers of buckets would not hear each other. So the number is written into each bucket, and a bucket
that is empty is taken only by an instance that knows the number to be its own (docs/protocol.md, X).
"""

from __future__ import annotations

from functools import partial

from nearcache.engine.ports import Incompatible, NotSent
from nearcache.protocol.answers import Empty
from nearcache.protocol.names import Names


class Vacant(NotSent):
    """A bucket is empty, and this instance may not take it now."""


class Claims:
    """What the buckets of one namespace have told one cache, each by its last answer of greet.

    Args:
        buckets: how many there are.
    """

    def __init__(self, buckets: int = 1) -> None:
        self._buckets = buckets
        self._told: dict[int, tuple[bytes, bytes]] = {}
        """Of each bucket that has answered its protocol, or nothing, and the name of its counter."""

    def tell(self, names: Names, owner: bytes) -> None:
        """Note the protocol that keeps a bucket; nothing: it is empty."""
        self._told[names.bucket] = owner, names.counters

    def may(self, names: Names) -> bool:
        """Whether this instance may take the bucket if it is empty.

        No other bucket may tell of another protocol, and one has to tell of this one. In a new namespace none does:
        there the first bucket is taken when all others have told that they are empty.
        """
        told = self._told.copy()
        told.pop(names.bucket, None)
        owners = {owner for owner, _ in told.values()} - {b""}
        if owners:
            return owners == {names.protocol}
        return names.bucket == 0 and len(told) == self._buckets - 1

    def check(self, names: Names) -> None:
        """Refuse a bucket that is another protocol's, or nobody's.

        Raises:
            Incompatible: another version of the protocol, or another number of buckets.
            Vacant: it is empty, and may not be taken now.
        """
        (owner, _), ours = self._told[names.bucket], names.protocol
        if not owner:
            raise Vacant(self._why_empty(names))
        if owner != ours:
            kept = owner[:20].decode(errors="replace")
            same_major = owner.split(b"/")[0] == ours.split(b"/")[0]
            way_out = "the same number of buckets" if same_major else "the same release"
            raise Incompatible(
                self.disagreement(names)
                or f"the namespace is kept by protocol {kept}, this is {ours.decode()}; "
                f"use another namespace, or {way_out} everywhere"
            )

    def empty(self, names: Names) -> Empty | None:
        """The answer for a bus of a bucket that is nobody's; None: it is somebody's."""
        return None if self._told[names.bucket][0] else Empty(partial(self.may, names), partial(self._why_empty, names))

    def disagreement(self, names: Names) -> str | None:
        """What to do about buckets that tell of several protocols; None: they do not."""
        owners = self._by_owner()
        others = [bucket for owner, some in owners.items() if owner != names.protocol for bucket in some]
        if len(owners) < 2:  # noqa: PLR2004  # of one they are all
            return None
        told = ", ".join(
            f"{_shown(some)} by {owner[:20].decode(errors='replace')}" for owner, some in sorted(owners.items())
        )
        deleted = " ".join(self._told[bucket][1].decode() for bucket in sorted(others))
        return (
            f"buckets of the namespace are kept by several protocols: {told}; if all instances have "
            f"{names.protocol.decode()}, delete {deleted} (docs/upgrading.md)"
        )

    def _why_empty(self, names: Names) -> str:
        owners = self._by_owner()
        if owners.keys() - {names.protocol}:
            return self.disagreement(names) or "other buckets of the namespace are kept by another protocol"
        unknown = [bucket for bucket in range(self._buckets) if bucket not in self._told]
        return (
            f"bucket {names.bucket} is empty, and nothing says how many buckets the namespace has: "
            f"no answer came from {_shown(unknown)}"
        )

    def _by_owner(self) -> dict[bytes, list[int]]:
        owners: dict[bytes, list[int]] = {}
        for bucket, (owner, _) in sorted(self._told.copy().items()):
            if owner:
                owners.setdefault(owner, []).append(bucket)
        return owners


def _shown(buckets: list[int]) -> str:
    return f"bucket{'s' * (len(buckets) != 1)} {' '.join(map(str, buckets))}"
