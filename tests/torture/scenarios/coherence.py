"""Four processes and one server: each update must reach the three other L1s, soon, and nothing old may be left.

A round of the run, between barriers:

    prepare   every process brings every key into its L1; peek must find the value of the last round there
    write     each process sets its share of the keys, at a moderate pace
    settle    each waits until it has heard of every write; then no L1 may serve an old value

Nobody polls for the moment of a drop: three processes that poll would take the cores from those that work. Instead each
process takes the time as soon as its cache has applied a message, and there makes sure by peek that the old value is
gone. A raw hiredis subscriber in a thread of the same process takes the time of the same message: what the network, the
scheduler and the GIL cost anyway. All times are CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.instance import KINDS, Plan, Settled, crew_of

KEYS = 100
PACE = 0.008
"""Seconds between two writes of one process, on average."""
DROPPED, RAW = "dropped from L1", "raw hiredis subscriber"
SENT, ACKNOWLEDGED = "set called", "set returned"
PERCENTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass
class Outcome:
    """What a run found. ``seen + missed`` is three times the updates."""

    updates: int = 0
    seen: int = 0
    """Foreign writes whose message reached a process, after which its L1 no longer served the old value."""
    missed: int = 0
    """Foreign writes without that."""
    stale: int = 0
    """Old values that were served: by an L1 after a round, or by any tier before the next or at the end."""
    unprepared: int = 0
    """Keys that were not in an L1 before they were written: nothing could be dropped there."""
    refused: int = 0
    """Writes that the server did not acknowledge."""
    raw_missed: int = 0
    """What the raw subscribers missed."""
    seconds: float = 0.0
    delays: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    """ns, by what arrived (DROPPED, RAW), since when (SENT, ACKNOWLEDGED), and the kind of process."""

    @property
    def coherent(self) -> bool:
        """Whether every update was prepared, acknowledged and seen, and nothing old was left."""
        return not (self.missed or self.stale or self.unprepared or self.refused)

    def take(self, settled: Sequence[Settled]) -> None:
        """Count a round: match every write with what the other processes saw of it."""
        for writer, own in enumerate(settled):
            self.stale += own.stale
            self.refused += own.refused
            self.updates += len(own.writes)
            for key, (sent, acknowledged) in own.writes.items():
                for reader, other in enumerate(settled):
                    if reader == writer:
                        continue
                    self.seen += key in other.dropped
                    self.missed += key not in other.dropped
                    self.raw_missed += key not in other.raw
                    for what, times in ((DROPPED, other.dropped), (RAW, other.raw)):
                        if key in times:
                            for since, begin in ((SENT, sent), (ACKNOWLEDGED, acknowledged)):
                                line = self.delays.setdefault((what, since, KINDS[reader]), [])
                                line.append(times[key] - begin)

    def of(self, what: str, since: str, kind: str | None = None) -> list[int]:
        """Delays in ns, ascending; of both kinds of process when none is named."""
        chosen = [one for (a, b, c), one in self.delays.items() if (a, b) == (what, since) and kind in (None, c)]
        return sorted(delay for one in chosen for delay in one)


def run(
    url: str,
    namespace: str,
    *,
    updates: int,
    pace: float = PACE,
    breaking: Mapping[int, Callable[[Any], None]] | None = None,
) -> Outcome:
    """Do whole rounds until there were at least ``updates``.

    Args:
        url: a server.
        namespace: one that nobody else uses.
        updates: in all; each round has KEYS.
        pace: seconds between two writes of one process, on average.
        breaking: per number of a process, what is done to its cache before the first round: so it is shown that the run
            can fail. The function goes to the process by its name, and must be a module's.

    Raises:
        RuntimeError: a process ended, or did not answer.
    """
    outcome = Outcome()
    began = time.monotonic()
    keys = tuple(f"key:{number}" for number in range(KEYS))
    with crew_of(
        [Plan(number, url, namespace, keys, pace, (breaking or {}).get(number)) for number in range(4)]
    ) as crew:
        crew.ask("write", 0)  # the first values
        crew.ask("settle", 0)
        crew.ask("tamper", 0)
        rounds = math.ceil(updates / KEYS)
        for number in range(1, rounds + 1):
            for ready in crew.ask("prepare", number):
                outcome.stale += ready.stale
                outcome.unprepared += ready.unprepared
            crew.ask("write", number)
            outcome.take(crew.ask("settle", number))
        outcome.stale += sum(crew.ask("compare", rounds))
    outcome.seconds = time.monotonic() - began
    return outcome


def show(report: Report) -> bool:
    """Run, print and keep; whether it was coherent."""
    with EmbeddedServer() as server:
        outcome = run(server.url, "coherence", updates=1_000 if report.quick else 10_000)
    report.show(_counts(outcome))
    report.show(_delays(outcome))
    report.keep(
        "coherence",
        {
            **{name: value for name, value in vars(outcome).items() if name != "delays"},
            "delays, µs": {
                " / ".join(filter(None, line)): _microseconds(outcome.of(*line)) for line in _lines(outcome)
            },
        },
    )
    return outcome.coherent


def _counts(outcome: Outcome) -> Table:
    names = ("updates", "seen", "missed", "stale", "unprepared", "refused", "raw_missed")
    rows = [[name.replace("_", " "), f"{getattr(outcome, name):,}"] for name in names]
    title = f"Coherence of {len(KINDS)} processes ({', '.join(KINDS)}), {outcome.seconds:.0f} s"
    notes = [
        "missed, stale, unprepared, refused: must be 0" if outcome.coherent else "NOT COHERENT: must be 0, are not"
    ]
    return Table(title, ["", "count"], rows, notes)


def _lines(outcome: Outcome) -> list[tuple[str, str, str | None]]:
    kinds = (None, *dict.fromkeys(KINDS))
    lines = [(what, since, kind) for kind in kinds for since in (SENT, ACKNOWLEDGED) for what in (DROPPED, RAW)]
    return [line for line in lines if outcome.of(*line)]


def _delays(outcome: Outcome) -> Table:
    rows = []
    for what, since, kind in _lines(outcome):
        here, raw = _microseconds(outcome.of(what, since, kind)), _microseconds(outcome.of(RAW, since, kind))
        ratios = [f"{here[name] / raw[name]:.2f}" if since == SENT and raw else "" for name in PERCENTILES]
        rows.append([kind or "all", f"{since} → {what}", *(f"{here[name]:,.0f}" for name in PERCENTILES), *ratios])
    head = ["process", "", *(f"{name} µs" for name in PERCENTILES), *(f"× {name}" for name in PERCENTILES)]
    notes = [
        "×: to the raw subscriber threads of the same processes and run; below 0: before the writer's set returned"
    ]
    return Table("Write → dropped, over all pairs of writer and other process", head, rows, notes)


def _microseconds(delays: Sequence[int]) -> dict[str, float]:
    """The percentiles of ascending delays in ns; none of none."""
    if not delays:
        return {}
    return {name: delays[math.ceil(part * len(delays)) - 1] / 1000 for name, part in PERCENTILES.items()}
