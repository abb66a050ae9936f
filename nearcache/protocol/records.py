"""The record of a value in Redis: a head that the scripts write, a tail that the client writes.

    head   magic (1)  number (8)  created, server µs (8)  fresh until, server µs (8)  load time, ms (4)
    tail   count of tags (1)  per tag: length (2), UTF-8  payload of the codec

All numbers are big-endian. The head has a fixed size, so that a script can change ``fresh until`` in place. A new
layout gets a new magic: older releases then see a foreign value, which is a miss. The load time is the age of the lease
at the fill: the load began no earlier than that before ``created``. It is 0 for a value that was set.

A counter is a record of another magic, without tags: its payload is a signed number of 8 bytes, which scripts write.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from nearcache.protocol.versions import Version, created_of, version_of

MAGIC, COUNTER = 0xC2, 0xC3
_HEAD = struct.Struct(">BQQQI")
HEAD_BYTES = _HEAD.size
_LENGTH = struct.Struct(">H")
_COUNT = struct.Struct(">q")
WHOLE = struct.Struct(">BQQQIB")
"""The head, and the part of the tail that has a fixed size."""
WHOLE_BYTES = WHOLE.size
NUMBER_MAX = 1 << 53
"""Above it Lua's numbers are not exact: no script gives out such a write number."""


class Record(NamedTuple):
    """A parsed record; the payload is still encoded."""

    version: Version
    fresh_until: int
    tags: tuple[str, ...]
    payload: bytes
    load_ms: int = 0
    counter: bool = False
    """Whether it is a counter, whose number ``count_of`` gives: L1 never keeps it."""

    @property
    def began(self) -> int:
        """When its value was made at the earliest, server µs: a loader was called, or a set was executed."""
        return created_of(self.version) - self.load_ms * 1000


def pack_tail(payload: bytes, tags: Sequence[str] = ()) -> bytes:
    """The tail of a record: at most 255 tags, and the payload."""
    return b"".join((bytes((len(tags),)), pack_names(tags), payload)) if tags else b"\0" + payload


def pack_names(names: Sequence[str]) -> bytes:
    """The bytes of some keys or tags, each behind its length."""
    if len(names) == 1:
        name = names[0].encode()
        return _LENGTH.pack(len(name)) + name
    encoded = [name.encode() for name in names]
    return b"".join(part for name in encoded for part in (_LENGTH.pack(len(name)), name))


def unpack_names(data: bytes, at: int, end: int) -> list[str]:
    """Parse the keys or tags from ``at`` to exactly ``end``.

    Raises:
        ValueError: the last name runs over the end, or one is no UTF-8. IndexError: half a length is left.
    """
    names: list[str] = []
    while at < end:
        size = data[at] << 8 | data[at + 1]
        at += 2
        if at + size > end:
            raise ValueError("a name runs over the end")
        names.append(data[at : at + size].decode())
        at += size
    return names


def fresh_until_of(head: bytes) -> int:
    """Until when (server µs) the record of this head is fresh; 0: never, or it is no head of a record."""
    ours = len(head) == HEAD_BYTES and head[0] in (MAGIC, COUNTER)
    return int(_HEAD.unpack(head)[3]) if ours else 0


def pack_count(number: int) -> bytes:
    """The payload of a counter."""
    return _COUNT.pack(number)


def count_of(payload: bytes) -> int:
    """The number of a counter."""
    number: int = _COUNT.unpack(payload)[0]
    return number


def unpack(record: bytes) -> Record:
    """Parse a record.

    Raises:
        ValueError: it is no record of this library, or it is damaged. The payload is not checked.
    """
    if len(record) < WHOLE_BYTES:
        raise ValueError(f"{len(record)} bytes are no record")
    magic, number, created, fresh_until, load_ms, count = WHOLE.unpack_from(record)
    if magic == COUNTER and len(record) == WHOLE.size + _COUNT.size and number < NUMBER_MAX:
        return Record(version_of(number, created), fresh_until, (), record[WHOLE.size :], counter=True)
    if magic != MAGIC:
        raise ValueError(f"a record begins with {MAGIC:#x}, not {magic:#x}")
    if number >= NUMBER_MAX:
        raise ValueError(f"the write number {number} was never given out")
    at = WHOLE_BYTES
    if not count:
        return Record(version_of(number, created), fresh_until, (), record[at:], load_ms)
    tags: list[str] = []
    try:
        for _ in range(count):
            (size,) = _LENGTH.unpack_from(record, at)
            at += 2
            if at + size > len(record):
                raise ValueError("a tag runs over the end")
            tags.append(record[at : at + size].decode())
            at += size
    except struct.error as error:
        raise ValueError("a tag runs over the end") from error
    if len(set(tags)) < len(tags):
        raise ValueError("a tag stands twice")
    return Record(version_of(number, created), fresh_until, tuple(tags), record[at:], load_ms)
