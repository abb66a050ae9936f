"""Bytes that an entry costs beyond its key and its value, beside the peers; each cache is filled in its own process.

Keys and values are made before; what is allocated from then on belongs to the cache. Each cache has two processes: in
one tracemalloc counts what Python allocates; in the other the resident size grows, with what Rust and C allocate by
themselves and what the allocator rounds up. tracemalloc sees nothing of cachebox and moka-py: for them only the second
figure counts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import rivals
from benchmarks.rivals import memory, near
from tests.support.report import ROOT, Chart, Report
from tests.support.tables import Table, figure

SIZES = (10_000, 100_000, 1_000_000)
JUDGED = (10_000, 100_000)
"""Numbers of entries for which there is a budget."""
BUDGET = 1.3
OURS, CONTROL = tuple(near.FILLS), memory.TTL_CACHE
TRACED, RESIDENT = "tracemalloc", "resident"
UNSEEN = {"cachebox.TTLCache", "moka-py", "theine"}
"""They allocate outside of Python's allocator, wholly or in part."""
KINDS = {name: fill for rival in (*rivals.OURS, *rivals.PEERS) for name, fill in rival.fills.items()}


def resident() -> int:
    """Bytes of this process that are in memory now; the most that ever were, where the system tells no more."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def child(kind: str, entries: int, how: str) -> float:
    """Fill one cache: bytes per entry."""
    fill = KINDS[kind]
    await fill([f"warm:{number}" for number in range(100)], ["v"] * 100)  # what is imported and made only once
    keys = [f"user:{number}" for number in range(entries)]
    values = [f"{number:0100}" for number in range(entries)]
    gc.collect()
    if how == TRACED:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if how == TRACED else resident()
    held = await fill(keys, values)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if how == TRACED else resident()
    del held
    return (after - before) / entries


def ask(kind: str, entries: int, how: str) -> float:
    """The same in a process of its own.

    Raises:
        RuntimeError: the process ended in an error; the message is its last line.
    """
    command = [sys.executable, "-m", __name__, kind, str(entries), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it printed nothing"])[-1])
    return float(json.loads(done.stdout))


def show(report: Report) -> bool:
    """Measure, print and keep; whether every peer was run."""
    sizes = JUDGED if report.quick else SIZES
    wanted = [
        (kind, how, size)
        for size in reversed(sizes)
        for kind in KINDS
        for how in (TRACED, RESIDENT)
        if ((how == RESIDENT and size == JUDGED[-1]) or kind in (*OURS, CONTROL) if report.quick else True)
        and not (how == TRACED and kind in UNSEEN)
    ]
    found: dict[str, dict[str, dict[int, float]]] = {}
    absent: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # bytes do not depend on what else runs
        asked = {one: pool.submit(ask, one[0], one[2], one[1]) for one in wanted}
    for (kind, how, size), answer in asked.items():
        try:
            found.setdefault(kind, {TRACED: {}, RESIDENT: {}})[how][size] = answer.result()
        except RuntimeError as error:
            absent[kind] = str(error)
    for kind in absent:
        found.pop(kind, None)
    ways = [(how, size) for how in (TRACED, RESIDENT) for size in sizes]
    rows = [
        [kind, *(f"{both[how][size]:,.0f}" if size in both[how] else "" for how, size in ways)]
        for kind, both in sorted(found.items(), key=lambda one: list(KINDS).index(one[0]))
    ]
    notes = [
        "bytes per entry beyond its key and value; keys of 6–11 characters, values of 100",
        f"{', '.join(sorted(UNSEEN))} allocate where tracemalloc does not see it",
        *(f"NOT RUN: {kind}: {why}" for kind, why in absent.items()),
    ]
    report.show(Table("Memory of an entry", ["", *(f"{how} {size:,}" for how, size in ways)], rows, notes))
    report.keep("memory", {"sizes": sizes, "bytes per entry": found, "not run": absent})
    for kind in OURS:
        for size in JUDGED:
            ours, control = (found[one][TRACED][size] for one in (kind, CONTROL))
            report.budget(
                f"{kind.removeprefix('NearCache, ')}: bytes per entry beyond key and value, {size:,} entries",
                ours / control,
                BUDGET,
                control=CONTROL,
                note=f"{figure(ours)} and {figure(control)} bytes",
            )
    report.chart(_chart(found))
    return not absent


def _chart(found: dict[str, dict[str, dict[int, float]]]) -> Chart:
    size = JUDGED[-1]
    ours, control = (found[kind][RESIDENT][size] for kind in (OURS[0], CONTROL))
    ordered = sorted(found, key=lambda kind: found[kind][RESIDENT][size])
    return Chart(
        "memory",
        f"An L1 entry costs {ours:,.0f} bytes beyond key and value, {ours / control:.2f} times cachetools.TTLCache's",
        "bars",
        {kind: [[kind, found[kind][RESIDENT][size]]] for kind in ordered},
        unit="bytes",
        ours=OURS,
        subtitle=f"Growth of the process's resident size, per entry, with {size:,} entries: less is better",
    )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(child(sys.argv[1], int(sys.argv[2]), sys.argv[3]))), flush=True)
    os._exit(0)  # nothing has to be released in order
