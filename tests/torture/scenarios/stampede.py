"""A whole fleet asks for one cold key at the same moment: how many loads there are, and when everybody has an answer.

Eight processes wait for a moment that all of them know, with 50 threads or 200 tasks each. Time is counted from that
moment, so that what the machine takes to wake 400 threads is in it. Every loader notes itself in Redis, by a connection
of its own, before it sleeps; so the loads of a process that is killed are counted too. Four kinds of round:

    together   get_or_set
    killed     the same, with a short lease; the process that loads first hangs, and is killed
    naive      the control of the loads: get, and whoever finds nothing calls the loader, and sets
    bare       the control of the times: no cache; everybody sleeps as long as the loader does
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew
from tests.support.report import Report
from tests.support.tables import Spread, Table
from tests.torture.scenarios.herd import CALLERS, LEASE, LOADER, PATIENCE, Answers, attend, loads_of
from tests.torture.scenarios.took import HEAD, Took, milliseconds

PROCESSES = 8
AHEAD = 0.5
"""Seconds until the moment that everybody waits for: threads are started meanwhile."""
TOGETHER, KILLED, NAIVE, BARE = "together", "killed", "naive", "bare"
LIMIT = 1.5
"""How many times as long as the loader the p99 may take."""


@dataclass
class Round:
    """What happened: loads in the fleet, how many callers were left and answered with a loaded value, and when."""

    loads: int
    callers: int
    answered: int
    raised: list[str]
    took: list[int]
    began: int = 0
    """ns until the first load began."""
    ends: int = 0
    """ns until the lease ended whose holder was killed."""


def run(crew: Crew, client: Any, kind: str, order: str) -> Round:
    """One round."""
    moment = time.monotonic_ns() + int(AHEAD * 1e9)
    crew.tell(order, moment)
    if order == KILLED:
        while not (notes := client.lrange(loads_of(moment), 0, -1)):
            if time.monotonic_ns() > moment + PATIENCE * 1e9:
                raise RuntimeError("nobody loads")
            time.sleep(0.005)
        time.sleep(LOADER / 2)
        crew.kill(crew.name_of(int(notes[0].split()[0])))
    answers: list[Answers] = crew.answers()
    loads = [tuple(map(int, note.split())) for note in client.lrange(loads_of(moment), 0, -1)]
    loaders = [pid for pid, _ in loads]
    began = loads[0][1] - moment if loads else 0
    right = loaders[1:] if order == KILLED else loaders
    return Round(
        loads=len(loaders),
        callers=len(answers) * CALLERS[kind],
        answered=sum(value in right or order == BARE for one in answers for value in one.values),
        raised=[error for one in answers for error in one.raised],
        took=[ns for one in answers for ns in one.took],
        began=began,
        ends=began + int(LEASE * 1e9) if order == KILLED else 0,
    )


def play(server: EmbeddedServer, client: Any, kind: str, rounds: int) -> dict[str, list[Round]]:
    """All rounds of threads, or of tasks."""
    processes = {str(number): (server.url, kind) for number in range(PROCESSES)}
    found: dict[str, list[Round]] = {TOGETHER: [], KILLED: [], NAIVE: [], BARE: []}
    with Crew(attend, processes) as crew:
        _warm_up(crew, client, kind)
        for _ in range(rounds):
            for order in (TOGETHER, NAIVE, BARE):
                found[order].append(run(crew, client, kind, order))
    for _ in range(max(1, rounds // 3)):
        with Crew(attend, processes) as crew:
            _warm_up(crew, client, kind)
            found[KILLED].append(run(crew, client, kind, KILLED))
    return found


def _warm_up(crew: Crew, client: Any, kind: str) -> None:
    """Connections, scripts, and code that has not run yet, which takes several times as long."""
    for _ in range(3):
        run(crew, client, kind, TOGETHER)


def wrong(kind: str, order: str, rounds: Sequence[Round]) -> list[str]:
    """What must not be."""
    expected = {TOGETHER: 1, KILLED: 2}.get(order)
    callers = (PROCESSES - (order == KILLED)) * CALLERS[kind]
    found = []
    for one in rounds:
        if expected is not None and one.loads != expected:
            found.append(f"{kind}, {order}: {one.loads} loads, not {expected}")
        if one.answered != callers or one.raised:
            found.append(f"{kind}, {order}: {one.answered} of {callers} answered, {one.raised[:1]}")
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether there were no more loads than there must be, and everybody was answered."""
    rounds = 1 if report.quick else 6
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        found = {kind: play(server, client, kind, rounds) for kind in CALLERS}
    rows, faults, kept = [], [], {}
    for kind, orders in found.items():
        for order, played in orders.items():
            loads = sorted(one.loads for one in played)
            answered = f"{sum(one.answered for one in played):,} of {sum(one.callers for one in played):,}"
            began = milliseconds(statistics.median(one.began for one in played) / 1e6)
            took = Took.of([ns for one in played for ns in one.took])
            name = f"{PROCESSES} × {CALLERS[kind]} {kind}, {order}"
            rows.append([name, str(len(played)), f"{loads[0]}–{loads[-1]}", began, answered, *took.cells()[1:]])
            faults += wrong(kind, order, played)
            kept[name] = [{**vars(one), "took": vars(Took.of(one.took))} for one in played]
            _judge(report, kind, order, played, loads[-1])
    notes = [
        f"loader {LOADER * 1e3:.0f} ms; times from the moment at which all ask; first: when the first load began;",
        f"killed: the process that loads first, with a lease of {LEASE} s, for whose end the others have to wait;",
        "naive: get, load, set; bare: no cache, everybody sleeps: what is over the loader's time is the machine's",
        *faults,
    ]
    head = ["", "rounds", "loads", "first after ms", "answered", *HEAD[1:]]
    report.show(Table("A cold key that the whole fleet asks for", head, rows, notes))
    report.keep("stampede", kept)
    return not faults


def _judge(report: Report, kind: str, order: str, played: Sequence[Round], loads: int) -> None:
    """The lines of the budget; the controls have none."""
    if order not in (TOGETHER, KILLED):
        return
    who = f"{PROCESSES} × {CALLERS[kind]} {kind}"
    spread = Spread.of([(Took.of(one.took).p99 - one.ends / 1e6) / (LOADER * 1e3) for one in played])
    what = "a cold key" if order == TOGETHER else "the lease holder killed"
    report.budget(f"{what}, {who}: loads", loads, 1 if order == TOGETHER else 2, "loads")
    after = "" if order == TOGETHER else " after the lease's end"
    report.budget(f"{what}, {who}: p99{after}", spread, LIMIT, control="the loader's time")
