"""How long readers stop while 100,000 entries leave L1 at once: the longest pause of a thread, or stall of a loop.

A reader only looks into L1 (by ``peek``, which never uses the network) and takes the time between two looks; on asyncio
it yields to the loop after ten looks, so that it measures what other tasks wait. The window of an event ends when all
the work that the event put off is done. Its controls follow on the same instance, as long as the window: one in which
nothing happens, and with threads one beside a thread that computes for a millisecond now and then, since any other
thread that runs takes the GIL from the reader. Other work of the machine only adds to a pause, so the least of some
rounds is compared.
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.rivals import near
from nearcache import AsyncNearCache, NearCache
from nearcache.local.store import Entry
from nearcache.protocol.names import Names
from nearcache.protocol.versions import version_of
from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import Report
from tests.support.tables import Spread, Table

ENTRIES = 100_000
WINDOW = 0.5
"""Seconds of a window, at least."""
COMPUTES, RESTS = 0.001, 0.002
"""Seconds that the control's other thread computes and rests: as a step of L1 and the pause after it."""
PATIENCE = 60.0
BUDGET_MS = 5.0
"""What an event may add to the longest pause of the control."""
NAMESPACE = "pauses"
LOOKS = tuple(f"key:{number}" for number in range(0, ENTRIES, 97))
"""The keys that the reader looks up."""
SETTINGS: dict[str, Any] = {"namespace": NAMESPACE, "ttl": 3600, "l1_max_entries": ENTRIES}

Cache = NearCache | AsyncNearCache
Event = Callable[[Cache, Any], Any]


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
    "clear()": (clear, 0),
    "CLIENT KILL and a foreign write: flush": (lose, 0),
    "invalidate_tags, on all entries": (invalidate_all, 0),
    "invalidate_tags, on half of them": (invalidate_half, ENTRIES // 2),
}
"""Each event, and how many entries L1 has afterwards."""
NOTHING, COMPUTING = "nothing", "a thread computes"


def fill(cache: Cache) -> None:
    """Put all entries into L1; not by way of Redis, which is not what is measured."""
    version, expires = version_of(cache._core.invalidation.last, 1), time.monotonic() + 3600

    def entry(number: int) -> Entry:
        tags = ("all", f"tag:{number}", *(("half",) if number % 2 else ()))
        return Entry({"id": number}, expires, version, tags, 20, math.inf)

    near.put_all(cache, entry, [f"key:{number}" for number in range(ENTRIES)])
    gc.collect()


def looking(cache: Cache, stop: threading.Event) -> float:
    """Look until told to stop: the longest time between two looks, in ms."""
    worst = 0.0
    before = time.perf_counter()
    while not stop.is_set():
        for key in LOOKS:
            cache.peek(key)
            now = time.perf_counter()
            worst = max(worst, now - before)
            before = now
    return worst * 1e3


async def turning(cache: Cache, stop: threading.Event) -> float:
    """The same on a loop, with a turn of the loop after every few looks."""
    worst = 0.0
    before = time.perf_counter()
    while not stop.is_set():
        for key in LOOKS[:10]:
            cache.peek(key)
        await asyncio.sleep(0)
        now = time.perf_counter()
        worst = max(worst, now - before)
        before = now
    return worst * 1e3


def watch(cache: Cache) -> list[float]:
    """Note the processor time, in ms, of every step that L1 takes from now on: no other process is in it."""
    tier = cache._core.tier
    took: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            before = time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                took.append((time.thread_time() - before) * 1e3)

        return step

    for name in ("free_some", "apply_clear", "apply_tags", "flush"):
        setattr(tier, name, timed(getattr(tier, name)))
    return took


def over(cache: Cache, name: str, since: float) -> bool:
    """Whether the event has done all it does."""
    tier = cache._core.tier
    passed = time.perf_counter() - since
    if passed > PATIENCE:
        raise RuntimeError(f"{name}: after {PATIENCE:.0f} s L1 has {len(tier.entries)} entries")
    return passed > WINDOW and cache.healthy and not tier._deferred and len(tier.entries) == EVENTS[name][1]


@dataclass
class Pauses:
    """ms, of the event and of its controls; its longest step; and how long each of the windows lasted."""

    event: float
    step: float
    controls: dict[str, float]
    seconds: float


