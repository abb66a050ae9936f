"""The checker on a cluster of three primaries with replicas: phases of a cluster, judged as those of one server.

Two processes read, two more read and write; every read is judged by what was acknowledged before it began. Each begins
with every word once, and goes on at random; what was written and how it was read is told for each phase, and a phase in
which a word is missing fails. Phases:

    steady            nothing happens
    slots move        half of the buckets move to another primary, key by key
    CLUSTER FAILOVER  a replica takes over, with all writes
    kill -9           a primary is killed, its replica takes over, and it comes back as a replica
    stopped           a primary stops for half a second, which is less than its replica waits
    links cut         the links between the nodes are cut again and again

In "kill -9" the replica may lack acknowledged writes: nothing is promised of those that were made just before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.crc import key_slot

from tests.support import servers
from tests.support.clusters import LocalCluster
from tests.support.processes import Crew
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.book import Book, Window, now
from tests.torture.judge import Case, at_the_end
from tests.torture.reads import BEHIND
from tests.torture.worker import CONNECT_TIMEOUT, MAX_STALENESS, NAMESPACE, REDIS_TIMEOUT, Figures, Plan, work
from tests.torture.writes import ACTS, OTHERS, WRITE_PAUSE

BEFORE, AFTER = 2.0, 2.0
"""Seconds without a fault."""
LAG = int(1e9)
"""ns: what was acknowledged so long before a kill may not have come to the replica."""
KINDS = (("threads", None), ("asyncio", None), ("threads", 0), ("asyncio", 1))
"""The kind of each process, and the number of those that write."""

WORDS = (
    *(what for _, what, *_ in ACTS),
    *OTHERS,
    *("get", "get_many", "get_or_set_many", "a decorated function", "get_or_set", "get_or_set, tags of the loader"),
    *(f"get_or_set, {option}: {BEHIND}" for option in ("early_refresh", "stale_while_revalidate")),
)
"""Each is done in each phase, and acknowledged if it is a write."""


def steady(_: LocalCluster) -> None:
    """Nothing happens."""
    time.sleep(2.0)


def slots_move(cluster: LocalCluster) -> None:
    """Every second bucket moves."""
    for bucket in range(0, 16, 2):
        slot = int(key_slot(f"{{{NAMESPACE}:{bucket}}}:m".encode()))
        source = cluster.owner(slot)
        cluster.migrate(slot, next(one for one in cluster.primaries if one is not source), pause=0.05)


def fail_over(cluster: LocalCluster) -> None:
    """A replica takes over by command."""
    replica = cluster.replica_of(cluster.primaries[0])
    replica("CLUSTER", "FAILOVER")
    cluster.wait(lambda: replica.is_primary and cluster.settled())


def kill(cluster: LocalCluster) -> None:
    """A primary dies, and comes back as a replica."""
    primary = cluster.primaries[0]
    replica = cluster.replica_of(primary)
    primary.server.kill()
    cluster.wait(lambda: replica.is_primary)
    primary.server.start()
    cluster.wait(cluster.settled)


def stop(cluster: LocalCluster) -> None:
    """A primary stops, and goes on."""
    primary = cluster.primaries[0]
    primary.server.pause()
    time.sleep(0.5)
    primary.server.resume()
    cluster.wait(cluster.settled)


def cut_links(cluster: LocalCluster) -> None:
    """The links between primaries end, and are made again."""
    for _ in range(4):
        for node in cluster.primaries:
            for other in cluster.primaries:
                if other is not node:
                    node("DEBUG", "CLUSTERLINK", "KILL", "TO", other.name)
        time.sleep(0.3)
    cluster.wait(cluster.settled)


PHASES: dict[str, tuple[Callable[[LocalCluster], None], bool]] = {
    "steady": (steady, False),
    "slots move": (slots_move, False),
    "CLUSTER FAILOVER": (fail_over, False),
    "kill -9": (kill, True),
    "stopped": (stop, False),
    "links cut": (cut_links, False),
}
"""The fault, and whether it may lose acknowledged writes."""


def play(
    cluster: LocalCluster, fault: Callable[[LocalCluster], None], folder: Path, *, lossy: bool
) -> tuple[list[str], Counter[str]]:
    """One phase: its row of the table, of which the last column tells the violations, and the words of its work."""
    book = Book(folder / fault.__name__, 200 + int(4 * 90 / WRITE_PAUSE), REDIS_TIMEOUT + CONNECT_TIMEOUT)
    plans = [
        Plan(f"{kind} {number}", kind, cluster.url, f"cluster {fault.__name__}", writer=writer, every_word=True)  # type: ignore[arg-type]
        for number, (kind, writer) in enumerate(KINDS)
    ]
    for node in cluster.primaries:  # of the values of the phase before
        node("FLUSHALL")
    with Crew(work, {plan.who: (plan, book) for plan in plans}) as crew:
        crew.ask("start")
        time.sleep(BEFORE)
        began = now()
        fault(cluster)
        window = Window(began - LAG, now()) if lossy else Window()
        lasted = (now() - began) / 1e9
        time.sleep(AFTER)
        crew.ask("rest")
        time.sleep(MAX_STALENESS + 0.1)
        crew.ask("stop")
        kept = crew.ask("compare")
        lost, diverged = at_the_end(kept, {}, Case(book, int(MAX_STALENESS * 1e9), window))
        figures: list[Figures] = crew.ask("report", window)
    wrong = [*lost, *diverged.values(), *(line for one in figures for line in one.raised)]
    wrong += [f"{who}: {line}" for one in figures for who, lines in one.verdict.violations.items() for line in lines]
    for line in wrong[:5]:
        print(f"    {line}")
    stale = [late for one in figures for late in one.verdict.stale]
    samples = [one.samples for one in figures if not one.who.startswith("w")]
    hits = sum(line[-1].hits - line[0].hits for line in samples if line)
    reads = sum(line[-1].reads - line[0].reads for line in samples if line)
    unanswered = sum(book.unanswered(*write) for write in book.writes())
    words = sum((one.done + one.ways for one in figures), Counter[str]())
    missing = [word for word in WORDS if not words[word]]
    if missing:
        print(f"    never done: {', '.join(missing)}")
    row = [
        f"{lasted:.1f}",
        f"{sum(one.verdict.reads for one in figures):,}",
        f"{hits / max(reads, 1):.0%}",
        f"{unanswered:,}",
        f"{max(stale, default=0) / 1e6:.0f}",
        f"{max(one.verdict.longest for one in figures) / 1e6:.0f}",
        str(len(wrong) + len(missing)),
    ]
    return row, words


def show(report: Report) -> bool:
    """Run the phases on each kind of server, print and keep; whether nothing was violated."""
    kinds = servers.KINDS[:1] if report.quick else servers.KINDS
    rows, words = [], {name: Counter[str]() for name in PHASES}
    for kind in kinds:
        with TemporaryDirectory(prefix="nearcache-cluster-") as folder, LocalCluster(kind, replicas=True) as cluster:
            for name, (fault, lossy) in PHASES.items():
                row, done = play(cluster, fault, Path(folder), lossy=lossy)
                rows.append([f"{kind}: {name}", *row])
                words[name] += done
    head = ["", "s", "reads", "hits", "not acknowledged", "stalest, ms", "longest read, ms", "violations"]
    report.show(Table("A cluster of three primaries with replicas", head, rows))
    every = sorted({word for done in words.values() for word in done})
    counts = [[word, *(f"{done[word]:,}" for done in words.values())] for word in every]
    report.show(Table("What was done in each phase", ["", *PHASES], counts))
    report.keep("cluster", {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows})
    return all(row[-1] == "0" for row in rows)
