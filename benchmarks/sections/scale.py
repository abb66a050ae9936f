"""How each cost grows: with the entries in L1, with the entries of a tag, and with the instances that share a server.

The growth of a cost is its exponent over the whole range of numbers: 0 is flat, 1 is linear. Entries and tags are
measured in processor time on an L1 without a server (memory://), instances on the wall's clock with a server and the
NearCaches of another process, which share the writer's cores: what they take from the writer is in the figures, so that
the growth is an upper bound.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.rivals import near
from nearcache import NearCache
from nearcache.local.store import Entry
from nearcache.protocol.versions import version_of
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew, serve
from tests.support.report import Chart, Report
from tests.support.tables import Table, duration

SIZES = (1_000, 10_000, 100_000)
INSTANCES = (1, 2, 4, 8, 16)
TAGGED = (1, 10, 100)
"""Entries that carry a tag."""
OPERATIONS = 200
FLAT, LINEAR = 0.25, 0.75
"""Exponents up to which a cost is called flat, and from which linear."""
CONTROL = "dict.get, a control"
"""It grows because the processor's cache holds a smaller part of more entries."""
GET, PUT, DELETE, TAG, CLEAR = "get, L1 hit", "set, L1 full", "delete", "invalidate a tag of 10", "clear"
Costs = dict[int, list[float]]


def exponent(costs: Mapping[int, float]) -> float:
    """By which power a cost grows, between the least and the greatest number.

    >>> exponent({1: 10.0, 100: 10.0}), exponent({1: 10.0, 100: 1000.0})
    (0.0, 1.0)
    """
    first, last = min(costs), max(costs)
    return math.log(costs[last] / costs[first]) / math.log(last / first)


def growth(power: float) -> str:
    """The word for an exponent."""
    return "flat" if power <= FLAT else "linear" if power >= LINEAR else "in between"


def filled(entries: int, tagged: int) -> NearCache:
    """An L1 of so many entries; ``tagged`` entries share each tag."""
    cache = near.local(entries)
    deadline = time.monotonic() + 3600

    def entry(number: int) -> Entry:
        return Entry(number, deadline, version_of(1, 1), (f"tag:{number // tagged}",), 20, deadline)

    near.put_all(cache, entry, [f"key:{number}" for number in range(entries)])
    return cache


def took(call: Callable[[Any], object], arguments: Sequence[Any], clock: Callable[[], int]) -> float:
    """Nanoseconds a call, over all arguments."""
    since = clock()
    for argument in arguments:
        call(argument)
    return (clock() - since) / len(arguments)


