"""The messages of the bus.

    version (1)  kind (1)  number (8, kinds I C T S only)  per key or tag: length (2), UTF-8

    I  these keys changed      C  the namespace was cleared      T  these tags were invalidated
    S  values of these tags are stale
    F  a lease ended that another instance waits for (no number)
    P  the probe of an instance that starts: its nonce (no number)

A message has one number and may have many keys. Bytes that do not parse, and an unknown kind, are a BadMessage, for
which L1 is flushed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from nearcache.protocol.records import pack_names, unpack_names

VERSION = 1
CHANGED, CLEARED, TAGGED, STALE, FILLED, PROBE = b"ICTSFP"
NUMBERED = struct.Struct(">BBQ")
CHANGE = struct.Struct(">HQH")
"""The head of nearly all messages, I with one key: version and kind, number, length of the key that follows."""
ONE_CHANGED = VERSION << 8 | CHANGED
"""The first two bytes of such a head."""


class BadMessage(ValueError):
    """Bytes on the channel that are no message of this library."""


class Message(NamedTuple):
    """A parsed message; ``number`` is 0 for a kind that has none."""

    kind: int
    number: int
    names: Sequence[str]


def pack_probe(nonce: str) -> bytes:
    """The probe with which a new instance checks that messages come back to it; other instances ignore it."""
    return bytes((VERSION, PROBE)) + pack_names([nonce])


def unpack(data: bytes) -> Message:
    """Parse a message.

    Raises:
        BadMessage: the bytes are no message of this library.
    """
    try:
        if data[0] != VERSION:
            raise BadMessage(f"version {data[0]}")
        kind = data[1]
        if kind in (FILLED, PROBE):
            return Message(kind, 0, unpack_names(data, 2, len(data)))
        _, _, number = NUMBERED.unpack_from(data)
        if kind not in (CHANGED, CLEARED, TAGGED, STALE):
            raise BadMessage(f"kind {kind}")
        return Message(kind, number, unpack_names(data, NUMBERED.size, len(data)))
    except BadMessage:
        raise
    except (ValueError, IndexError, struct.error) as error:
        raise BadMessage(str(error)) from error
