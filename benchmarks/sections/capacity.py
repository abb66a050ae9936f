"""How many instances one server carries: worked out from what the section ``bus`` has measured in the same run.

A write is one script, a, and one message to each of n instances, b. With w writes a second by each, the server works

    U = n · w · (a + b · n)

of each second, on one core; an instance takes in n · w messages a second, i each. Nothing is measured here. Heartbeats
are left out: an instance sends 4 / max_staleness small commands a second.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.report import Chart, Report
from tests.support.tables import Table, figure

INSTANCES = (10, 100, 1_000)
BUSY = 0.5
"""Of the server's core, for writes: the rest is for reads."""
RATE = 1.0
"""Writes a second by each instance, for which the primaries of a cluster are counted."""
PRIMARIES = (1, 3, 9)
WRITE, INTAKE = "NearCache.set", "held, one key"


@dataclass(frozen=True)
class Model:
    """The constants, in µs of processor time."""

    script: float
    message: float
    intake: float

    @classmethod
    def of(cls, spent: Mapping[str, Mapping[str, Sequence[float]]], intake: Sequence[float]) -> Model:
        """From server µs per write by the number of instances, and ns to take in a key: a line through the medians.

        >>> Model.of({"1": {"NearCache.set": [20.0]}, "11": {"NearCache.set": [70.0]}}, [900.0])
        Model(script=10.0, message=5.0, intake=0.9)
        """
        counts = [int(count) + 1 for count in spent]  # the writer's own bus hears of it, too
        costs = [statistics.median(one[WRITE]) for one in spent.values()]
        slope, start = statistics.linear_regression(counts, costs)
        return cls(max(0.0, start), slope, statistics.median(intake) / 1000)

    def load(self, instances: int, rate: float) -> float:
        """Of a second, what the server works for so many instances at so many writes a second each.

        >>> Model(10.0, 5.0, 0.9).load(10, 100.0)
        0.06
        """
        return instances * rate * (self.script + self.message * instances) / 1e6

    def rate(self, instances: int, primaries: int = 1) -> float:
        """Writes a second by each instance until the primaries are as busy as they may be.

        >>> round(Model(10.0, 5.0, 0.9).rate(10))
        833
        """
        return BUSY * primaries / self.load(instances, 1.0)


def show(report: Report) -> bool:
    """Work it out, print and keep; without the section bus it says so."""
    bus = report.sections.get("bus")
    if bus is None:
        print("\nCapacity: NOT RUN: it is made of what the section bus measures in the same run", flush=True)
        return True
    model = Model.of(bus["server µs per write"], bus["intake, ns per key"][INTAKE])
    rows = []
    for instances in INSTANCES:
        rate = model.rate(instances)
        taken = instances * rate
        rows.append(
            [
                f"{instances:,}",
                figure(rate),
                figure(taken),
                f"{taken * model.intake / 1e6:.2%}",
                f"{max(1, math.ceil(model.load(instances, RATE) / BUSY)):,}",
            ]
        )
    head = ["instances", "writes/s each", "of all", "an instance's CPU", f"primaries at {RATE:g} write/s each"]
    notes = [
        f"until writes take {BUSY:.0%} of a core: {model.script:.1f} µs a script, {model.message:.2f} µs a message",
        f"an instance takes in all of them, {model.intake:.2f} µs each, without the socket",
        "primaries: with sharded pub/sub over a cluster, which divides the server's work and nobody else's",
    ]
    report.show(Table("Capacity of one server", head, rows, notes))
    report.keep("capacity", {"µs": vars(model), "busy": BUSY})
    report.chart(
        Chart(
            "capacity",
            f"One server carries {INSTANCES[1]} instances at {figure(model.rate(INSTANCES[1]))} writes a second each",
            "lines",
            {
                f"{primaries} primar{'y' if primaries == 1 else 'ies'}": [
                    [instances, model.rate(instances, primaries)] for instances in INSTANCES
                ]
                for primaries in PRIMARIES
            },
            unit="writes a second by each instance",
            axis="instances",
            ours=[f"{PRIMARIES[0]} primary"],
            log=True,
            log_x=True,
            subtitle=f"Worked out for {BUSY:.0%} of a core, from measured constants; both scales logarithmic",
        )
    )
    return True