def by_entries(entries: int) -> dict[str, float]:
    """Ns of each operation on an L1 of so many entries; clear is once for all of them."""
    clock = time.thread_time_ns
    with filled(entries, 10) as cache:
        keys = [f"key:{number}" for number in random.choices(range(entries), k=OPERATIONS * 10)]
        gone = [f"key:{number}" for number in random.sample(range(entries // 2), OPERATIONS)]
        plain = dict.fromkeys((f"key:{number}" for number in range(entries)), 0)
        took(cache.get, keys, clock)
        costs = {
            GET: took(cache.get, keys, clock),
            CONTROL: took(plain.get, keys, clock),
            PUT: took(lambda key: cache.set(key, 1), [f"new:{number}" for number in range(OPERATIONS)], clock),
            DELETE: took(cache.delete, gone, clock),
            TAG: took(cache.invalidate_tags, [f"tag:{entries // 10 - 1 - number}" for number in range(20)], clock),
        }
        since = clock()
        cache.clear()
        costs[CLEAR] = clock() - since
    return costs


def by_tagged(tagged: int) -> dict[str, float]:
    """Ns to invalidate a tag of so many entries, in an L1 of 10,000."""
    with filled(10_000, tagged) as cache:
        tags = [f"tag:{number}" for number in random.sample(range(10_000 // tagged), min(20, 10_000 // tagged))]
        return {"invalidate a tag": took(cache.invalidate_tags, tags, time.thread_time_ns)}


class Listeners:
    """The worker process: as many caches as it is ordered to have."""

    def __init__(self, url: str, namespace: str, stack: ExitStack) -> None:
        self._url, self._namespace, self._stack = url, namespace, stack
        self._caches: list[NearCache] = []

    async def have(self, count: int) -> bool:
        """Whether so many caches are healthy."""
        while len(self._caches) < count:
            made = NearCache.from_url(self._url, namespace=self._namespace, ttl=600)
            self._caches.append(self._stack.enter_context(made))
        return all(cache.wait_healthy(10) for cache in self._caches)


async def listen(url: str, namespace: str, pipe: Connection) -> None:
    """A worker process from beginning to end."""
    with ExitStack() as stack:
        await serve(pipe, Listeners(url, namespace, stack))


def by_instances(server: EmbeddedServer, rounds: int) -> dict[str, Costs]:
    """Ns of each write to so many instances, the writer among them."""
    found: dict[str, Costs] = {}
    with (
        Crew(listen, {"listeners": (server.url, "scale")}) as crew,
        NearCache.from_url(server.url, namespace="scale", ttl=600) as writer,
    ):
        keys = [f"key:{number}" for number in range(OPERATIONS)]
        calls: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
            "get, L1 hit": (writer.get, keys),
            "set": (lambda key: writer.set(key, 1), keys),
            "delete": (writer.delete, keys),
            "invalidate_tags": (writer.invalidate_tags, keys[:50]),
            "clear": (lambda _: writer.clear(), keys[:20]),
        }
        for instances in INSTANCES:
            if not all(crew.ask("have", instances - 1)):
                raise RuntimeError(f"{instances} instances did not become healthy")
            for call, arguments in calls.values():  # first calls connect, and send scripts
                took(call, arguments[:5], time.perf_counter_ns)
            for _ in range(rounds):
                writer.set_many(dict.fromkeys(keys, 0))
                for name, (call, arguments) in calls.items():
                    costs = found.setdefault(name, {}).setdefault(instances, [])
                    costs.append(took(call, arguments, time.perf_counter_ns))
    return found


def _collect(measure: Callable[[int], dict[str, float]], numbers: Sequence[int], rounds: int) -> dict[str, Costs]:
    found: dict[str, Costs] = {}
    for _ in range(rounds):
        for number in random.sample(numbers, len(numbers)):
            for name, ns in measure(number).items():
                found.setdefault(name, {}).setdefault(number, []).append(ns)
    return found


def show(report: Report) -> bool:
    """Measure, print and keep."""
    rounds = 1 if report.quick else 7
    found = {
        "entries": _collect(by_entries, SIZES, rounds),
        "entries of a tag": _collect(by_tagged, TAGGED, rounds),
    }
    with EmbeddedServer() as server:
        found["instances"] = by_instances(server, max(3, rounds))
    for what, kinds in found.items():
        _show(report, what, kinds)
    report.keep("scale", {"rounds": rounds, "ns": found})
    return True


def _show(report: Report, what: str, kinds: dict[str, Costs]) -> None:
    medians = {
        name: {number: statistics.median(line) for number, line in sorted(costs.items())}
        for name, costs in kinds.items()
    }
    numbers = list(next(iter(medians.values())))
    rows = [
        [name, *(duration(ns) for ns in costs.values()), f"{exponent(costs):.2f}", growth(exponent(costs))]
        for name, costs in medians.items()
    ]
    head = ["", *(f"{number:,}" for number in numbers), "exponent", "growth"]
    rounds = min(len(line) for costs in kinds.values() for line in costs.values())
    notes = [f"medians of {rounds} rounds" if rounds > 1 else "a single round: for a look, not for a record"]
    report.show(Table(f"Growth with {what}", head, rows, notes))
    first, last = min(numbers), max(numbers)
    told = ", ".join(f"{name} × {costs[last] / costs[first]:.1f}" for name, costs in [*medians.items()][:3])
    report.chart(
        Chart(
            f"scale-{what.replace(' ', '-')}",
            f"{last / first:,.0f} times the {what}: {told}",
            "lines",
            {name: [[number, ns] for number, ns in costs.items()] for name, costs in medians.items()},
            unit="ns",
            axis=what,
            ours=[name for name in medians if name != CONTROL],
            log=True,
            log_x=True,
            subtitle="Median of the rounds; both scales logarithmic, so that a level line is no growth",
        )
    )
