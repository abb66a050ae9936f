"""Reads of tasks that go as one: who joins whom, who fails with whom, and who harms nobody."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

import pytest

from nearcache.engine.ports import NotSent, RemoteFailed, RemoteTimeout
from nearcache.protocol.answers import BATCH, Bounds, Reading
from nearcache.transport.batching import TaskReads

BOUNDS = Bounds(9, 7)


class Redis:
    """A Remote whose reads are answered when the test says so; a record is its key and the version at the sending."""

    def __init__(self, *, held: bool = False) -> None:
        self.version = 0
        self.calls: list[tuple[tuple[str, ...], bool]] = []
        self.gates: list[asyncio.Future[None]] = []
        self._held = held

    async def read(self, keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Reading:
        """Wait for the gate; the values are those of the moment at which it was sent."""
        self.calls.append((tuple(keys), with_bounds))
        records = [f"{key}={self.version}".encode() for key in keys]
        self.gates.append(asyncio.get_running_loop().create_future())
        if self._held:
            await self.gates[-1]
        return Reading(records, BOUNDS if with_bounds else None)


def as_reading(record: bytes | None, bounds: Bounds | None) -> Reading:
    """What is made of a record here."""
    if record == b"bad=0":
        raise ValueError(record)
    return Reading((record,), bounds)


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def ask(reads: TaskReads, *keys: str, with_bounds: bool = False) -> list[asyncio.Task[Reading]]:
    """A task per key, all in one turn."""
    return [asyncio.ensure_future(reads.read_one(key, with_bounds=with_bounds, take=as_reading)) for key in keys]


async def test_reads_of_one_turn_go_as_one() -> None:
    """Each gets the record of its own key."""
    server = Redis()
    done = await asyncio.gather(*ask(TaskReads(server.read), "a", "b", "a"))
    assert [reading.records for reading in done] == [(b"a=0",), (b"b=0",), (b"a=0",)]
    assert [sorted(keys) for keys, _ in server.calls] == [["a", "a", "b"]]


async def test_a_lone_read_is_sent_at_the_end_of_the_turn_as_it_is() -> None:
    """No timer, and no task but its own."""
    server = Redis(held=True)
    (task,) = ask(TaskReads(server.read), "a")
    await turns(2)
    assert server.calls == [(("a",), False)]
    assert len(asyncio.all_tasks()) == 2
    server.gates[0].set_result(None)
    assert (await task).records == (b"a=0",)


async def test_who_needs_the_floor_gets_it() -> None:
    """It is read with the values of all."""
    server = Redis()
    reads = TaskReads(server.read)
    done = await asyncio.gather(*ask(reads, "a"), *ask(reads, "b", with_bounds=True), *ask(reads, "c"))
    assert [flag for _, flag in server.calls] == [True]
    assert done[1].bounds == BOUNDS
    await asyncio.gather(*ask(reads, "a", "b"))
    assert server.calls[-1][1] is False


async def test_what_a_caller_makes_of_its_record_may_fail() -> None:
    """It is that caller's error alone."""
    server = Redis()
    done = await asyncio.gather(*ask(TaskReads(server.read), "a", "bad", "b"), return_exceptions=True)
    assert isinstance(done[1], ValueError)
    assert [one.records for one in done if isinstance(one, Reading)] == [(b"a=0",), (b"b=0",)]


async def test_a_batch_is_bounded() -> None:
    """Redis answers nobody else meanwhile."""
    server = Redis()
    keys = [f"k{number}" for number in range(2 * BATCH + 7)]
    done = await asyncio.gather(*ask(TaskReads(server.read), *keys))
    assert [reading.records[0] for reading in done] == [f"{key}=0".encode() for key in keys]
    assert sorted(len(keys) for keys, _ in server.calls) == [7, BATCH, BATCH]


