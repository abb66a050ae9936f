"""The breaker as one transition table: whether an operation is sent to Redis. All that affects it is in this file.

state     what happens to an operation                              does the bus reach the server
UP        it is sent                                                yes
DEAF      it is sent: commands are answered, or not yet tried       no
DOWN      not sent, but one in ``breaker_reset`` seconds may try    yes
TRYING    not sent: that one is out                                 yes
AWAY      not sent, and no operation tries: the bus, which          no
          reconnects, is the probe, so that readers neither
          connect nor resolve names

What counts as a failure: a timeout opens the breaker at once; a connection that failed or could not be made, and an
error that says that the server serves no client now (``SERVES_NOBODY``), when ``breaker_failures`` come in a row.
Any other error is an answer: Redis is there, and refuses this operation. It leaves the breaker alone, or a server that
refuses writes would be asked for no reads. Refused operations are kept beside, so that a refusal is reported once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias

from nearcache.local.interrupts import make_lock

BreakerWord: TypeAlias = Literal["closed", "half-open", "open"]
BREAKER_WORDS: tuple[BreakerWord, ...] = ("closed", "half-open", "open")
"""From good to bad."""

SERVES_NOBODY = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "TRYAGAIN", "WRONGPASS"})
"""Error codes of a server that answers no operation for now: a script does not end, a data set is being loaded."""

ELSEWHERE = frozenset({"ASK", "CLUSTERDOWN", "MOVED", "TRYAGAIN"})
"""Error codes of a cluster's node that does not serve these names, or not all of them: nothing was executed."""

REFUSES_WRITES = frozenset({"MISCONF", "NOREPLICAS", "OOM", "READONLY"})
"""Error codes of a server that takes no write for now, from any client; reads are answered."""


class State(Enum):
    """Which operations are sent, and whether the bus reaches the server."""

    UP = "up"
    DEAF = "deaf"
    DOWN = "down"
    TRYING = "trying"
    AWAY = "away"


class Signal(Enum):
    """An event that may change the state."""

    OK = "an operation was answered"
    FAILED = "an operation timed out, or breaker_failures of them failed in a row"
    TRY = "an operation is wanted, and breaker_reset has passed"
    BUS_REACHED = "the bus reached the server, even if it was refused there"
    BUS_PROVEN = "the bus has proven L1"
    BUS_LOST = "the bus is lost, or could not connect"


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.UP, Signal.OK): State.UP,
    (State.UP, Signal.FAILED): State.DOWN,
    (State.UP, Signal.TRY): State.UP,
    (State.UP, Signal.BUS_REACHED): State.UP,
    (State.UP, Signal.BUS_PROVEN): State.UP,
    (State.UP, Signal.BUS_LOST): State.DEAF,
    (State.DEAF, Signal.OK): State.DEAF,
    (State.DEAF, Signal.FAILED): State.AWAY,
    (State.DEAF, Signal.TRY): State.DEAF,
    (State.DEAF, Signal.BUS_REACHED): State.UP,
    (State.DEAF, Signal.BUS_PROVEN): State.UP,
    (State.DEAF, Signal.BUS_LOST): State.DEAF,
    (State.DOWN, Signal.OK): State.DOWN,  # a late answer to what was sent before: not a probe's
    (State.DOWN, Signal.FAILED): State.DOWN,
    (State.DOWN, Signal.TRY): State.TRYING,
    (State.DOWN, Signal.BUS_REACHED): State.DOWN,
    (State.DOWN, Signal.BUS_PROVEN): State.UP,
    (State.DOWN, Signal.BUS_LOST): State.AWAY,
    (State.TRYING, Signal.OK): State.UP,
    (State.TRYING, Signal.FAILED): State.DOWN,
    (State.TRYING, Signal.TRY): State.TRYING,  # the one before never reported: its thread died
    (State.TRYING, Signal.BUS_REACHED): State.TRYING,
    (State.TRYING, Signal.BUS_PROVEN): State.UP,
    (State.TRYING, Signal.BUS_LOST): State.AWAY,
    (State.AWAY, Signal.OK): State.AWAY,  # late, as above
    (State.AWAY, Signal.FAILED): State.AWAY,
    (State.AWAY, Signal.TRY): State.AWAY,
    (State.AWAY, Signal.BUS_REACHED): State.DOWN,
    (State.AWAY, Signal.BUS_PROVEN): State.UP,
    (State.AWAY, Signal.BUS_LOST): State.AWAY,
}


