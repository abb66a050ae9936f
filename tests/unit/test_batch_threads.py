"""Reads of threads that go as one: who leads, who is led, and that nobody waits for a leader that is gone."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.engine.plain import Read
from nearcache.engine.ports import MISSING, NotSent, RemoteFailed, RemoteTimeout
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.transport.batching import FEW, ThreadReads, _Reader

PATIENCE = 10.0


def new(key: str) -> _Reader:
    """A read of a key."""
    return ThreadReads.new(key, Policy.of(Settings()))


class Call:
    """One request under way; its records are those of the moment at which it was sent."""

    def __init__(self, reads: Sequence[Read], version: int, waited: float) -> None:
        self.keys = [read.key for read in reads]
        self.waited = waited
        self.records = [f"{key}={version}".encode() for key in self.keys]
        self._gate = threading.Event()
        self._error: BaseException | None = None

    def answer(self, error: BaseException | None = None) -> None:
        """Let it end."""
        self._error = error
        self._gate.set()

    def wait(self, reads: Sequence[Read]) -> None:
        """Until it may end."""
        assert self._gate.wait(PATIENCE)
        if self._error is not None and not isinstance(self._error, RemoteFailed):
            raise self._error
        for read, record in zip(reads, self.records, strict=True):
            read.raw, read.failure = record, self._error


class Stage:
    """Reads over a server that answers when the test says so, and threads that ask."""

    def __init__(self) -> None:
        self.version = 0
        self.calls: list[Call] = []
        self.threads: list[threading.Thread] = []
        self.reads = ThreadReads(self._read_all, patience=PATIENCE)

    async def _read_all(self, reads: Sequence[Read], waited: float = 0.0) -> None:
        self.calls.append(Call(reads, self.version, waited))
        self.calls[-1].wait(reads)

    def ask(self, *keys: str) -> dict[str, Read | BaseException]:
        """A thread per key, each of which asks before the next one starts; what becomes of them."""
        outcomes: dict[str, Read | BaseException] = {}

        def work(key: str) -> None:
            read = new(key)
            try:
                run_sync(self.reads.read_one(read))
                outcomes[key] = read
            except BaseException as error:
                outcomes[key] = error

        for key in keys:
            before = self.under_way
            self.threads.append(threading.Thread(target=work, args=(key,), daemon=True))
            self.threads[-1].start()
            self.until(lambda before=before: self.under_way > before)  # type: ignore[misc]
        return outcomes

    @property
    def under_way(self) -> int:
        """How many have been sent or wait."""
        return sum(len(call.keys) for call in self.calls) + len(self.reads._waiting)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def end(self) -> None:
        """Let every call end, and every thread."""
        while any(thread.is_alive() for thread in self.threads):
            for call in list(self.calls):
                call.answer(call._error)
            for thread in self.threads:
                thread.join(0.01)
        assert not self.reads._waiting
        assert self.reads._leader is None
        assert not self.reads._inside


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Nobody waits when it is over, and nobody leads."""
    own = Stage()
    yield own
    own.end()


BUSY = FEW + 1
"""How many requests are under way then."""


def crowd(stage: Stage) -> dict[str, Read | BaseException]:
    """A few that read each for itself, and one that leads: who comes now waits for it."""
    outcomes = stage.ask(*[f"alone{number}" for number in range(FEW)], "leader")
    assert len(stage.calls) == BUSY
    return outcomes


def records(outcomes: dict[str, Read | BaseException]) -> dict[str, bytes | None]:
    """What was read, by key."""
    found = {}
    for key, outcome in outcomes.items():
        assert isinstance(outcome, Read)
        found[key] = outcome.raw
    return found


def test_few_threads_read_each_for_itself(stage: Stage) -> None:
    """At once, over connections of their own."""
    outcomes = stage.ask(*[f"alone{number}" for number in range(FEW)])
    assert [call.keys for call in stage.calls] == [[f"alone{number}"] for number in range(FEW)]
    assert stage.reads._leader is None
    stage.end()
    assert records(outcomes) == {f"alone{number}": f"alone{number}=0".encode() for number in range(FEW)}


