"""The same work with peers, interleaved with ours: hits, decorated calls, loads and sets, with and without a server.

Work in the process is measured in processor time, work with a server on the wall's clock. Ratios are made within a
round, to NearCache for calls and to AsyncNearCache for what is awaited. Afterwards the counters of our caches are
checked: a loop that was not all hits measured something else, and fails the section.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from benchmarks import rivals
from benchmarks.harness.timing import Times, compare
from benchmarks.rivals.base import (
    DECORATED,
    HIT,
    LOAD,
    SET,
    WIRE_GET,
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    NotRun,
    Rival,
    Stage,
)
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Chart, Report
from tests.support.tables import Table, duration

TITLES = {
    HIT: "L1 hit by get",
    DECORATED: "L1 hit by a decorated call",
    LOAD: "Miss, load and insert into a full cache, no server",
    SET: "Set, no server",
    WIRE_GET: "Read over the server",
    WIRE_LOAD: "Miss, load and store over the server",
    WIRE_SET: "Set over the server",
}
WIRE = (WIRE_GET, WIRE_LOAD, WIRE_SET)
KEYS = 200
TOO_WIDE = 12
"""Times the least: bars that differ more are drawn on a logarithmic scale, as else the short ones could not be seen."""
SECONDS = 0.02
"""Per statement and round, about."""


@dataclass
class Found:
    """Times per kind of work, the label of each rival's statement, and the rivals that could not be run."""

    times: dict[str, Times] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    """Per kind of work, the statement's label of each rival."""
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, NotRun] = field(default_factory=dict)


async def measure(server: EmbeddedServer, rivals: Sequence[Rival], rounds: int, seconds: float) -> Found:
    """Set up all rivals, and compare them, one kind of work after the other."""
    found = Found()
    values = {f"user:{number}": f"Ada {number}" for number in range(KEYS)}
    stage = Stage(server, values)
    offered: dict[str, Cases] = {}
    async with AsyncExitStack() as stack:
        for rival in rivals:
            try:
                offered[rival.name] = await rival.enter(stack, stage)
            except NotRun as error:
                found.absent[rival.name] = error
            found.versions[rival.name] = _version(rival.package)
        # Other objects than those that are stored: else a look-up is spared the comparison of the two.
        keys = ["".join(key) for key in values]
        for kind in TITLES:
            cases = {name: offers[kind] for name, offers in offered.items() if kind in offers}
            found.labels[kind] = {name: case.label for name, case in cases.items()}
            found.times[kind] = await compare(list(cases.values()), keys, rounds, seconds=seconds, waits=kind in WIRE)
    return found


def show(report: Report) -> bool:
    """Measure, print and keep; whether every installed peer was run."""
    rounds, seconds = (5, SECONDS / 2) if report.quick else (11, SECONDS)
    with EmbeddedServer() as server:
        found = asyncio.run(measure(server, (*rivals.OURS, *rivals.PEERS), rounds, seconds))
    for kind in TITLES:
        _show(report, found, kind, rounds)
    notes = [f"NOT RUN: {name}: {error}" for name, error in found.absent.items()]
    report.show(Table("Peers", ["", "version"], [list(line) for line in found.versions.items()], notes))
    report.keep("peers", figures(found, rounds))
    budgets(report, found)
    return all(error.excused for error in found.absent.values())


def _awaits(label: str) -> bool:
    return label.startswith(
        ("Async", "@Async", "aiocache", "@aiocache", "cashews", "@cashews", "coredis", "Valkey GLIDE")
    )


def _own(found: Found, kind: str, label: str) -> str:
    return found.labels[kind]["AsyncNearCache" if _awaits(label) else "NearCache"]


def _show(report: Report, found: Found, kind: str, rounds: int) -> None:
    times = found.times[kind]
    labels = sorted(found.labels[kind].values(), key=lambda label: times.ns(label).median)
    rows = []
    for label in labels:
        ns, ratio = times.ns(label), times.ratio(label, _own(found, kind, label))
        spread, wide = f"{duration(ns.lower)}–{duration(ns.upper)}", ratio.range()
        way = "await" if _awaits(label) else "call"
        rows.append([label, way, duration(ns.median), spread, f"{ratio.median:.2f}", wide])
    clock = "the wall's clock" if kind in WIRE else "processor time"
    notes = [f"{rounds} interleaved rounds, {clock}; × ours: to NearCache, what is awaited to AsyncNearCache"]
    report.show(Table(TITLES[kind], ["", "how", "median", "quartiles", "× ours", "least–greatest"], rows, notes))
    bars = {label: times.ns(label) for label in labels}
    log = bars[labels[-1]].median > TOO_WIDE * bars[labels[0]].median
    scale = f"{clock}, logarithmic" if log else clock
    report.chart(
        Chart(
            f"peers-{kind.replace(' ', '-')}",
            _finding(found, kind),
            "bars",
            {label: [[label, ns.median, ns.lower, ns.upper]] for label, ns in bars.items()},
            unit="ns",
            ours=[found.labels[kind][name] for name in ("NearCache", "AsyncNearCache") if name in found.labels[kind]],
            log=log,
            subtitle=f"Median of {rounds} interleaved rounds, and its quartiles; {scale}: less is better",
        )
    )


def _finding(found: Found, kind: str) -> str:
    """The title of a chart: what was found."""
    times, labels = found.times[kind], found.labels[kind]
    own = labels["NearCache"]
    faster = sum(times.ratio(label, _own(found, kind, label)).median < 1 for label in labels.values())
    others = len(labels) - 2
    place = "ahead of every peer" if not faster else f"behind {faster} of {others} peers"
    return f"{TITLES[kind]}: {duration(times.ns(own).median)} with NearCache, {place}"


BUDGETS = (
    ("await cache.get, L1 hit", HIT, "AsyncNearCache", "cashews client_side", 0.1),
    ("await cache.get, L1 hit", HIT, "AsyncNearCache", "redis-py client-side caching", 0.02),
    ("await cache.get, L1 hit", HIT, "AsyncNearCache", "coredis TrackingCache", 0.02),
    ("await cache.get, L1 hit", HIT, "AsyncNearCache", "Valkey GLIDE client-side cache", 0.02),
    ("decorated call, L1 hit, lru", DECORATED, "NearCache", "cachebox", 1.0),
)


def budgets(report: Report, found: Found) -> None:
    """Compare the ratios to the peers with their limits."""
    for line, kind, own, peer, limit in BUDGETS:
        if peer in found.absent:
            error = found.absent[peer]
            report.budget(line, None, limit, "×", peer, note=str(error), excused=error.excused)
        else:
            labels = found.labels[kind]
            report.budget(line, found.times[kind].ratio(labels[own], labels[peer]), limit, "×", peer)


def figures(found: Found, rounds: int) -> dict[str, Any]:
    """All figures, as JSON has them."""
    return {
        "rounds": rounds,
        "keys": KEYS,
        "versions": found.versions,
        "not run": {name: str(error) for name, error in found.absent.items()},
        **{
            TITLES[kind]: {
                label: {"ns": vars(times.ns(label)), "to ours": vars(times.ratio(label, _own(found, kind, label)))}
                for label in found.labels[kind].values()
            }
            for kind, times in found.times.items()
        },
    }


def _version(package: str) -> str:
    if not package:
        return "of Python itself"
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} missing"
