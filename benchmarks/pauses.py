"""How long readers stop while 100,000 entries leave L1 at once: the longest pause of a thread, or stall of a loop.

A reader does nothing but look into L1 (``peek``, so that the network is never in it) and takes the time between two
looks; on asyncio it lets the loop turn after every few looks, which is what other tasks would feel. Every round has a
window in which nothing happens, the control, and one per event. A window lasts at least WINDOW, and until all that the
event put off is done. Compared is the median over the rounds, as one round's worst may be the machine's.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import redis

from benchmarks.report import Report, Table
from nearcache import AsyncNearCache, NearCache
from nearcache.local.eviction import Entry
from nearcache.ports import version_of
from nearcache.remote.embedded import EmbeddedServer
from nearcache.remote.names import Names

ENTRIES = 100_000
WINDOW = 0.5
"""Seconds of a window, at least."""
PATIENCE = 60.0
BUDGET_MS = 5.0
"""What an event may add to the longest pause of the control."""
NAMESPACE = "pauses"
LOOKS = tuple(f"key:{number}" for number in range(0, ENTRIES, 97))
"""The keys that the reader looks for."""
SETTINGS: dict[str, Any] = {"namespace": NAMESPACE, "ttl": 3600, "l1_max_entries": ENTRIES}

Cache = NearCache | AsyncNearCache
Event = Callable[[Cache, Any], Any]


def nothing(_cache: Cache, _client: Any) -> None:
    """The control."""


def clear(cache: Cache, _client: Any) -> Any:
    """Everything is dropped, here and everywhere."""
    return cache.clear()


def lose(_cache: Cache, client: Any) -> None:
    """The bus is cut, and a foreign write counted before it is back: its message is lost, L1 must be flushed."""
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipe.hincrby(Names(NAMESPACE).counters, "s", 1)
        pipe.execute()


def invalidate_all(cache: Cache, _client: Any) -> Any:
    """A tag that every entry carries."""
    return cache.invalidate_tags("all")


def invalidate_half(cache: Cache, _client: Any) -> Any:
    """A tag that every other entry carries."""
    return cache.invalidate_tags("half")


EVENTS: dict[str, tuple[Event, int]] = {
    "control: nothing": (nothing, ENTRIES),
    "clear()": (clear, 0),
    "CLIENT KILL and a foreign write: flush": (lose, 0),
    "invalidate_tags, on all entries": (invalidate_all, 0),
    "invalidate_tags, on half of them": (invalidate_half, ENTRIES // 2),
}
"""Each event, and how many entries L1 has afterwards."""
CONTROL = next(iter(EVENTS))


def fill(cache: Cache) -> None:
    """Bring all entries into L1; not by way of Redis, as it is not what is measured."""
    tier, feed = cache._core.tier, cache._core.feed
    for number in range(ENTRIES):
        key = f"key:{number}"
        tags = ("all", f"tag:{number}", *(("half",) if number % 2 else ()))
        entry = Entry({"id": number}, time.monotonic() + 3600, version_of(feed.last, 1), tags, 20)
        if not tier.put(key, entry, tier.token(key)):
            raise RuntimeError(f"{key} was not put into L1")
    while tier.tidy():
        pass
    gc.collect()


def looking(cache: Cache, stop: threading.Event) -> tuple[float, int]:
    """Look until told to stop: the longest time between two looks, in ms, and how many there were."""
    worst, looks = 0.0, 0
    before = time.perf_counter()
    while not stop.is_set():
        for key in LOOKS:
            cache.peek(key)
            now = time.perf_counter()
            worst = max(worst, now - before)
            before = now
        looks += len(LOOKS)
    return worst * 1e3, looks


async def turning(cache: Cache, stop: threading.Event) -> tuple[float, int]:
    """The same on a loop, with a turn of the loop after every few looks."""
    worst, looks = 0.0, 0
    before = time.perf_counter()
    while not stop.is_set():
        for key in LOOKS[:10]:
            cache.peek(key)
        await asyncio.sleep(0)
        now = time.perf_counter()
        worst = max(worst, now - before)
        before = now
        looks += 10
    return worst * 1e3, looks


def over(cache: Cache, name: str, since: float) -> bool:
    """Whether a window may end: the event has done all it does, and the time is over."""
    tier = cache._core.tier
    done = cache.healthy and not tier._leftovers and len(tier.entries) == EVENTS[name][1]
    if time.perf_counter() - since > PATIENCE:
        raise RuntimeError(f"{name}: after {PATIENCE:.0f} s L1 has {len(tier.entries)} entries")
    return done and time.perf_counter() - since > WINDOW


def in_threads(server: EmbeddedServer, client: Any, name: str) -> float:
    """One window with a NearCache: the reader is a thread, the event happens on another."""
    with NearCache.from_url(server.url, **SETTINGS) as cache:
        if not cache.wait_healthy(10):
            raise RuntimeError(f"{cache!r} did not become healthy")
        fill(cache)
        stop: threading.Event = threading.Event()
        answer: Future[tuple[float, int]] = Future()
        reader = threading.Thread(target=lambda: answer.set_result(looking(cache, stop)), name="reader", daemon=True)
        reader.start()
        try:
            since = time.perf_counter()
            EVENTS[name][0](cache, client)
            while not over(cache, name, since):
                time.sleep(0.01)
        finally:
            stop.set()
            reader.join()
        return answer.result()[0]


def on_a_loop(server: EmbeddedServer, client: Any, name: str) -> float:
    """One window with an AsyncNearCache: everything on one loop."""

    async def window() -> float:
        async with AsyncNearCache.from_url(server.url, **SETTINGS) as cache:
            if not await cache.wait_healthy(10):
                raise RuntimeError(f"{cache!r} did not become healthy")
            fill(cache)
            stop = threading.Event()
            reader = asyncio.create_task(turning(cache, stop))
            await asyncio.sleep(0)
            since = time.perf_counter()
            happening = EVENTS[name][0]
            if happening is lose:  # a blocking client: not on this loop
                await asyncio.to_thread(happening, cache, client)
            elif (work := happening(cache, client)) is not None:
                await work
            while not over(cache, name, since):  # noqa: ASYNC110  # it looks at what the bus does by and by
                await asyncio.sleep(0.01)
            stop.set()
            return (await reader)[0]

    return asyncio.run(window())


def show(report: Report) -> bool:
    """Run, print and keep; whether every pause is within the budget."""
    rounds = 3 if report.quick else 7
    kinds = {"NearCache, a reader thread": in_threads, "AsyncNearCache, its loop": on_a_loop}
    found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in EVENTS} for kind in kinds}
    with EmbeddedServer() as server, redis.Redis(port=server.port) as client:
        for _ in range(rounds):
            for kind, window in kinds.items():
                for name in EVENTS:
                    found[kind][name].append(window(server, client, name))
    rows, late = [], []
    for kind, pauses in found.items():
        control = statistics.median(pauses[CONTROL])
        for name, line in pauses.items():
            median = statistics.median(line)
            rows.append(
                [kind, name, f"{median:.2f}", f"{median - control:+.2f}", f"{min(line):.2f}", f"{max(line):.2f}"]
            )
            if median - control > BUDGET_MS:
                late.append(f"{kind}, {name}")
    head = ["reader", "event", "median ms", "over control", "least", "greatest"]
    notes = [
        f"the longest pause of a window; median over {rounds} rounds, at most {BUDGET_MS:.0f} ms over the control's",
        *(f"TOO LONG: {one}" for one in late),
    ]
    report.show(Table(f"Pauses of readers with {ENTRIES:,} entries in L1, each with 2 or 3 tags", head, rows, notes))
    report.keep("pauses", {"ms": found, "too long": late})
    return not late