def test_those_who_wait_are_read_for_by_one_of_them(stage: Stage) -> None:
    """In the order in which they came; each gets its own record."""
    crowd(stage)
    outcomes = stage.ask("a", "b", "c")
    assert len(stage.calls) == BUSY
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    assert stage.calls[-1].keys == ["a", "b", "c"]
    stage.end()
    assert records(outcomes) == {"a": b"a=0", "b": b"b=0", "c": b"c=0"}


def test_a_signal_handler_reads_on_the_thread_that_leads_or_waits(stage: Stage) -> None:
    """It would wait for what is below it on the same stack: it goes alone, and at once."""
    crowd(stage)
    real = stage.reads._read_all
    found: list[bytes | None] = []

    def handle(key: str) -> None:
        stage.reads._read_all = nested
        read = new(key)
        run_sync(stage.reads.read_one(read))
        found.append(read.raw)
        stage.reads._read_all = real

    async def nested(reads: Sequence[Read]) -> None:
        for read in reads:
            read.raw = read.key.encode()

    async def read_all(reads: Sequence[Read], waited: float = 0.0) -> None:
        handle("while it leads")
        with stage.reads._lock:
            handle("while it holds the lock")
        await real(reads, waited)

    outcomes = stage.ask("a", "b")
    stage.reads._read_all = read_all
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    stage.end()
    assert len(outcomes) == 2
    assert found[:2] == [b"while it leads", b"while it holds the lock"]


