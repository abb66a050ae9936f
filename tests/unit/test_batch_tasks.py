"""Reads of tasks that go as one: who joins whom, who fails with whom, and who harms nobody."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

import pytest

from nearcache.engine.plain import Read
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH
from nearcache.settings import Settings
from nearcache.transport.batching import TaskReads


class Redis:
    """Reads that are answered when the test says so; a record is its key and the version at the sending."""

    def __init__(self, *, held: bool = False) -> None:
        self.version = 0
        self.calls: list[tuple[str, ...]] = []
        self.gates: list[asyncio.Future[None]] = []
        self._held = held

    async def read_all(self, reads: Sequence[Read]) -> None:
        """Wait for the gate; the values are those of the moment at which it was sent."""
        self.calls.append(tuple(read.key for read in reads))
        records = [f"{read.key}={self.version}".encode() for read in reads]
        self.gates.append(asyncio.get_running_loop().create_future())
        if self._held:
            await self.gates[-1]
        for read, record in zip(reads, records, strict=True):
            read.raw = record


def new(key: str) -> Read:
    """A read of a key."""
    return Read(key, Policy.of(Settings()))


async def one(reads: TaskReads, key: str) -> Read:
    """Do a read."""
    read = new(key)
    await reads.read_one(read)
    return read


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def ask(reads: TaskReads, *keys: str) -> list[asyncio.Task[Read]]:
    """A task per key, all in one turn."""
    return [asyncio.ensure_future(one(reads, key)) for key in keys]


async def test_reads_of_one_turn_go_as_one() -> None:
    """Each gets the record of its own key."""
    server = Redis()
    done = await asyncio.gather(*ask(TaskReads(server.read_all), "a", "b", "a"))
    assert [read.raw for read in done] == [b"a=0", b"b=0", b"a=0"]
    assert [sorted(keys) for keys in server.calls] == [["a", "a", "b"]]


async def test_a_lone_read_is_sent_at_the_end_of_the_turn_as_it_is() -> None:
    """No timer, and no task but its own."""
    server = Redis(held=True)
    (task,) = ask(TaskReads(server.read_all), "a")
    await turns(2)
    assert server.calls == [("a",)]
    assert len(asyncio.all_tasks()) == 2
    server.gates[0].set_result(None)
    assert (await task).raw == b"a=0"


async def test_a_batch_is_bounded() -> None:
    """Redis answers nobody else meanwhile."""
    server = Redis()
    keys = [f"k{number}" for number in range(2 * BATCH + 7)]
    done = await asyncio.gather(*ask(TaskReads(server.read_all), *keys))
    assert [read.raw for read in done] == [f"{key}=0".encode() for key in keys]
    assert sorted(map(len, server.calls)) == [7, BATCH, BATCH]


@pytest.mark.parametrize("size", [1, 2])
async def test_h_a_read_never_joins_what_was_sent(size: int) -> None:
    """(H): what was sent earlier may have run before a write that the caller knows of."""
    server = Redis(held=True)
    reads = TaskReads(server.read_all)
    first = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 1
    server.version = 1  # a write is acknowledged
    second = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 2
    for gate in server.gates:
        gate.set_result(None)
    assert {(await task).raw for task in first} == {b"a=0"}
    assert {(await task).raw for task in second} == {b"a=1"}


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("when", ["before it is sent", "under way"])
async def test_a_cancelled_read_harms_nobody(victim: int, when: str) -> None:
    """Whoever it is, also the one that the others joined; what nobody waits for any more is not asked."""
    server = Redis(held=True)
    reads = TaskReads(server.read_all)
    tasks = ask(reads, "a", "b", "c")
    await turns(1 if when == "before it is sent" else 5)
    tasks[victim].cancel()
    await turns()
    keys = server.calls[0]
    assert ("abc"[victim] in keys) is (when == "under way")
    server.gates[0].set_result(None)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for number, outcome in enumerate(done):
        if number == victim:
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert isinstance(outcome, Read)
            assert outcome.raw == f"{'abc'[number]}=0".encode()
    assert len(server.calls) == 1


async def test_when_all_have_given_up_nothing_is_sent() -> None:
    """And the next read is a batch of its own."""
    server = Redis()
    reads = TaskReads(server.read_all)
    tasks = ask(reads, "a", "b", "c")
    await turns(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await turns()
    assert server.calls == []
    assert [read.raw for read in await asyncio.gather(*ask(reads, "d"))] == [b"d=0"]


async def test_the_end_of_the_loop_is_told_as_a_failure() -> None:
    """Those who wait for a batch that is cancelled were not cancelled themselves."""
    server = Redis(held=True)
    reads = TaskReads(server.read_all)
    tasks = ask(reads, "a", "b")
    await turns()
    (batch,) = [task for task in asyncio.all_tasks() if task.get_name() == "nearcache-read"]
    batch.cancel()
    for outcome in await asyncio.gather(*tasks):
        assert isinstance(outcome.failure, NotSent)


@pytest.mark.parametrize("seed", range(10))
async def test_at_random_every_read_ends_and_none_is_older_than_its_asking(seed: int) -> None:
    """Some fail, some are cancelled; versions rise all the time."""
    chance = random.Random(seed)
    version = itertools.count(1)
    now = 0

    async def read_all(reads: Sequence[Read]) -> None:
        nonlocal now
        records = [f"{read.key}={now}".encode() for read in reads]
        now = next(version)
        await turns(chance.randrange(4))
        failure = RemoteFailed("at random") if chance.random() < 0.2 else None
        for read, record in zip(reads, records, strict=True):
            read.raw, read.failure = record, failure

    reads = TaskReads(read_all)

    async def work(name: str) -> None:
        for _ in range(50):
            await turns(chance.randrange(3))
            asked_at = now
            read = await one(reads, name)
            key, found = bytes(read.raw or b"").split(b"=")
            assert key == name.encode()
            assert int(found) >= asked_at

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
