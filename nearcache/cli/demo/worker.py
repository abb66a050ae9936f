"""One worker process: it answers a stream of reports through the cache, and does what the parent asks in between.

The parent sends ``(command, arguments)``; a worker sends ``(kind, value)``. Before every answer, and five times a
second, it sends a :class:`Status` with all that it has observed, so that an answer never overtakes what came before.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from nearcache import NearCache
from nearcache.cli.demo.database import CATEGORIES, Report, Shop
from nearcache.cli.demo.stream import ranking, zipf
from nearcache.cli.demo.truth import digest

Tier: TypeAlias = Literal["l1", "l2", "database"]
TIERS: tuple[Tier, ...] = ("l1", "l2", "database")

STATUS_EVERY = 0.2
GIVE_UP_NS = 2_000_000_000
# A watcher that never slept would keep its own listening thread from the interpreter lock, 5 ms at a time, and other
# workers from the processor: it would measure itself. A nap makes a reading too high by about 0.1 ms, never too low.
NAP = 50e-6


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker has to know; picklable."""

    number: int
    url: str
    namespace: str
    database: Path
    seed: int
    reads_per_second: float
    ttl: float
    l1_max_entries: int
    max_staleness: float


class Observation(NamedTuple):
    """One answer, and how it came."""

    category: int
    revision: int
    digest: int
    start_ns: int
    took_ns: int
    tier: Tier
    healthy: bool
    """Whether L1 was proven coherent when the read began."""


class Health(NamedTuple):
    """A change of ``cache.healthy``, and when it was seen."""

    at_ns: int
    healthy: bool


class Status(NamedTuple):
    """What a worker has seen since its last status."""

    observations: list[Observation]
    errors: list[str]
    health: list[Health]


class Invalidation(NamedTuple):
    """An invalidation: whether it was acknowledged, and when it was called."""

    acknowledged: bool
    called_ns: int


def run(config: WorkerConfig, pipe: Connection) -> None:
    """Work until the parent closes the pipe; the process' entry point."""
    try:
        with (
            closing(Shop(config.database)) as shop,
            NearCache.from_url(
                config.url,
                namespace=config.namespace,
                ttl=config.ttl,
                l1_max_entries=config.l1_max_entries,
                max_staleness=config.max_staleness,
            ) as cache,
        ):
            Worker(config, pipe, shop, cache).work()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone, and so do we
    except Exception:  # noqa: BLE001  # whatever it is, the parent is to say it
        pipe.send(("failed", traceback.format_exc(limit=-3)))
        raise SystemExit(1) from None


class Worker:
    """The loop of one worker, single-threaded.

    Args:
        config: see there.
        pipe: to the parent.
        shop: this process' own connection to the database.
        cache: this process' own.
    """

    def __init__(self, config: WorkerConfig, pipe: Connection, shop: Shop, cache: NearCache) -> None:
        # This is all that an application writes.
        @cache.cached("report:{category}")
        def report(category: int) -> Report:
            return shop.report(category)

        self._report = report
        self._cache = cache
        self._pipe = pipe
        self._keys = zipf(ranking(CATEGORIES, config.seed), f"{config.seed}:{config.number}")
        self._period = 1 / config.reads_per_second
        self._streaming = False
        self._healthy: bool | None = None
        self._status = Status([], [], [])
        self._status_due = 0.0
        self._commands: dict[str, Callable[..., object]] = {
            "stream": self._stream,
            "healthy": self._wait_healthy,
            "warm": self._warm,
            "watch": self._watch,
            "invalidate": self._invalidate,
            "answers": self._answers,
            "forget": self._forget,
            "report_in": lambda: None,
        }

    def work(self) -> None:
        """Read at an even pace, commands first, until the pipe closes."""
        read_due = time.monotonic()
        while True:
            self._note_health()
            now = time.monotonic()
            if now >= self._status_due:
                self._report_in()
            due = min(read_due, self._status_due) if self._streaming else self._status_due
            if self._pipe.poll(max(0.0, due - now)):
                command, arguments = self._pipe.recv()
                self._answer(command, self._commands[command](*arguments))
            elif self._streaming and time.monotonic() >= read_due:
                # late is late: to catch up in a burst would only be late again
                read_due = max(read_due + self._period, time.monotonic())
                self._read(next(self._keys))

    def _read(self, category: int) -> None:
        healthy = self._cache.healthy
        before = self._cache.stats()
        start = time.monotonic_ns()
        try:
            answer = self._report(category)
        except Exception as error:  # noqa: BLE001  # any error of any read is what the demo counts
            self._status.errors.append(repr(error))
            return
        took = time.monotonic_ns() - start
        after = self._cache.stats()
        tier: Tier = "database" if after.loads > before.loads else "l2" if after.l2_hits > before.l2_hits else "l1"
        self._status.observations.append(
            Observation(category, answer["revision"], digest(answer), start, took, tier, healthy)
        )

    def _note_health(self) -> None:
        healthy = self._cache.healthy
        if healthy is not self._healthy:
            self._healthy = healthy
            self._status.health.append(Health(time.monotonic_ns(), healthy))

    def _report_in(self) -> None:
        self._pipe.send(("status", self._status))
        self._status = Status([], [], [])
        self._status_due = time.monotonic() + STATUS_EVERY

    def _answer(self, kind: str, value: object) -> None:
        self._note_health()
        self._report_in()
        self._pipe.send((kind, value))

    # ------------------------------------------------------------------------------------------------------- commands

    def _stream(self, on: bool) -> None:
        self._streaming = on

    def _wait_healthy(self, timeout: float) -> bool:
        return self._cache.wait_healthy(timeout=timeout)

    def _warm(self, category: int) -> bool:
        """Have the report in L1, and say whether it is there."""
        self._report(category)
        return self._report.peek(category) is not None

    def _watch(self, category: int) -> int | None:
        """Say "armed", then look until L1 has dropped the report; when that was seen, or None."""
        armed = self._report.peek(category) is not None
        self._answer("armed", armed)
        give_up = time.monotonic_ns() + GIVE_UP_NS
        while armed and time.monotonic_ns() < give_up:
            if self._report.peek(category) is None:
                return time.monotonic_ns()
            time.sleep(NAP)
        return None

    def _invalidate(self, category: int) -> Invalidation:
        called = time.monotonic_ns()
        return Invalidation(self._report.invalidate(category), called)

    def _answers(self, categories: list[int]) -> list[Report]:
        return [self._report(category) for category in categories]

    def _forget(self) -> None:
        """Drop this L1, so that the next answers come from Redis."""
        self._cache.clear_local()