@pytest.mark.parametrize("early", [False, True])
def test_each_of_those_who_were_read_for_wakes_the_next(
    stage: Stage, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has given up before the answer came is passed over; one that gives up later wakes the next first."""
    crowd(stage)
    stage.reads._patience = 10 * PATIENCE
    real = stage.reads._wait
    interrupted = threading.Event()

    def wait(me: _Reader) -> bool:
        if me.key == "b":
            interrupted.wait(PATIENCE)
            raise KeyboardInterrupt
        return real(me)

    monkeypatch.setattr(stage.reads, "_wait", wait)
    outcomes = stage.ask("lead", "a", "b", "c")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    if early:
        interrupted.set()
        stage.until(lambda: "b" in outcomes)
    stage.calls[-1].answer()
    stage.until(lambda: "lead" in outcomes and "a" in outcomes)
    if not early:
        assert "c" not in outcomes
        interrupted.set()
    stage.until(lambda: "b" in outcomes and "c" in outcomes)
    assert isinstance(outcomes["b"], KeyboardInterrupt)


def test_h_a_read_never_joins_what_was_sent(stage: Stage) -> None:
    """(H): who waits while a batch is under way is in the next one, though it asks for the same key."""
    crowd(stage)
    stage.ask("a", "b")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)  # a leads, for b too
    stage.version = 1  # a write is acknowledged
    late = stage.ask("c")
    assert len(stage.calls) == BUSY + 1
    stage.end()
    assert records(late) == {"c": b"c=1"}


def test_a_failure_reaches_all(stage: Stage) -> None:
    """Those who still waited are told at once: to wait once more for the same server would be one timeout too many."""
    crowd(stage)
    led = stage.ask("a", "b")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    waiting = stage.ask("c")
    stage.calls[-1].answer(RemoteTimeout("no answer in time"))
    stage.until(lambda: len(led) == 2 and len(waiting) == 1)
    failures = [read.failure for read in (led["a"], led["b"], waiting["c"]) if isinstance(read, Read)]
    assert [type(failure) for failure in failures] == [RemoteTimeout, RemoteTimeout, NotSent]
    assert len(stage.calls) == BUSY + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_a_leader_that_is_interrupted_hands_over(stage: Stage, error: BaseException) -> None:
    """The next of those whom it led reads for the others."""
    crowd(stage)
    outcomes = stage.ask("a", "b")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    late = stage.ask("c")
    stage.calls[-1].answer(error)
    stage.until(lambda: len(stage.calls) == BUSY + 2)
    assert stage.calls[-1].keys == ["b", "c"]
    stage.end()
    assert outcomes["a"] is error
    assert isinstance(outcomes["b"], Read)
    assert isinstance(late["c"], Read)


def test_a_read_that_is_kept_keeps_no_other(stage: Stage) -> None:
    """A load keeps its read until it ends: linked to the reads of its crowd, it would keep all that come meanwhile."""
    outcomes = [crowd(stage), stage.ask("a", "b", "c")]
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    outcomes.append(stage.ask("next"))
    stage.end()
    reads = [read for some in outcomes for read in some.values()]
    assert len(reads) == BUSY + 4
    for read in reads:
        assert isinstance(read, _Reader)
        assert read.next is None
        assert not read.led


def test_what_an_interrupted_leader_has_read_is_forgotten(stage: Stage) -> None:
    """It is read again: the older record, or its failure, would be judged after the newer one."""
    seen: list[tuple[Any, ...]] = []
    real = stage.reads._read_all

    async def read_all(reads: Sequence[Read], waited: float = 0.0) -> None:
        if reads[0].key == "a":
            for read in reads:
                read.raw, read.failure, read.value, read.judged = b"old", RemoteFailed("old"), "old", True
            await real(reads, waited)
        seen.extend((read.key, read.raw, read.failure, read.value, read.judged) for read in reads)

    crowd(stage)
    stage.reads._read_all = read_all
    stage.ask("a", "b")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    stage.calls[-1].answer(KeyboardInterrupt())
    stage.until(lambda: seen)
    stage.end()
    assert seen == [("b", None, None, MISSING, False)]


@pytest.mark.parametrize("promoted", [False, True])
def test_one_that_is_interrupted_while_it_waits_harms_nobody(
    stage: Stage, promoted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the queue; if it was just made a leader, the next one is."""
    real = stage.reads._wait
    interrupted = threading.Event()

    def wait(me: _Reader) -> bool:
        if me.key == "a":
            if promoted:
                assert me.wake.acquire(timeout=PATIENCE)
            interrupted.wait(PATIENCE)
            raise KeyboardInterrupt
        return real(me)

    monkeypatch.setattr(stage.reads, "_wait", wait)
    crowd(stage)
    outcomes = stage.ask("a", "b")
    if promoted:
        stage.calls[FEW].answer()
        stage.until(lambda: stage.reads._leader is not None and stage.reads._leader.key == "a")
    interrupted.set()
    stage.until(lambda: "a" in outcomes)
    if not promoted:
        stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)
    assert stage.calls[-1].keys == ["b"]
    stage.end()
    assert isinstance(outcomes["a"], KeyboardInterrupt)
    assert isinstance(outcomes["b"], Read)


