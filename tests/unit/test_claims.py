"""Which empty bucket an instance takes: one of a namespace whose number of buckets it knows to be its own (X)."""

from __future__ import annotations

import pytest

from nearcache.engine.ports import Incompatible
from nearcache.protocol.names import Names
from nearcache.transport.claims import Claims, Vacant

COUNT = 4
NAMES = [Names("n", 0, bucket, COUNT) for bucket in range(COUNT)]
OURS, OTHER, EMPTY = b"2/4", b"2/8", b""


def claims(*told: bytes | None) -> Claims:
    """What the buckets have told, in their order; None: no answer came."""
    made = Claims(COUNT)
    for names, owner in zip(NAMES, told, strict=True):
        if owner is not None:
            made.tell(names, owner)
    return made


def test_one_bucket_alone_is_always_taken() -> None:
    """Nothing else can be asked; a server that came back empty is taken anew."""
    made = Claims()
    assert made.may(Names("n"))
    made.tell(Names("n"), b"9/1")
    assert made.may(Names("n"))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((None, None, None, None), []),
        ((EMPTY, EMPTY, EMPTY, None), []),
        ((EMPTY, EMPTY, EMPTY, EMPTY), [0]),
        ((None, EMPTY, EMPTY, EMPTY), []),
        ((OURS, EMPTY, EMPTY, EMPTY), [0, 1, 2, 3]),
        ((EMPTY, None, OURS, EMPTY), [0, 1, 2, 3]),
        ((EMPTY, OTHER, OTHER, EMPTY), []),
        ((EMPTY, OTHER, OURS, EMPTY), []),
        ((EMPTY, OTHER, EMPTY, EMPTY), []),
    ],
)
def test_which_may_be_taken(told: tuple[bytes | None, ...], expected: list[int]) -> None:
    """A new one begins with the first, when all others have told; no bucket of another protocol may be known."""
    made = claims(*told)
    for bucket, owner in enumerate(told):
        if owner is EMPTY:
            assert made.may(NAMES[bucket]) is (bucket in expected)


def test_why_not() -> None:
    """An empty bucket is refused with the buckets that have not answered, or with those that disagree."""
    made = claims(EMPTY, EMPTY, None, None)
    with pytest.raises(Vacant, match=r"bucket 1 is empty, .* no answer came from buckets 2 3"):
        made.check(NAMES[1])
    made = claims(EMPTY, OTHER, OURS, OURS)
    with pytest.raises(Vacant, match=r"buckets 2 3 by 2/4, bucket 1 by 2/8; .* delete \{n:1\}:m "):
        made.check(NAMES[0])
    with pytest.raises(Incompatible, match=r"delete \{n:1\}:m "):
        made.check(NAMES[1])
    made.check(NAMES[2])
    made = claims(OTHER, EMPTY, None, None)
    with pytest.raises(Incompatible, match="kept by protocol 2/8, this is 2/4"):
        made.check(NAMES[0])
    with pytest.raises(Vacant, match="other buckets of the namespace are kept by another protocol"):
        made.check(NAMES[1])
