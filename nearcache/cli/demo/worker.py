"""One worker process: it reads a stream of reports through the cache, and executes the commands of the parent.

The parent sends ``(command, arguments)``, the name of a method and its arguments; the worker sends ``(kind, value)``
with the kinds "answers", "reply" and "failed". It sends the answers that it has before each reply.
"""

from __future__ import annotations

import random
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from nearcache import NearCache
from nearcache.cli.demo import database
from nearcache.cli.demo.database import CATEGORIES, Report, Shop

READS_PER_SECOND = 200.0
ANSWERS_PER_MESSAGE = 20
SKEW = 1.1
L1_MAX_ENTRIES = CATEGORIES // 2  # half of the reports fit, so that L2 answers as well
DROP_TIMEOUT_NS = 2_000_000_000
# Polling without a pause would keep the interpreter lock from the thread that receives invalidations. A pause makes
# a measured delay too high by about 0.1 ms, never too low.
POLL_PAUSE = 50e-6


class Answer(NamedTuple):
    """One read: its content's digest, when it began, who answered, and whether the cache was healthy before."""

    digest: int
    start_ns: int
    took_ns: int
    tier: str
    healthy: bool


def digest(report: Report) -> int:
    """A checksum of a report's content and of the types of its values."""
    return zlib.crc32(repr(report).encode())


def ranking(seed: int) -> list[int]:
    """The categories in the order of their popularity, the same for all workers."""
    return random.Random(seed).sample(range(1, CATEGORIES + 1), CATEGORIES)


def zipf(ranked: list[int], seed: str) -> Iterator[int]:
    """Draw categories without end; the r-th of ``ranked`` has the weight 1 / r ** SKEW."""
    weights = list(accumulate(rank**-SKEW for rank in range(1, len(ranked) + 1)))
    generator = random.Random(seed)
    while True:
        yield generator.choices(ranked, cum_weights=weights)[0]


def run(pipe: Connection, number: int, url: str, path: Path, seed: int, max_staleness: float) -> None:
    """Run a worker until the parent closes the pipe or ends."""
    try:
        with (
            closing(database.connect(path)) as shop,
            NearCache.from_url(
                url, namespace="demo", l1_max_entries=L1_MAX_ENTRIES, max_staleness=max_staleness
            ) as cache,
        ):
            if not cache.wait_healthy(timeout=10):
                raise TimeoutError("the cache was not healthy within 10 s of its start")
            Worker(pipe, shop, cache, zipf(ranking(seed), f"{seed}:{number}")).work()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:  # noqa: BLE001  # the parent reports any error
        pipe.send(("failed", traceback.format_exc(limit=-3)))
        raise SystemExit(1) from None


class Worker:
    """The loop of one worker, in one thread; its public methods after ``work`` are the commands."""

    def __init__(self, pipe: Connection, shop: Shop, cache: NearCache, categories: Iterator[int]) -> None:
        # These three lines are all that an application writes.
        @cache.cached("report:{category}", ttl=60)
        def report(category: int) -> Report:
            return database.report(shop, category)

        self._report, self._cache, self._pipe, self._categories = report, cache, pipe, categories
        self._streaming = False
        self._answers: list[Answer] = []

    def work(self) -> None:
        """Read at an even pace and execute commands, until the pipe is closed."""
        due = time.monotonic()
        while True:
            if self._pipe.poll(max(0.0, due - time.monotonic()) if self._streaming else None):
                command, arguments = self._pipe.recv()
                self._reply(getattr(self, command)(*arguments))
            else:
                due = max(due + 1 / READS_PER_SECOND, time.monotonic())  # no burst after a slow read
                self._read(next(self._categories))

    def stream(self, on: bool) -> None:
        """Start or stop the stream of reads."""
        self._streaming = on

    def watch(self, category: int) -> int | None:
        """Read a report into L1 and reply whether it is there; reply again with the time when it was dropped."""
        present = any(self._report(category) and self._report.peek(category) for _ in range(20))
        self._reply(present)
        deadline = time.monotonic_ns() + DROP_TIMEOUT_NS
        while present and time.monotonic_ns() < deadline:
            if self._report.peek(category) is None:
                return time.monotonic_ns()
            time.sleep(POLL_PAUSE)
        return None

    def invalidate(self, category: int) -> tuple[int, bool]:
        """Invalidate a report; return the time of the call and whether the server acknowledged it."""
        return time.monotonic_ns(), self._report.invalidate(category)

    def reports(self, categories: list[int], l1: bool = True) -> list[Report]:
        """Read reports through the cache; without ``l1`` it is emptied before, so that they come from L2."""
        if not l1:
            self._cache.clear_local()
        return [self._report(category) for category in categories]

    def _read(self, category: int) -> None:
        healthy, before, start_ns = self._cache.healthy, self._cache.stats(), time.monotonic_ns()
        report = self._report(category)
        took_ns, after = time.monotonic_ns() - start_ns, self._cache.stats()
        tier = "database" if after.loads > before.loads else "l2" if after.l2_hits > before.l2_hits else "l1"
        self._answers.append(Answer(digest(report), start_ns, took_ns, tier, healthy))
        if len(self._answers) == ANSWERS_PER_MESSAGE:
            self._send_answers()

    def _reply(self, value: object) -> None:
        self._send_answers()
        self._pipe.send(("reply", value))

    def _send_answers(self) -> None:
        self._pipe.send(("answers", self._answers))
        self._answers = []
