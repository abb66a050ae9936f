"""One worker process: it answers a stream of reports through the cache, and does what the parent asks in between.

The parent sends ``(command, arguments)``. A worker sends ``("status", answers, errors, health)`` five times a second
and before each answer to a command, so that an answer never overtakes what came before it.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from nearcache import NearCache
from nearcache.cli.demo.database import CATEGORIES, Report, Shop
from nearcache.cli.demo.judge import Answer, Tier, digest

STATUS_EVERY = 0.2
READS_PER_SECOND = 200.0
GIVE_UP_NS = 2_000_000_000
# A loop without a pause would keep its own bus thread from the interpreter lock, and so measure itself. The pause makes
# a reading too high by about 0.1 ms, never too low.
PAUSE = 50e-6


@dataclass(frozen=True)
class Config:
    """All that a worker has to know; picklable."""

    number: int
    url: str
    database: Path
    seed: int
    max_staleness: float


class Invalidation(NamedTuple):
    """An invalidation: whether it was acknowledged, and when it was called."""

    acknowledged: bool
    called_ns: int


def ranking(seed: int) -> list[int]:
    """The categories, hottest first; all workers of a run share the order."""
    keys = list(range(1, CATEGORIES + 1))
    random.Random(seed).shuffle(keys)
    return keys


def zipf(ranked: list[int], seed: str, skew: float = 1.1) -> Iterator[int]:
    """Draw keys for ever, the r-th of ``ranked`` with weight 1 / r ** skew.

    Source: Breslau et al., Web Caching and Zipf-like Distributions (INFOCOM 1999).
    """
    weights = list(accumulate((rank + 1) ** -skew for rank in range(len(ranked))))
    generator = random.Random(seed)
    while True:
        yield generator.choices(ranked, cum_weights=weights)[0]


def run(config: Config, pipe: Connection) -> None:
    """Work until the parent closes the pipe; the entry point of the process."""
    try:
        with (
            closing(Shop(config.database)) as shop,
            # Half of the reports fit into L1, so that L2 has something to do as well.
            NearCache.from_url(
                config.url,
                namespace="demo",
                ttl=60,
                l1_max_entries=CATEGORIES // 2,
                max_staleness=config.max_staleness,
            ) as cache,
        ):
            Worker(config, pipe, shop, cache).work()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
    except Exception:  # noqa: BLE001  # whatever it is, the parent reports it
        pipe.send(("failed", traceback.format_exc(limit=-3)))
        raise SystemExit(1) from None


class Worker:
    """The loop of one worker, single-threaded; its public methods are the parent's commands."""

    def __init__(self, config: Config, pipe: Connection, shop: Shop, cache: NearCache) -> None:
        # This is all that an application writes.
        @cache.cached("report:{category}")
        def report(category: int) -> Report:
            return shop.report(category)

        self._report = report
        self._cache = cache
        self._pipe = pipe
        self._keys = zipf(ranking(config.seed), f"{config.seed}:{config.number}")
        self._streaming = False
        self._healthy: bool | None = None
        self._answers: list[Answer] = []
        self._errors: list[str] = []
        self._health: list[tuple[int, bool]] = []

    def work(self) -> None:
        """Read at an even pace, commands first, until the pipe closes."""
        read_due = status_due = time.monotonic()
        while True:
            self._note_health()
            now = time.monotonic()
            if now >= status_due:
                self._send_status()
                status_due = now + STATUS_EVERY
            due = min(read_due, status_due) if self._streaming else status_due
            if self._pipe.poll(max(0.0, due - now)):
                command, arguments = self._pipe.recv()
                self._send(command, getattr(self, command)(*arguments))
            elif self._streaming and time.monotonic() >= read_due:
                read_due = max(read_due + 1 / READS_PER_SECOND, time.monotonic())  # a late read is not made up for
                self._read(next(self._keys))

    def _read(self, category: int) -> None:
        healthy, before = self._cache.healthy, self._cache.stats()
        start = time.monotonic_ns()
        try:
            answer = self._report(category)
        except Exception as error:  # noqa: BLE001  # any error of any read is what the demo counts
            self._errors.append(repr(error))
            return
        took, after = time.monotonic_ns() - start, self._cache.stats()
        tier: Tier = "database" if after.loads > before.loads else "l2" if after.l2_hits > before.l2_hits else "l1"
        self._answers.append(Answer(category, answer["revision"], digest(answer), start, took, tier, healthy))

    def _note_health(self) -> None:
        if self._cache.healthy is not self._healthy:
            self._healthy = self._cache.healthy
            self._health.append((time.monotonic_ns(), self._healthy))

    def _send_status(self) -> None:
        self._pipe.send(("status", (self._answers, self._errors, self._health)))
        self._answers, self._errors, self._health = [], [], []

    def _send(self, kind: str, value: object) -> None:
        self._note_health()
        self._send_status()
        self._pipe.send((kind, value))

    # ------------------------------------------------------------------------------------------------------- commands

    def stream(self, on: bool) -> None:
        """Begin or end to read."""
        self._streaming = on

    def status(self) -> None:
        """Send what was seen up to now."""

    def wait_healthy(self, timeout: float) -> bool:
        """Wait for the proof of L1."""
        return self._cache.wait_healthy(timeout=timeout)

    def warm(self, category: int) -> bool:
        """Have the report in L1; whether it is there."""
        self._report(category)
        return self._report.peek(category) is not None

    def watch(self, category: int) -> int | None:
        """Send "armed", then look until L1 has dropped the report; when that was seen, or None."""
        armed = self._report.peek(category) is not None
        self._send("armed", armed)
        give_up = time.monotonic_ns() + GIVE_UP_NS
        while armed and time.monotonic_ns() < give_up:
            if self._report.peek(category) is None:
                return time.monotonic_ns()
            time.sleep(PAUSE)
        return None

    def invalidate(self, category: int) -> Invalidation:
        """Invalidate a report everywhere."""
        called = time.monotonic_ns()
        return Invalidation(self._report.invalidate(category), called)

    def answers(self, categories: list[int]) -> list[Report]:
        """The reports, by way of the cache."""
        return [self._report(category) for category in categories]

    def forget(self) -> None:
        """Drop this L1, so that the next answers come from Redis."""
        self._cache.clear_local()