def test_who_was_interrupted_is_not_handed_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is led and one that leads it are interrupted: the lead goes to somebody who is there."""
    real = stage.reads._wait
    interrupted = threading.Event()

    def wait(me: _Reader) -> bool:
        if me.key == "b":
            interrupted.wait(PATIENCE)
            raise KeyboardInterrupt
        return real(me)

    monkeypatch.setattr(stage.reads, "_wait", wait)
    crowd(stage)
    outcomes = stage.ask("a", "b")
    stage.calls[FEW].answer()
    stage.until(lambda: len(stage.calls) == BUSY + 1)  # a leads, for b too
    late = stage.ask("c")
    interrupted.set()
    stage.until(lambda: "b" in outcomes)
    stage.calls[-1].answer(KeyboardInterrupt())
    stage.until(lambda: len(stage.calls) == BUSY + 2)
    assert stage.calls[-1].keys == ["c"]
    stage.end()
    assert records(late) == {"c": b"c=0"}


def test_a_read_that_waits_too_long_for_its_turn_leads(stage: Stage) -> None:
    """A leader that is slow, or gone after an interrupt, does not hold others up; what a read has waited is known."""
    stage.reads = ThreadReads(stage._read_all, few=0, turn=0.05, patience=PATIENCE)
    slow = stage.ask("slow")
    outcomes = stage.ask("a", "b")
    stage.until(lambda: len(stage.calls) == 2)
    assert sorted(stage.calls[1].keys) == ["a", "b"]
    assert [call.waited >= 0.05 for call in stage.calls] == [False, True]
    stage.calls[1].answer()
    stage.until(lambda: len(outcomes) == 2)
    assert not slow
    stage.end()


def test_nobody_waits_for_ever_for_a_leader_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt may come in the very line that would have handed over; afterwards everything goes on."""
    stage = Stage()
    stage.reads = ThreadReads(stage._read_all, few=0, turn=0.1, patience=0.2)
    stage.ask("slow")
    outcomes = stage.ask("a", "b")
    stage.until(lambda: len(stage.calls) == 2)
    led = stage.calls[1].keys[1]
    with monkeypatch.context() as patched:
        patched.setattr(stage.reads, "_leave", lambda _: None)
        stage.calls[1].answer(KeyboardInterrupt())
        stage.until(lambda: len(outcomes) == 1)
    stage.until(lambda: len(outcomes) == 2)
    read = outcomes[led]
    assert isinstance(read, Read)
    assert isinstance(read.failure, NotSent)
    stage.ask("c")
    assert stage.calls[-1].keys == ["c"]
    stage.end()


def test_a_cache_sets_it_up() -> None:
    """Nobody waits for longer than for Redis."""
    cache = NearCache.from_url("redis://127.0.0.1:1", redis_timeout=0.5, redis_connect_timeout=2, namespace="t-batch")
    reads = cache._core.single
    assert isinstance(reads, ThreadReads)
    assert (reads._turn, reads._patience) == (0.05, 2 + 10 * 0.5)
    cache.close()


def test_a_batch_is_bounded(stage: Stage) -> None:
    """Redis answers nobody else meanwhile; the others are the next one's."""
    lead = stage.reads
    lead._waiting.extend(new(f"k{number}") for number in range(BATCH + 5))
    me = new("me")
    lead._take_along(me)
    assert [reader.key for reader in me.led] == [f"k{number}" for number in range(BATCH - 1)]
    assert [reader.key for reader in lead._waiting] == [f"k{number}" for number in range(BATCH - 1, BATCH + 5)]
    lead._waiting.clear()


@pytest.mark.parametrize("seed", range(3))
def test_at_random_every_read_ends_and_none_is_older_than_its_asking(seed: int) -> None:
    """Some fail, some are interrupted; versions rise all the time, and nobody is left waiting."""
    version = itertools.count(1)
    now = 0
    chance = random.Random(seed)

    async def read_all(reads: Sequence[Read], waited: float = 0.0) -> None:
        del waited
        nonlocal now
        records = [f"{read.key}={now}".encode() for read in reads]
        now = next(version)
        time.sleep(chance.random() / 2000)  # noqa: ASYNC251  # as the threads' wire does
        fate = chance.random()
        if fate < 0.02:
            raise KeyboardInterrupt
        for read, record in zip(reads, records, strict=True):
            read.raw, read.failure = record, RemoteFailed("at random") if fate < 0.04 else None

    reads = ThreadReads(read_all, turn=chance.choice((60.0, 0.0005)), patience=PATIENCE)
    right: list[bool] = []
    told: set[str] = set()

    def work(name: str) -> None:
        for _ in range(60):
            asked_at, read = now, new(name)
            try:
                run_sync(reads.read_one(read))
            except KeyboardInterrupt:
                continue
            if read.failure is None:
                key, found = bytes(read.raw or b"").split(b"=")
                right.append(key == name.encode() and int(found) >= asked_at)
            else:
                told.add(str(read.failure))

    threads = [threading.Thread(target=work, args=(f"k{number}",), daemon=True) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
    assert not any(thread.is_alive() for thread in threads)
    assert all(right)
    assert not any("did not come back" in one for one in told)
    assert not reads._waiting
    assert reads._leader is None
