"""Nanoseconds per operation of statements that are compared: interleaved rounds, medians, ratios within a round.

How: each statement is compiled into a loop of its own over the same keys, as timeit does, so that no statement pays for
another's call site. In each round all statements run once, in a new random order, and an empty loop among them, whose
time is taken off. A ratio is made within a round, so that a machine that slows down slows both; then the median over
the rounds is taken. The garbage collector is off while a loop runs. Everything runs on one event loop, which gets a
turn before each statement: a cache of asyncio is measured where it lives, with its bus at work.

The clock is the thread's processor time where no statement waits for anything: what other processes take from the
machine meanwhile is not theirs. Statements that wait for a server are timed by the clock on the wall (``waits``).
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.tables import Spread

LEAST_OPERATIONS = 100_000
"""Per statement and round."""
TURN = 0.005
"""Seconds that the loop and other threads get before each statement."""
EMPTY = "the empty loop, already taken off"

_LOOP = """
{kind} loop(keys, repeats, clock):
    start = clock()
    for _ in repeats:
        for key in keys:
            {statement}
    return clock() - start
"""


@dataclass(frozen=True)
class Case:
    """A statement that uses ``key``, and what else it names.

    Args:
        label: how reports call it.
        statement: run once per key; it may await.
        names: its global names.
        keys: from what a key is made for this statement, if it is not the plain key.
    """

    label: str
    statement: str
    names: Mapping[str, Any] = field(default_factory=dict)
    keys: Callable[[str], Any] = str

    @property
    def awaits(self) -> bool:
        """Whether it is to run in a coroutine."""
        return self.statement.startswith("await ")

    def compile(self) -> Callable[..., Any]:
        """The loop around the statement: a code object of its own."""
        scope = dict(self.names)
        exec(_LOOP.format(kind="async def" if self.awaits else "def", statement=self.statement), scope)
        loop: Callable[..., Any] = scope["loop"]
        return loop


class Times:
    """What ``compare`` measured: ns per operation, per label and round."""

    def __init__(self, rounds: Sequence[Mapping[str, float]]) -> None:
        self.rounds = rounds

    def ns(self, label: str) -> Spread:
        """Nanoseconds per operation."""
        return Spread.of([one[label] for one in self.rounds])

    def ratio(self, label: str, to: str) -> Spread:
        """How many times as long as another it takes, round by round.

        >>> Times([{"a": 2.0, "b": 1.0}, {"a": 6.0, "b": 2.0}]).ratio("a", to="b").median
        2.5
        """
        return Spread.of([one[label] / one[to] for one in self.rounds])


async def compare(
    cases: Sequence[Case], keys: Sequence[str], rounds: int, *, seconds: float | None = None, waits: bool = False
) -> Times:
    """Measure some cases side by side.

    Args:
        cases: what is compared; they differ in label.
        keys: each statement runs over them, again and again.
        rounds: how many values the medians are taken from.
        seconds: about how long a statement is to take in a round, where some take a thousand times as long as others;
            without it each runs at least LEAST_OPERATIONS times.
        waits: whether statements wait for a server, so that processor time would not be all of it.
    """
    if len({case.label for case in cases}) < len(cases):
        raise ValueError(f"two cases have one label: {[case.label for case in cases]}")
    clock = time.perf_counter_ns if waits else time.thread_time_ns
    most = math.ceil(LEAST_OPERATIONS / len(keys))
    cases = (*cases, Case(EMPTY, "pass"))
    compiled = []
    for case in cases:  # the first calls fill caches and let the interpreter specialise the code
        loop, own_keys = case.compile(), [case.keys(key) for key in keys]
        if seconds is None:
            repeats = most
            await _run(case, loop, own_keys, max(1, repeats // 10), clock)
        else:
            await _run(case, loop, own_keys, 1, clock)
            once = await _run(case, loop, own_keys, 1, clock)
            repeats = min(most, max(1, round(seconds * 1e9 / max(once, 1))))
        compiled.append((case, loop, own_keys, repeats))
    measured = []
    gc.collect()
    gc.freeze()  # what is there already need not be looked at before each loop
    try:
        for _ in range(rounds):
            random.shuffle(compiled)
            took = {
                case.label: await _run(case, loop, own_keys, repeats, clock) / (repeats * len(keys))
                for case, loop, own_keys, repeats in compiled
            }
            empty = took[EMPTY]
            net = {case.label: took[case.label] - empty for case in cases}
            measured.append({**net, EMPTY: empty})
    finally:
        gc.unfreeze()
    return Times(measured)


async def _run(
    case: Case, loop: Callable[..., Any], keys: Sequence[Any], repeats: int, clock: Callable[[], int]
) -> int:
    """Nanoseconds that a loop takes by this clock."""
    await asyncio.sleep(TURN)
    gc.collect()
    gc.disable()
    try:
        ran = loop(keys, range(repeats), clock)
        took: int = await ran if case.awaits else ran
    finally:
        gc.enable()
    return took
