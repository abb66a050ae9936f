"""Whole situations under faults, each judged by what must not be: ``python -m tests.torture scenarios [name ...]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.support.report import Report
from tests.torture.scenarios import (
    away,
    cluster,
    hanging,
    hotkey,
    limits,
    many,
    operations,
    outages,
    peers,
    races,
    soak,
    stampede,
    uncacheable,
)

SCENARIOS: Mapping[str, Callable[[Report], bool]] = {
    "races": races.show,
    "stampede": stampede.show,
    "hotkey": hotkey.show,
    "outages": outages.show,
    "away": away.show,
    "hanging": hanging.show,
    "uncacheable": uncacheable.show,
    "operations": operations.show,
    "many": many.show,
    "limits": limits.show,
    "peers": peers.show,
    "cluster": cluster.show,
    "faults": soak.show,
}
"""Each prints its tables, keeps its figures in the report, and returns whether what must hold did."""