class Breaker:
    """The breaker of one cache. Times are monotonic seconds that the caller brings.

    >>> breaker = Breaker(failures=1, reset=1.0)
    >>> breaker.bus_reached()
    >>> breaker.failed(timeout=False, now=0.0)
    True
    >>> [breaker.permit(now=now) for now in (0.5, 1.5, 1.5)]
    [False, True, False]
    >>> breaker.ok(), breaker.permit(now=1.6)
    (True, True)
    """

    def __init__(self, failures: int, reset: float) -> None:
        self._max_failures = failures
        self._reset = reset
        self._lock = make_lock()
        self.failures = 0
        """How many operations have failed since one was answered."""
        self._since = 0.0
        self.state = State.DEAF
        self.sends = True
        """Whether the breaker is closed: everything is sent."""
        self.refused: dict[str, str] = {}
        """The operations that Redis refuses while it answers, each with the code of the error."""
        self.reason = ""
        """Why it was opened last."""

    @property
    def word(self) -> BreakerWord:
        """The state as ``health()`` has it."""
        return "closed" if self.sends else "half-open" if self.state is State.TRYING else "open"

    @property
    def bus(self) -> bool:
        """Whether the bus reaches the server."""
        return self.state is not State.DEAF and self.state is not State.AWAY

    def permit(self, now: float) -> bool:
        """Whether an operation may be sent now."""
        if self.sends:
            return True
        with self._lock:
            if now - self._since >= self._reset:
                self._move(Signal.TRY)
                if self.state is State.TRYING:
                    self._since = now
                    return True
            return self.sends

    def ok(self) -> bool:
        """An operation was answered; whether that closed the breaker."""
        if self.sends and not self.failures:
            return False
        with self._lock:
            return self._move(Signal.OK)

    def failed(self, *, timeout: bool, now: float) -> bool:
        """An operation was not answered as it should; whether that opened the breaker."""
        with self._lock:
            before = self.sends
            self.failures += 1
            if timeout or self.failures >= self._max_failures or self.state is State.TRYING:
                self._move(Signal.FAILED)
            if not self.sends:
                self._since = now
            return before and not self.sends

    def bus_up(self) -> bool:
        """The bus has been proven; whether that closed the breaker."""
        with self._lock:
            return self._move(Signal.BUS_PROVEN)

    def bus_reached(self) -> None:
        """The bus reached the server, or was refused by it: an operation may try whether the server answers."""
        with self._lock:
            self._move(Signal.BUS_REACHED)

    def bus_down(self) -> None:
        """The bus is lost; operations go on while they are answered."""
        with self._lock:
            self._move(Signal.BUS_LOST)

    def refuse(self, operation: str, code: str) -> bool:
        """Redis refused an operation; whether this is the only one that it refuses."""
        with self._lock:
            first = not self.refused
            self.refused[operation] = code
            return first

    def accept(self, operation: str, *, wrote: bool, stored: bool) -> bool:
        """Redis carried out an operation; whether it refuses none any more.

        An operation comes off the list when it is carried out again. A server that took no writes takes them all again
        when it took one; but if its memory was full, only when it stored a value, since deletes always pass.
        """
        with self._lock:
            for other, code in tuple(self.refused.items()):
                healed = code in REFUSES_WRITES and (stored or (wrote and code != "OOM"))
                if healed or other == operation:
                    del self.refused[other]
            return not self.refused

    def _move(self, signal: Signal) -> bool:
        """Make a transition; whether it closed the breaker."""
        before, self.state = self.sends, TRANSITIONS[self.state, signal]
        self.sends = self.state in (State.UP, State.DEAF)
        if self.sends and signal in (Signal.OK, Signal.BUS_PROVEN):
            self.failures = 0
        return self.sends and not before
