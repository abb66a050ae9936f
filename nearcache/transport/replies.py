"""What the replies to reads and scripts say, as answers of the protocol."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

from nearcache.engine.ports import RemoteFailed, TooLate
from nearcache.protocol.answers import (
    ABSENT,
    Absent,
    Bounds,
    Busy,
    Claim,
    Counted,
    Deleted,
    Granted,
    Held,
    Lease,
    OutOfRange,
    Present,
    Reading,
    Written,
)
from nearcache.protocol.versions import whole

PAIR = struct.Struct(">QQ")
_COUNTED = struct.Struct(">QQq")
VALUES = frozenset({bytes, type(None)})
"""The types of the values of an MGET."""


def reading_of(count: int, records: Any, *bounds: Any) -> Reading:
    """The replies to a read of so many keys."""
    records = values_of(records, count)
    if not bounds:
        return Reading(records)
    number, floor = map(whole, bounds[0])
    return Reading(records, ABSENT if number is None or floor is None else Bounds(number, floor))


def claim_of(found: bytes | None, left: int) -> Claim | None:
    """Who may fill a key, by the value and the remaining ms of its lease."""
    return Claim(found[:1] == b"D", max(left, 0) / 1000) if found else None


def values_of(reply: Any, count: int) -> list[bytes | None]:
    """The values of an MGET.

    Raises:
        TypeError: that is no list of ``count`` values. A proxy may put an error among them, which is raised.
    """
    if type(reply) is list and len(reply) == count and VALUES.issuperset(map(type, reply)):
        return reply
    for one in reply:
        if isinstance(one, RemoteFailed):
            raise one
    raise TypeError(type(reply))


NOT_ADDED: Mapping[bytes, Present | Held] = {b"V": Present(), b"D": Held()}
NOT_COUNTED: Mapping[bytes, Present | Absent | OutOfRange] = {b"V": Present(), b"A": Absent(), b"R": OutOfRange()}


def lease_of(reply: bytes, lease_ms: int, tags: Sequence[str]) -> Lease:
    """What was answered to the request for a lease."""
    kind, rest = reply[:1], reply[1:]
    if kind == b"V":
        return Present()
    if kind == b"B":
        return Busy(max(int(rest), 1) / 1000)
    if kind == b"D":
        return Held()
    if kind == b"L":
        raise TooLate("the request for a lease came to the server after its deadline")
    number, floor, *tag_floors = struct.unpack(f">{2 + len(tags)}Q", rest)
    return Granted(number, floor, tuple(tag_floors), lease_ms)


def written_of(reply: bytes) -> Written:
    """The number and the time of a write."""
    return Written(*PAIR.unpack(reply))


def filled_of(reply: bytes | None) -> Written | None:
    """The same; None: the fill was refused."""
    return None if reply is None else Written(*PAIR.unpack(reply))


def added_of(reply: bytes) -> Written | Present | Held:
    """The same, or what hindered an add."""
    return NOT_ADDED[reply] if reply in NOT_ADDED else written_of(reply)


def touched_of(reply: bytes) -> Written | Present:
    """The same; Present: another record is there, or none."""
    return Present() if reply == b"C" else written_of(reply)


def counted_of(reply: bytes) -> Counted | Present | Absent | OutOfRange:
    """A write and its counter, or what hindered it."""
    if reply in NOT_COUNTED:
        return NOT_COUNTED[reply]
    number, created, count = _COUNTED.unpack(reply)
    return Counted(Written(number, created), count)


def deleted_of(reply: bytes) -> Deleted:
    """A write, and the head of the record that was there."""
    return Deleted(written_of(reply[: PAIR.size]), reply[PAIR.size :])


def written_yet(reply: bytes | None, not_before: int) -> Written | None:
    """The same; None: it is too early for a replay."""
    return None if reply is None and not_before else written_of(cast("bytes", reply))
