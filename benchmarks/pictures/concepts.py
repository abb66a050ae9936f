"""The pictures of docs/concepts.md; what depends on time is run on the fake server, with a manual clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.pictures.svg import BAD, COOL, GOOD, GOOD_SOFT, GREY, LINE, WARM, Drawing
from nearcache import NearCache
from nearcache.settings import SettingsOptions
from nearcache.testing import FakeServer, ManualClock

CARD = 820


def tiers(path: Path) -> bool:
    """Two processes with an L1 each, Redis behind both, and a database."""
    drawing = Drawing(CARD, 330, "Two processes, each with an L1; Redis or Valkey behind both; a database behind that")
    for at, name in ((24, "process 1"), (24 + 290, "process 2")):
        drawing.bar(at, 24, 250, 130, "#ffffff", stroke=LINE)
        drawing.text(at + 14, 46, name, bold=True)
        drawing.box(at + 14, 58, 106, 78, ["your code", "get, set, cached"])
        drawing.box(at + 146, 58, 90, 78, ["L1", "an LRU, µs"], GOOD_SOFT)
        drawing.arrow(at + 120, 97, at + 146, 97)
        drawing.arrow(at + 178, 136, at + 178, 208)
        drawing.arrow(at + 206, 208, at + 206, 136, stroke=BAD, dash="4 3")
    drawing.box(
        120, 210, 450, 90, ["L2: Redis or Valkey", "values, the counter of writes, leases, messages"], "#e6eef8"
    )
    drawing.box(660, 58, 136, 78, ["database", "your loader"], "#faf1dd")
    drawing.arrow(550, 80, 660, 80)
    drawing.text(606, 70, "load", size=12, fill=GREY, anchor="middle")
    drawing.text(590, 238, "→  reads and writes", size=12, fill=GREY)
    drawing.text(590, 260, "⇢  messages: key and number", size=12, fill=BAD)
    drawing.write(path)
    return True


TTL = 60
ROWS: dict[str, tuple[SettingsOptions, bool]] = {
    "ttl=60": ({}, True),
    "stale_while_revalidate=30": ({"stale_while_revalidate": 30}, True),
    "stale_if_error=60, loads fail": ({"stale_if_error": 60}, False),
    "early_refresh=0.8": ({"early_refresh": 0.8}, True),
}
KINDS = {
    "fresh": (GOOD, "at once, fresh"),
    "behind": (COOL, "at once, a load begins behind"),
    "stale": (WARM, "old, since the load failed"),
    "waits": ("#9aa5b1", "waits for a load"),
}


def read_at(age: float, settings: SettingsOptions, *, works: bool) -> str:
    """What a reader gets of a value of this age."""
    loads: list[int] = []
    done = threading.Event()

    def loader() -> str:
        loads.append(1)
        done.set()
        if works:
            return "new"
        raise ConnectionError("the database is away")

    chosen: SettingsOptions = {"namespace": "shop", "ttl": TTL, "jitter": 0, **settings}
    with ManualClock() as clock, FakeServer().cache(**chosen) as cache:
        cache.wait_healthy()
        cache.set("user:7", "old")
        clock.advance(age)
        cache.wait_healthy()
        try:
            value = cache.get_or_set("user:7", loader)
        except ConnectionError:
            value = "error"
        done.wait(0.05 if value == "old" else 0)  # a load behind the reader
    if value != "old":
        return "waits"
    return "fresh" if not loads else "behind" if works else "stale"


def ttl(path: Path) -> bool:
    """What a read returns over the life of a value, each sample from a run of its own."""
    drawing = Drawing(CARD, 258, "What a read returns at each age of a value, by setting")
    left, right, step, most = 230, 790, 3, 132

    def x(age: float) -> float:
        return left + age / most * (right - left)

    drawing.text(24, 32, "What a read returns at each age of a value, stored once", size=16, bold=True)
    drawing.legend(24, 56, dict(KINDS.values()))
    for row, (name, (settings, works)) in enumerate(ROWS.items()):
        y = 74 + row * 34
        drawing.text(24, y + 18, name)
        for age in range(0, most, step):
            kind = read_at(age + step / 2, settings, works=works)
            drawing.bar(x(age), y + 4, x(step) - x(0) - 1, 20, KINDS[kind][0])
    drawing.axis(left, right, 74 + 34 * len(ROWS) + 2, {x(age): f"{age} s" for age in (0, 30, 48, 60, 90, 120)})
    drawing.line(x(TTL), 70, x(TTL), 74 + 34 * len(ROWS), dash="3 3")
    drawing.write(path)
    return True


def staleness(path: Path) -> bool:
    """What another process reads while its messages are held back, and when it stopped to serve the old value."""
    samples: list[tuple[float, object]] = []
    held, written = 1.0, 1.5
    server = FakeServer()
    with ManualClock() as clock, server.cache(namespace="shop") as here, server.cache(namespace="shop") as there:
        assert here.wait_healthy()
        assert there.wait_healthy()
        here.set("user:7", "old")
        server.settle()
        there.get("user:7")
        fault = None
        for step in range(100):
            at = step / 20
            if at == held:
                fault = server.bus_held(of=there)
                fault.__enter__()
            if at == written:
                here.set("user:7", "new")
            samples.append((at, there.peek("user:7")))
            clock.advance(0.05)
            time.sleep(0.01)  # for the threads of the buses, which the clock has woken
        if fault is not None:
            fault.__exit__(None, None, None)
    old_until = max(at for at, value in samples if value == "old") + 0.05
    drawing = Drawing(CARD, 214, "L1 of another process serves the old value until its proof runs out")
    left, right = 150, 790

    def x(at: float) -> float:
        return left + at / 5 * (right - left)

    drawing.text(24, 32, "Messages of process B are held back; process A writes", size=16, bold=True)
    drawing.legend(
        24,
        56,
        {GOOD_SOFT: "L1 serves", BAD: "L1 serves the old value", "#9aa5b1": "L1 serves nothing: reads ask Redis"},
    )
    drawing.text(24, 96, "process A")
    drawing.bar(x(0), 82, x(5) - x(0), 20, GOOD_SOFT)
    drawing.text(24, 132, "process B")
    for at, value in samples:
        fill = "#9aa5b1" if value is None else BAD if at >= written else GOOD_SOFT
        drawing.bar(x(at), 118, x(0.05) - x(0) + 0.6, 20, fill)
    for at in (held, written):
        drawing.line(x(at), 72, x(at), 150, dash="3 3")
    drawing.axis(left, right, 150, {x(held): "held", x(written): "A writes", x(held + 2): "held + 2 s", x(5): "5 s"})
    drawing.text(
        24,
        198,
        f"B's L1 ended {old_until - held:.2f} s after its last proof, with max_staleness=2: no message was needed.",
        size=13,
    )
    drawing.write(path)
    return old_until <= held + 2.0 + 0.051


def stampede(path: Path) -> bool:
    """Twenty readers of a missing key, in two instances; the moments are those of real threads."""
    server, loads, spans = FakeServer(), [], {}
    start = threading.Barrier(20)

    def loader() -> str:
        begin = time.perf_counter()
        time.sleep(0.2)
        loads.append((threading.current_thread().name, begin, time.perf_counter()))
        return "the report"

    with server.cache(namespace="shop") as one, server.cache(namespace="shop") as two:
        assert one.wait_healthy()
        assert two.wait_healthy()

        def read(number: int) -> None:
            start.wait()
            begin = time.perf_counter()
            (one if number < 10 else two).get_or_set("report", loader)
            spans[number] = (begin, time.perf_counter())

        threads = [threading.Thread(target=read, args=(number,), name=str(number)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    first, last = min(begin for begin, _ in spans.values()), max(end for _, end in spans.values())
    drawing = Drawing(CARD, 80 + 20 * 10 + 50, "Twenty readers in two processes, one load")
    left, right = 150, 790

    def x(at: float) -> float:
        return left + (at - first) / (last - first) * (right - left)

    drawing.text(
        24, 32, f"{len(spans)} readers want a key that neither tier has: {len(loads)} load", size=16, bold=True
    )
    drawing.legend(24, 56, {COOL: "the load", "#b8cbe3": "waits for it"})
    for number, (begin, end) in sorted(spans.items()):
        y = 76 + number * 10 + (8 if number >= 10 else 0)
        drawing.bar(x(begin), y, x(end) - x(begin), 7, COOL if str(number) == loads[0][0] else "#b8cbe3")
    drawing.text(24, 130, "process 1")
    drawing.text(24, 238, "process 2")
    marks = {x(first): "0 ms", x(last): f"{(last - first) * 1000:.0f} ms"}
    drawing.axis(left, right, 292, marks)
    drawing.write(path)
    return len(loads) == 1


def tags(path: Path) -> bool:
    """A tag's floor ends what carries it; which values are left is what a cache says."""
    carry = {"user:7": ["users", "team:1"], "user:8": ["users", "team:2"], "report:1": ["team:1"]}
    cache = NearCache.from_url("memory://", namespace="shop")
    for key, its in carry.items():
        cache.set(key, key, tags=its)
    cache.invalidate_tags("team:1")
    left = {key for key in carry if cache.get(key) is not None}
    drawing = Drawing(CARD, 196, "invalidate_tags('team:1') ends the values that carry the tag, and no others")
    drawing.text(24, 32, 'invalidate_tags("team:1")', size=16, bold=True)
    drawing.legend(24, 56, {GOOD_SOFT: "still serves", "#f6d9d6": "is gone, everywhere"})
    for at, (key, its) in enumerate(carry.items()):
        drawing.box(24 + at * 262, 76, 240, 84, [key, *its], GOOD_SOFT if key in left else "#f6d9d6")
    drawing.write(path)
    return left == {"user:8"}


PICTURES: dict[str, Callable[[Path], bool]] = {
    "tiers": tiers,
    "ttl": ttl,
    "staleness": staleness,
    "stampede": stampede,
    "tags": tags,
}
