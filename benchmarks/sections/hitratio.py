"""Hit ratios of L1's policies, of three others, and of the optimum, on traces: ``--traces DIR``, or generated ones.

The traces drive the stores directly. A missed key is put, as by every reader; there is no ttl, and each entry counts as
one. The optimum is Belady's: the entry that is needed again latest leaves, and a key that is needed later than all
entries does not come in.
"""

from __future__ import annotations

import array
import gzip
import heapq
import lzma
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals import policies
from nearcache.local.contents import STORES
from nearcache.local.s3fifo import USES_MAX
from nearcache.local.store import Store
from tests.support.report import Report
from tests.support.tables import Table

SHARES = (0.01, 0.1)
"""Sizes of L1, as parts of the distinct keys."""
LONGEST = 1_000_000
"""Accesses that are taken of a trace."""
QUICK = 100_000
NEVER_WORSE_BY = 0.5
BETTER_BY = 3.5
"""In points of percent, s3fifo against lru: on every trace, and on average of the given ones."""
SEED = 7

Trace = Sequence[int | str]


def show(report: Report) -> bool:
    """Measure, print and keep, against the limits of s3fifo."""
    traces = _given(report.traces) if report.traces else _generated()
    longest = QUICK if report.quick else LONGEST
    rows, gains = [], []
    figures: dict[str, Any] = {}
    for name, whole in traces.items():
        trace = whole[:longest]
        distinct = len(set(trace))
        for share in SHARES:
            size = max(1, int(share * distinct))
            found = {policy: 100 * hits(new(size, None), trace) / len(trace) for policy, new in STORES.items()}
            for policy, reads in policies.POLICIES.items():
                found[policy] = 100 * policies.hits(reads(size), trace) / len(trace)
            found["optimum"] = 100 * optimum(size, trace) / len(trace)
            gains.append(found["s3fifo"] - found["lru"])
            figures[f"{name}, {share}"] = {"accesses": len(trace), "distinct": distinct, "size": size, **found}
            columns = [f"{found[one]:.1f}" for one in ("lru", "s3fifo", *policies.POLICIES, "optimum")]
            rows.append([f"{name}, {share:.0%}", f"{len(trace):,}", f"{size:,}", *columns, f"{gains[-1]:+.1f}"])
    mean = statistics.mean(gains)
    notes = [f"Least gain {min(gains):+.1f}, average {mean:+.1f}."]
    report.budget(
        "s3fifo: hit ratio on each trace, least gain", min(gains), -NEVER_WORSE_BY, "points", "lru", at_least=True
    )
    if report.traces and not report.quick:
        report.budget("s3fifo: hit ratio, average gain", mean, BETTER_BY, "points", "lru", at_least=True)
    elif report.traces:
        notes.append(f"The average, of the first {QUICK:,} accesses, is judged without --quick only.")
    else:
        notes.append("No --traces DIR given: generated accesses, on which the average gain is not judged.")
    head = ["trace, size", "accesses", "entries", "lru", "s3fifo", *policies.POLICIES, "optimum", "s3fifo − lru"]
    report.show(Table("Hit ratios, percent", head, rows, notes))
    report.keep("hitratio", {"traces": str(report.traces or "generated"), "figures": figures, "average gain": mean})
    return True


def hits(store: Store[Any], trace: Trace) -> int:
    """Drive a store as readers do; how many accesses it answers."""
    entries, touch, make, found = store.entries, store.touch, store.make_entry, 0
    for name in trace:
        key = str(name)
        entry = entries.get(key)
        if entry is None:
            store[key] = make(None, 0.0, 0, (), 1, 0.0)
            continue
        found += 1
        if touch is not None:
            touch(key)
        elif entry.uses < USES_MAX:
            entry.uses += 1
    return found


def optimum(size: int, trace: Trace) -> int:
    """How many accesses the best of all policies answers.

    >>> optimum(2, ["a", "b", "c", "a", "b"])
    2
    """
    after: list[int] = [0] * len(trace)
    seen: dict[int | str, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        after[at] = seen.get(trace[at], len(trace))
        seen[trace[at]] = at
    due: dict[int | str, int] = {}
    latest: list[tuple[int, int]] = []  # (- when it is needed again, where it was used), the dead ones too
    found = 0
    for at, key in enumerate(trace):
        found += key in due
        due[key] = after[at]
        heapq.heappush(latest, (-after[at], at))
        while len(due) > size:
            when, where = heapq.heappop(latest)
            if due.get(trace[where]) == -when:
                del due[trace[where]]
    return found


# -------------------------------------------------------------------------------------------------------------- traces


def _given(folder: Path) -> Mapping[str, Trace]:
    """NAME.trace.xz: big-endian int32. NAME.trace.gz: a key a line, and lines ``*`` that are none."""
    traces: dict[str, Trace] = {}
    for path in sorted(folder.glob("*.trace.*")):
        name = path.name.split(".", 1)[0]
        if path.suffix == ".xz":
            numbers = array.array("i", lzma.decompress(path.read_bytes()))
            if sys.byteorder == "little":
                numbers.byteswap()
            traces[name] = numbers
        elif path.suffix == ".gz":
            lines = map(str.strip, gzip.decompress(path.read_bytes()).decode().splitlines())
            traces[name] = [line for line in lines if line not in {"", "*"}]
    if not traces:
        raise SystemExit(f"{folder} has no NAME.trace.xz or NAME.trace.gz")
    return traces


def _generated(count: int = 200_000, keys: int = 20_000) -> Mapping[str, Trace]:
    """Popular keys, popular keys with scans between, and a loop that is larger than L1."""
    chance = random.Random(SEED)
    weights = [1 / rank for rank in range(1, keys + 1)]
    popular = chance.choices(range(keys), weights, k=count)
    scans = list(popular)
    for start in range(0, count - 2000, 20_000):
        scans[start : start + 2000] = range(keys + start, keys + start + 2000)
    return {"Zipf": popular, "Zipf and scans": scans, "loop": [at % (keys // 2) for at in range(count)]}
