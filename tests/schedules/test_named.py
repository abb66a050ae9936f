"""The counterexamples behind the rules, each as a schedule: it holds, and without its rule it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.schedules import (
    buckets,
    bus,
    edges,
    floors,
    histories,
    journal,
    loads,
    many,
    marks,
    operations,
    outages,
    reads,
)
from tests.schedules.invariant import Violated
from tests.schedules.named import NAMED, SCHEDULES, Schedule
from tests.support.ablations.rules import Rules

TOPICS = (buckets, bus, edges, floors, histories, journal, loads, many, marks, operations, outages, reads)
"""Importing a topic registers its schedules."""


@pytest.mark.parametrize("run", SCHEDULES, ids=lambda run: run.__name__)
def test_a_schedule_holds(run: Schedule) -> None:
    """Under the library's rules the invariant holds."""
    run(Rules())


@pytest.mark.parametrize(("run", "rules"), NAMED, ids=lambda one: one.name if isinstance(one, Rules) else one.__name__)
def test_a_schedule_fails_without_its_rule(
    run: Schedule, rules: Rules, record_property: Callable[[str, object], None]
) -> None:
    """With the guard taken away, the same schedule violates the same invariant; the checker prints which."""
    with pytest.raises(Violated) as violated:
        run(rules)
    record_property("assertion", str(violated.value))
