"""Reads of tasks that go as one: who joins whom, who fails with whom, and who harms nobody."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from nearcache.counters import Counters
from nearcache.engine.plain import Read
from nearcache.engine.ports import MISSING, NotSent, RemoteFailed
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH
from nearcache.settings import Settings
from nearcache.transport import batching
from nearcache.transport.batching import TaskReads

POLICY = Policy.of(Settings())


class Redis:
    """Reads that are answered when the test says so; a value is its key and the version at the sending."""

    def __init__(self, *, held: bool = False) -> None:
        self.version = 0
        self.calls: list[tuple[str, ...]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.counters = Counters()
        self._held = held

    def reads(self) -> TaskReads:
        """Reads from here, which is in place of a Core."""
        return TaskReads(self)  # type: ignore[arg-type]

    async def read(self, batch: Asked) -> None:
        """Wait for the gate; the values are those of the moment at which it was sent."""
        self.calls.append(tuple(batch.keys))
        values = [f"{key}={self.version}" for key in batch.keys]
        self.gates.append(asyncio.get_running_loop().create_future())
        if self._held:
            await self.gates[-1]
        batch.values = values


class Asked:
    """In place of a Batch."""

    def __init__(self, server: Redis, keys: Sequence[str]) -> None:
        self.keys = keys
        self.values: list[Any] = [MISSING] * len(keys)
        self.failure: RemoteFailed | None = None
        self._server = server

    @property
    def entries(self) -> list[Any]:
        """None: not plain."""
        return [None if value is MISSING or type(value) is Read else value for value in self.values]

    async def read(self) -> None:
        """Ask the server."""
        await self._server.read(self)

    def fail(self, failure: RemoteFailed) -> None:
        """As a Batch does."""
        self.failure, self.values = failure, [MISSING] * len(self.keys)

    def fill(self, at: int, read: Read) -> None:
        """As a Batch does."""
        read.value, read.failure = self.values[at], self.failure


@pytest.fixture(autouse=True)
def _batch_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "Batch", lambda server, keys, _policies: Asked(server, keys))


async def one(reads: TaskReads, key: str) -> Any:
    """The value of a key."""
    return await reads.find(key, POLICY)


async def filled(reads: TaskReads, key: str) -> Read:
    """A read that was done along with others."""
    read = Read(key, POLICY)
    await reads.read_one(read)
    return read


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def ask(reads: TaskReads, *keys: str) -> list[asyncio.Task[Any]]:
    """A task per key, all in one turn."""
    return [asyncio.ensure_future(one(reads, key)) for key in keys]


async def test_reads_of_one_turn_go_as_one() -> None:
    """Each gets the record of its own key."""
    server = Redis()
    done = await asyncio.gather(*ask(server.reads(), "a", "b", "a"))
    assert done == ["a=0", "b=0", "a=0"]
    assert [sorted(keys) for keys in server.calls] == [["a", "a", "b"]]


async def test_a_lone_read_is_sent_at_the_end_of_the_turn_as_it_is() -> None:
    """No timer, and no task but its own."""
    server = Redis(held=True)
    (task,) = ask(server.reads(), "a")
    await turns(2)
    assert server.calls == [("a",)]
    assert len(asyncio.all_tasks()) == 2
    server.gates[0].set_result(None)
    assert await task == "a=0"


async def test_a_batch_is_bounded() -> None:
    """Redis answers nobody else meanwhile."""
    server = Redis()
    keys = [f"k{number}" for number in range(2 * BATCH + 7)]
    done = await asyncio.gather(*ask(server.reads(), *keys))
    assert done == [f"{key}=0" for key in keys]
    assert sorted(map(len, server.calls)) == [7, BATCH, BATCH]


@pytest.mark.parametrize("size", [1, 2])
async def test_h_a_read_never_joins_what_was_sent(size: int) -> None:
    """(H): what was sent earlier may have run before a write that the caller knows of."""
    server = Redis(held=True)
    reads = server.reads()
    first = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 1
    server.version = 1  # a write is acknowledged
    second = ask(reads, *["a"] * size)
    await turns()
    assert len(server.calls) == 2
    for gate in server.gates:
        gate.set_result(None)
    assert {await task for task in first} == {"a=0"}
    assert {await task for task in second} == {"a=1"}


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("when", ["before it is sent", "under way"])
async def test_a_cancelled_read_harms_nobody(victim: int, when: str) -> None:
    """Whoever it is, also the one that the others joined; what nobody waits for any more is not asked."""
    server = Redis(held=True)
    reads = server.reads()
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
            assert outcome == f"{'abc'[number]}=0"
    assert len(server.calls) == 1


async def test_when_all_have_given_up_nothing_is_sent() -> None:
    """And the next read is a batch of its own."""
    server = Redis()
    reads = server.reads()
    tasks = ask(reads, "a", "b", "c")
    await turns(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await turns()
    assert server.calls == []
    assert await asyncio.gather(*ask(reads, "d")) == ["d=0"]


async def test_the_end_of_the_loop_is_told_as_a_failure() -> None:
    """Those who wait for a batch that is cancelled were not cancelled themselves."""
    server = Redis(held=True)
    reads = server.reads()
    tasks = [asyncio.ensure_future(filled(reads, "a")), *ask(reads, "b")]
    await turns()
    (batch,) = [task for task in asyncio.all_tasks() if task.get_name() == "nearcache-read"]
    batch.cancel()
    read, value = await asyncio.gather(*tasks)
    assert isinstance(read.failure, NotSent)
    assert value is MISSING


async def test_what_is_not_plain_is_judged_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose records are plain go on before; who wants the record judges for himself; absent ones are misses."""
    server, may_settle = Redis(), asyncio.Event()
    settled: list[list[str]] = []

    async def read(batch: Asked) -> None:
        batch.values = [
            Read(key, POLICY) if key.startswith("tagged") else MISSING if key == "absent" else key for key in batch.keys
        ]

    async def settle(_core: object, reads: Sequence[Read]) -> None:
        settled.append(sorted(read.key for read in reads))
        await may_settle.wait()
        for one in reads:
            if one.key != "tagged-dead":
                one.value = f"{one.key} judged"

    server.read = read  # type: ignore[method-assign]
    monkeypatch.setattr(batching, "settle", settle)
    reads = server.reads()
    before = ask(reads, "plain", "absent")
    after = ask(reads, "tagged", "tagged-dead")
    record = asyncio.ensure_future(filled(reads, "tagged-record"))
    assert await asyncio.gather(*before) == ["plain", MISSING]
    assert type((await record).value) is Read
    assert settled == [["tagged", "tagged-dead"]]
    may_settle.set()
    assert await asyncio.gather(*after) == ["tagged judged", MISSING]
    assert server.counters.misses == 2


@pytest.mark.parametrize("seed", range(10))
async def test_at_random_every_read_ends_and_none_is_older_than_its_asking(seed: int) -> None:
    """Some fail, some are cancelled; versions rise all the time."""
    chance = random.Random(seed)
    version = itertools.count(1)
    now = 0

    async def read(batch: Asked) -> None:
        nonlocal now
        batch.values = [f"{key}={now}" for key in batch.keys]
        now = next(version)
        await turns(chance.randrange(4))
        if chance.random() < 0.2:
            batch.failure = RemoteFailed("at random")

    server = Redis()
    server.read = read  # type: ignore[method-assign]
    reads = server.reads()

    async def work(name: str) -> None:
        for _ in range(50):
            await turns(chance.randrange(3))
            asked_at = now
            value = (await filled(reads, name)).value if chance.random() < 0.3 else await one(reads, name)
            key, found = value.split("=")
            assert key == name
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
