"""What a batch of messages did to L1, and why L1 was flushed: reported outside the lock."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Cause(Enum):
    """Why L1 was flushed, in the words that count flushes; the event has the details."""

    UNREADABLE = "unreadable"
    """A message could not be read or applied."""
    GAP = "gap"
    """Numbers are missing between two messages, or at the end."""
    COUNTER = "counter"
    """The counter was lost or set back: the server came back empty, or another one with older data."""
    OTHER_SERVER = "other_server"
    """Commands and messages are of two servers, or another server counts the writes."""
    RECONNECT = "reconnect"
    """The connection was lost, and nothing proves that no message was."""


@dataclass(slots=True)
class Effects:
    """What a batch of messages did, to be reported outside the lock."""

    keys: list[str] = field(default_factory=list)
    everything: bool = False
    received: int = 0
    flushes: list[tuple[Cause, str, int]] = field(default_factory=list)
    """Cause, reason and number of dropped entries, per flush."""
    untold: list[Cause] = field(default_factory=list)
    """The causes of further flushes, which need no telling: bad messages go on coming."""
    restarted: bool = False
    """Whether the server has lost its values, or is another one: every key may have to be loaded anew."""
