"""The link to Redis: its states and breaker as one transition table. Everything that affects them is here.

state     what happens to an operation
UP        it is sent
DOWN      nothing is sent; while the bus reaches the server, one operation in ``breaker_reset`` seconds may try, and
          that is TRYING; else nobody tries: the bus's own reconnecting is the probe, so that readers never connect
TRYING    one operation is out; the others are not sent
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where the link stands."""

    UP = "up"
    DOWN = "down"
    TRYING = "trying"


class Signal(Enum):
    """What can happen to a link."""

    OK = "an operation was answered"
    FAILED = "operations failed, breaker_failures of them in a row"
    TIMED_OUT = "an operation timed out"
    TRY = "breaker_reset has passed and the bus reaches the server"
    BUS_UP = "the bus has been proven"


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.UP, Signal.OK): State.UP,
    (State.UP, Signal.FAILED): State.DOWN,
    (State.UP, Signal.TIMED_OUT): State.DOWN,
    (State.UP, Signal.TRY): State.UP,
    (State.UP, Signal.BUS_UP): State.UP,
    (State.DOWN, Signal.OK): State.DOWN,  # a late answer to what was sent before: not a probe's
    (State.DOWN, Signal.FAILED): State.DOWN,
    (State.DOWN, Signal.TIMED_OUT): State.DOWN,
    (State.DOWN, Signal.TRY): State.TRYING,
    (State.DOWN, Signal.BUS_UP): State.UP,
    (State.TRYING, Signal.OK): State.UP,
    (State.TRYING, Signal.FAILED): State.DOWN,
    (State.TRYING, Signal.TIMED_OUT): State.DOWN,
    (State.TRYING, Signal.TRY): State.TRYING,
    (State.TRYING, Signal.BUS_UP): State.UP,
}


class Link:
    """The breaker of one cache. Times are monotonic seconds that the caller brings.

    >>> link = Link(failures=1, reset=1.0)
    >>> link.bus_reached()
    >>> link.failed(timeout=False, now=0.0), link.permit(now=0.5), link.permit(now=1.5), link.permit(now=1.5)
    (True, False, True, False)
    >>> link.ok(), link.permit(now=1.6)
    (True, True)
    """

    def __init__(self, failures: int, reset: float) -> None:
        self._max_failures = failures
        self._reset = reset
        self._lock = threading.RLock()
        self._failures = 0
        self._since = 0.0
        self.state = State.UP
        self.bus = False

    def permit(self, now: float) -> bool:
        """Whether an operation may be sent now."""
        if self.state is State.UP:
            return True
        with self._lock:
            # A probe that never reports (its thread died) does not keep the link shut for ever.
            if not self.bus or now - self._since < self._reset:
                return False
            self._since = now
            self._move(Signal.TRY)
            return True

    def ok(self) -> bool:
        """An operation was answered; whether that closed the breaker."""
        if self.state is State.UP and not self._failures:
            return False
        with self._lock:
            return self._move(Signal.OK)

    def failed(self, *, timeout: bool, now: float) -> bool:
        """An operation was not answered as it should; whether that opened the breaker."""
        with self._lock:
            was_up = self.state is State.UP
            self._failures += 1
            if timeout:
                self._move(Signal.TIMED_OUT)
            elif self._failures >= self._max_failures or self.state is State.TRYING:
                self._move(Signal.FAILED)
            if self.state is State.DOWN:
                self._since = now
            return was_up and self.state is State.DOWN

    def bus_up(self) -> bool:
        """The bus has been proven; whether that closed the breaker."""
        with self._lock:
            self.bus = True
            return self._move(Signal.BUS_UP)

    def bus_reached(self) -> None:
        """The bus reached the server and was refused: operations may find out whether it serves them."""
        with self._lock:
            self.bus = True

    def bus_down(self) -> None:
        """The bus is lost; operations go on while they are answered."""
        with self._lock:
            self.bus = False

    def _move(self, signal: Signal) -> bool:
        """Take a transition; whether it led up from below."""
        before, self.state = self.state, TRANSITIONS[self.state, signal]
        if self.state is State.UP:
            self._failures = 0
        return before is not State.UP and self.state is State.UP
