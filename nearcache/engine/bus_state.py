"""The life of the bus as one transition table: the state of the connection that carries the messages.

state          what it means for the cache                                word of ``health()``
IDLE           it has not been used yet                                   idle
CONNECTING     the first attempt is under way                             connecting
PROVEN         L1 serves while its proof holds                            proven
LOST           L1 serves until its proof ends; it is tried again          lost
REFUSED        the server answers, but gives no messages: L2 alone        refused
MISCONFIGURED  the server can never answer as set up; ``with`` raises     refused
INCOMPATIBLE   the namespace is kept by another protocol: loaders alone   refused
CLOSED         nothing                                                    closed

A loss is reported when the bus was proven, or at the first attempt; a refusal when it was not refused before.
INCOMPATIBLE ends only with a proof: until then nothing says that the other protocol has gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias, cast

BusWord: TypeAlias = Literal["none", "idle", "connecting", "proven", "lost", "refused", "closed"]


class BusState(Enum):
    """The state of the bus."""

    IDLE = "idle"
    CONNECTING = "connecting"
    PROVEN = "proven"
    LOST = "lost"
    REFUSED = "refused"
    MISCONFIGURED = "misconfigured"
    INCOMPATIBLE = "incompatible"
    CLOSED = "closed"

    @property
    def refused(self) -> bool:
        """Whether the server was reached but can't be used as a bus."""
        return self in _REFUSALS

    @property
    def word(self) -> BusWord:
        """The state as ``health()`` has it."""
        return "refused" if self.refused else cast("BusWord", self.value)


_REFUSALS = frozenset({BusState.REFUSED, BusState.MISCONFIGURED, BusState.INCOMPATIBLE})


GRAVITY = (
    BusState.CLOSED,
    BusState.INCOMPATIBLE,
    BusState.MISCONFIGURED,
    BusState.REFUSED,
    BusState.LOST,
    BusState.CONNECTING,
    BusState.IDLE,
    BusState.PROVEN,
)
"""Of several buckets, the state of the whole is the gravest of them, which is the first here."""


class BusSignal(Enum):
    """An event in the life of the bus."""

    START = "the cache is used for the first time"
    PROVED = "L1 was proven"
    FAILED = "the connection ended, or could not be made"
    REFUSED = "the server gives no messages"
    MISCONFIGURED = "the server can never answer as set up"
    INCOMPATIBLE = "the namespace is kept by another protocol"
    CLOSE = "the cache is closed, or forgotten"


_ENDED: Mapping[BusSignal, BusState] = {
    BusSignal.PROVED: BusState.PROVEN,
    BusSignal.FAILED: BusState.LOST,
    BusSignal.REFUSED: BusState.REFUSED,
    BusSignal.MISCONFIGURED: BusState.MISCONFIGURED,
    BusSignal.INCOMPATIBLE: BusState.INCOMPATIBLE,
    BusSignal.CLOSE: BusState.CLOSED,
}
"""The ways in which an attempt may end, from any state."""

TRANSITIONS: Mapping[BusState, Mapping[BusSignal, BusState]] = {
    BusState.IDLE: {BusSignal.START: BusState.CONNECTING, BusSignal.CLOSE: BusState.CLOSED},
    BusState.CONNECTING: _ENDED,
    BusState.PROVEN: _ENDED,
    BusState.LOST: _ENDED,
    BusState.REFUSED: _ENDED,
    BusState.MISCONFIGURED: _ENDED,
    BusState.INCOMPATIBLE: {
        **dict.fromkeys(_ENDED, BusState.INCOMPATIBLE),
        BusSignal.PROVED: BusState.PROVEN,
        BusSignal.CLOSE: BusState.CLOSED,
    },
    BusState.CLOSED: dict.fromkeys(BusSignal, BusState.CLOSED),  # the last attempt may still end
}
"""A pair that is not here can't happen: the look-up fails."""


class Phase(Enum):
    """How far one connection has come; each comes after the one before."""

    SUBSCRIBED = "its greeting has been asked for"
    PREPARED = "the probe was sent and the journal drained"
    PROVEN = "L1 was proven by it"


class Report(Enum):
    """What has to be reported to the user's callbacks."""

    NOTHING = "nothing new"
    LOSS = "the bus is lost"
    REFUSAL = "the bus is refused"


def advance(state: BusState, signal: BusSignal) -> tuple[BusState, Report]:
    """The next state, and what is to be reported.

    >>> advance(BusState.PROVEN, BusSignal.FAILED)
    (<BusState.LOST: 'lost'>, <Report.LOSS: 'the bus is lost'>)
    >>> advance(BusState.LOST, BusSignal.FAILED)
    (<BusState.LOST: 'lost'>, <Report.NOTHING: 'nothing new'>)
    """
    new = TRANSITIONS[state][signal]
    if new.refused:
        return new, Report.NOTHING if state.refused else Report.REFUSAL
    if new is BusState.LOST and state in (BusState.CONNECTING, BusState.PROVEN):
        return new, Report.LOSS
    return new, Report.NOTHING