def in_threads(server: EmbeddedServer, client: Any, name: str) -> Pauses:
    """With a NearCache: the reader is a thread, the event happens on another."""

    def window(happen: Callable[[], object]) -> float:
        stop: threading.Event = threading.Event()
        answer: Future[float] = Future()
        reader = threading.Thread(target=lambda: answer.set_result(looking(cache, stop)), name="reader", daemon=True)
        reader.start()
        try:
            happen()
        finally:
            stop.set()
            reader.join()
        return answer.result()

    def event() -> None:
        EVENTS[name][0](cache, client)
        while not over(cache, name, since):
            time.sleep(0.01)

    def compute() -> None:
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            while time.perf_counter() < now + COMPUTES:
                pass
            time.sleep(RESTS)

    with NearCache.from_url(server.url, **SETTINGS) as cache:
        if not cache.wait_healthy(10):
            raise RuntimeError(f"{cache!r} did not become healthy")
        fill(cache)
        steps = watch(cache)
        since = time.perf_counter()
        worst = window(event)
        seconds = time.perf_counter() - since
        return Pauses(
            worst, max(steps), {NOTHING: window(lambda: time.sleep(seconds)), COMPUTING: window(compute)}, seconds
        )


def on_a_loop(server: EmbeddedServer, client: Any, name: str) -> Pauses:
    """With an AsyncNearCache: everything on one loop."""

    async def window(cache: AsyncNearCache, happen: Callable[[], Awaitable[object]]) -> float:
        stop = threading.Event()
        reader = asyncio.create_task(turning(cache, stop))
        await asyncio.sleep(0)
        await happen()
        stop.set()
        return await reader

    async def windows() -> Pauses:
        async with AsyncNearCache.from_url(server.url, **SETTINGS) as cache:
            if not await cache.wait_healthy(10):
                raise RuntimeError(f"{cache!r} did not become healthy")
            fill(cache)

            async def event() -> None:
                happening = EVENTS[name][0]
                if happening is lose:  # a blocking client: not on this loop
                    await asyncio.to_thread(happening, cache, client)
                else:
                    await happening(cache, client)
                while not over(cache, name, since):  # noqa: ASYNC110  # it looks at what the bus does by and by
                    await asyncio.sleep(0.01)

            steps = watch(cache)
            since = time.perf_counter()
            worst = await window(cache, event)
            seconds = time.perf_counter() - since
            return Pauses(worst, max(steps), {NOTHING: await window(cache, lambda: asyncio.sleep(seconds))}, seconds)

    return asyncio.run(windows())


def show(report: Report) -> bool:
    """Run, print and keep; whether every pause is within the budget."""
    rounds = 1 if report.quick else 5
    kinds = {"NearCache": in_threads, "AsyncNearCache": on_a_loop}
    found: dict[str, list[Pauses]] = {f"{kind}, {name}": [] for kind in kinds for name in EVENTS}
    with EmbeddedServer() as server, redis.Redis(port=server.port) as client:
        for _ in range(rounds):
            for kind, measure in kinds.items():
                for name in EVENTS:
                    found[f"{kind}, {name}"].append(measure(server, client, name))
    rows, late = [], []
    for name, pauses in found.items():
        event = Spread.of([one.event for one in pauses])
        # The machine's other work only ever adds: the least of some rounds is what the event itself costs.
        over = {control: event.least - min(one.controls[control] for one in pauses) for control in pauses[0].controls}
        nothing = min(one.controls[NOTHING] for one in pauses)
        seconds = statistics.median(one.seconds for one in pauses)
        step = min(one.step for one in pauses)
        figures = (step, event.least, event.median, event.greatest, nothing, over[NOTHING])
        beside = f"{over[COMPUTING]:+.1f}" if COMPUTING in over else ""
        rows.append([name, *(f"{figure:.1f}" for figure in figures), beside, f"{seconds:.1f}"])
        if max(step, min(over.values())) > BUDGET_MS:
            late.append(f"{name}: {event.least:.1f} ms, its longest step {step:.1f} ms")
    head = ["", "step ms", "pause ms", "median", "greatest", "nothing", "over it", "over computing", "window s"]
    notes = [
        f"step: processor time of L1's longest step, at most {BUDGET_MS:.0f} ms",
        f"both the least of {rounds} rounds",
        f"pause: the longest of a window, at most {BUDGET_MS:.0f} ms over a control of the same length:",
        "one in which nothing happens, or, in threads, one beside a thread that computes",
        f"{COMPUTES * 1e3:.0f} ms and rests {RESTS * 1e3:.0f} ms",
        *(f"TOO LONG: {one}" for one in late),
    ]
    report.show(Table(f"Pauses of readers with {ENTRIES:,} entries in L1, each with 2 or 3 tags", head, rows, notes))
    report.keep("pauses", {name: [vars(one) for one in line] for name, line in found.items()})
    return not late