@pytest.mark.parametrize("size", [1, 2])
async def test_h_a_read_never_joins_what_was_sent(size: int) -> None:
    """(H): what was sent earlier may have run before a write that the caller knows of."""
    server = Redis(held=True)
    reads = TaskReads(server.read)
    first = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 1
    server.version = 1  # a write is acknowledged
    second = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 2
    for gate in server.gates:
        gate.set_result(None)
    assert {(await task).records[0] for task in first} == {b"a=0"}
    assert {(await task).records[0] for task in second} == {b"a=1"}


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("when", ["before it is sent", "under way"])
async def test_a_cancelled_read_harms_nobody(victim: int, when: str) -> None:
    """Whoever it is, also the one that the others joined; what nobody waits for any more is not asked."""
    server = Redis(held=True)
    reads = TaskReads(server.read)
    tasks = ask(reads, "a", "b", "c")
    await turns(1 if when == "before it is sent" else 5)
    tasks[victim].cancel()
    await turns()
    (keys, _) = server.calls[0]
    assert ("abc"[victim] in keys) is (when == "under way")
    server.gates[0].set_result(None)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for number, outcome in enumerate(done):
        if number == victim:
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert isinstance(outcome, Reading)
            assert outcome.records == (f"{'abc'[number]}=0".encode(),)
    assert len(server.calls) == 1


async def test_when_all_have_given_up_nothing_is_sent() -> None:
    """And the next read is a batch of its own."""
    server = Redis()
    reads = TaskReads(server.read)
    tasks = ask(reads, "a", "b", "c")
    await turns(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await turns()
    assert server.calls == []
    assert [reading.records for reading in await asyncio.gather(*ask(reads, "d"))] == [(b"d=0",)]


@pytest.mark.parametrize("cancelled", [(), (0,), (2,)])
async def test_a_failure_reaches_all_and_is_told_once(cancelled: Sequence[int]) -> None:
    """Each gets an error of the right class of its own, one of which the breaker counts."""
    server = Redis(held=True)
    reads = TaskReads(server.read)
    tasks = ask(reads, "a", "b", "c", "d")
    await turns()
    for victim in cancelled:
        tasks[victim].cancel()
    server.gates[0].set_exception(RemoteTimeout("no answer in time"))
    done = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [error for error in done if isinstance(error, RemoteTimeout)]
    assert len(set(failures)) == 4 - len(cancelled)
    assert [error.counted for error in failures].count(False) == 1
    assert {str(error) for error in failures} == {"no answer in time"}


async def test_the_end_of_the_loop_is_told_as_a_failure() -> None:
    """Those who wait for a batch that is cancelled were not cancelled themselves."""
    server = Redis(held=True)
    reads = TaskReads(server.read)
    tasks = ask(reads, "a", "b")
    await turns()
    (batch,) = [task for task in asyncio.all_tasks() if task.get_name() == "nearcache-read"]
    batch.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, NotSent)


def right(reading: Reading, name: str, asked_at: int, with_bounds: bool) -> None:
    """It is the record of this key, sent after it was asked for."""
    key, found = bytes(reading.records[0] or b"").split(b"=")
    assert key == name.encode()
    assert int(found) >= asked_at
    assert not with_bounds or reading.bounds == BOUNDS


@pytest.mark.parametrize("seed", range(10))
async def test_at_random_every_read_ends_and_none_is_older_than_its_asking(seed: int) -> None:
    """Some fail, some are cancelled; versions rise all the time."""
    chance = random.Random(seed)
    version = itertools.count(1)
    now = 0

    async def read(keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Reading:
        nonlocal now
        records = [f"{key}={now}".encode() for key in keys]
        now = next(version)
        await turns(chance.randrange(4))
        if chance.random() < 0.2:
            raise RemoteFailed("at random")
        return Reading(records, BOUNDS if with_bounds else None)

    reads = TaskReads(read)

    async def work(name: str) -> None:
        nonlocal now
        for _ in range(50):
            await turns(chance.randrange(3))
            asked_at, flag = now, chance.random() < 0.3
            try:
                reading = await reads.read_one(name, with_bounds=flag, take=as_reading)
            except RemoteFailed:
                continue
            right(reading, name, asked_at, flag)

    tasks = [asyncio.ensure_future(work(f"k{number}")) for number in range(20)]
    for _ in range(100):
        await asyncio.sleep(0)
        if chance.random() < 0.1:
            chance.choice(tasks).cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    await turns()
    assert not reads._tasks
    assert reads._gathering is None
