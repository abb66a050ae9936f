"""Faults of a cluster under load: slots that move, failovers, a primary that stops. The promises hold meanwhile.

A writer counts up some keys; each acknowledged value is noted with the time. Readers in another cache must never see a
value that is older than what was acknowledged max_staleness before, nor one older than they have seen before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from nearcache import AsyncNearCache
from nearcache.local.snapshot import bucket_of
from tests.support import servers
from tests.support.clusters import LocalCluster, Node
from tests.support.waiting import until

KEYS = [f"key:{number}" for number in range(64)]
OPTIONS: dict[str, Any] = {"max_staleness": 1.0, "redis_timeout": 0.2, "reconnect_max": 0.1, "breaker_reset": 0.2}
MARGIN = 0.25
"""Seconds for this process, which is writer, readers and judge in one loop, and for a busy machine."""


@pytest.fixture(scope="module", params=servers.KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A cluster of each kind of server, with replicas."""
    with LocalCluster(request.param, replicas=True) as made:
        yield made


@dataclass
class Load:
    """A writer and some readers, and what is wrong with what they have read."""

    writer: AsyncNearCache
    readers: list[AsyncNearCache]
    lossy: bool = False
    """Whether acknowledged writes may be lost, as by a failover to a replica that lags."""
    acknowledged: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    writes: int = 0
    refused: int = 0
    reads: int = 0
    hits: int = 0
    violations: list[str] = field(default_factory=list)
    done: bool = False

    async def write(self) -> None:
        """Count the keys up, one after the other."""
        number = 0
        while not self.done:
            number += 1
            for key in KEYS:
                if await self.writer.set(key, number):
                    self.acknowledged.setdefault(key, []).append((time.monotonic(), number))
                    self.writes += 1
                else:
                    self.refused += 1
                await asyncio.sleep(0.002)

    async def read(self, cache: AsyncNearCache) -> None:
        """Read the keys, and judge."""
        seen: dict[str, int] = {}
        while not self.done:
            for key in KEYS:
                for look in (cache.get, cache.peek):
                    began = time.monotonic()
                    found: Any = look(key)
                    value = await found if look == cache.get else found
                    self.reads += 1
                    self.hits += look != cache.get and value is not None
                    if value is not None:
                        self._judge(key, value, began, seen)
            await asyncio.sleep(0.002)

    def _judge(self, key: str, value: int, began: float, seen: dict[str, int]) -> None:
        if not self.lossy and value < seen.get(key, 0):
            self.violations.append(f"{key}: {value} was read after {seen[key]}")
        seen[key] = value
        limit = began - OPTIONS["max_staleness"] - MARGIN
        due = [number for at, number in self.acknowledged.get(key, ()) if at < limit]
        if not self.lossy and due and value < max(due):
            self.violations.append(f"{key}: {value} was read though {max(due)} had been acknowledged before {limit}")


async def under_load(
    cluster: LocalCluster, namespace: str, fault: Callable[[], object], *, lossy: bool = False, elects: bool = False
) -> Load:
    """Let a fault happen under load; afterwards all is proven and right again.

    Args:
        cluster: its nodes.
        namespace: of the test alone.
        fault: called in a thread.
        lossy: the fault ends a primary, whose last writes its replica may lack.
        elects: a replica may be elected, for a primary that stood still before on a busy machine: the server ends the
            subscriptions of its buckets, and writes are lost. Then what was read is not judged.
    """
    primaries = {node.name for node in cluster.primaries}
    caches = [AsyncNearCache.from_url(cluster.url, namespace=namespace, **OPTIONS) for _ in range(3)]
    load = Load(caches[0], caches[1:], lossy)
    try:
        for cache in caches:
            assert await cache.wait_healthy(20)
        tasks = [asyncio.create_task(load.write()), *(asyncio.create_task(load.read(cache)) for cache in load.readers)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(fault)
        await until(lambda: all(cache.healthy for cache in caches), within=30)
        await asyncio.sleep(1.0)
        load.done = True
        await asyncio.gather(*tasks)
        await until(lambda: caches[0].health().journal == 0, within=30)
        assert await load.writer.set_many(dict.fromkeys(KEYS, 10**9)) is True
        for cache in caches:
            await until(partial(has_last, cache), within=OPTIONS["max_staleness"] + MARGIN)
    finally:
        for cache in caches:
            await cache.close()
    assert load.violations == [] or (elects and {node.name for node in cluster.primaries} != primaries)
    assert load.hits > 0
    assert load.writes > 0
    return load


async def has_last(cache: AsyncNearCache) -> bool:
    """Whether a cache reads the last value of each key."""
    return await cache.get_many(KEYS) == dict.fromkeys(KEYS, 10**9)


def slots_of(namespace: str) -> list[int]:
    """The slots of the namespace's buckets, by the number of the bucket."""
    return [int(key_slot(f"{{{namespace}:{bucket}}}:m".encode())) for bucket in range(16)]


async def test_slots_that_move(cluster: LocalCluster, namespace: str) -> None:
    """Half of the buckets move to another primary, slowly."""

    def move() -> None:
        for slot in slots_of(namespace)[::2]:
            source = cluster.owner(slot)
            target = next(node for node in cluster.primaries if node is not source)
            cluster.migrate(slot, target, pause=0.05)

    load = await under_load(cluster, namespace, move)
    assert load.refused < load.writes


async def test_a_failover_by_command(cluster: LocalCluster, namespace: str) -> None:
    """CLUSTER FAILOVER loses nothing: the replica has all when it takes over."""

    def fail_over() -> None:
        primary = cluster.primaries[0]
        replica = cluster.replica_of(primary)
        replica("CLUSTER", "FAILOVER")
        cluster.wait(lambda: replica.is_primary and cluster.settled())

    await under_load(cluster, namespace, fail_over)


async def test_a_primary_that_is_killed(cluster: LocalCluster, namespace: str) -> None:
    """Its replica takes over; the others' values serve meanwhile. What the replica did not have yet is lost."""
    served: list[bool] = []

    def kill() -> None:
        primary = cluster.primaries[0]
        replica = cluster.replica_of(primary)
        primary.server.kill()
        cluster.wait(lambda: replica.is_primary)
        served.append(True)
        primary.server.start()
        cluster.wait(cluster.settled)

    await under_load(cluster, namespace, kill, lossy=True)
    assert served


async def test_a_primary_that_stops_costs_its_own_keys_alone(cluster: LocalCluster, namespace: str) -> None:
    """Hits and writes of the other primaries' buckets go on; when it comes back, all is proven."""
    slots = slots_of(namespace)
    stopped: Node = cluster.owner(slots[bucket_of(KEYS[0], 16)])
    theirs = [key for key in KEYS if cluster.owner(slots[bucket_of(key, 16)]) is not stopped]
    own = [key for key in KEYS if key not in theirs]
    assert theirs
    assert own
    cache = AsyncNearCache.from_url(cluster.url, namespace=namespace, **OPTIONS)
    async with cache:
        assert await cache.wait_healthy(10)
        assert await cache.set_many(dict.fromkeys(KEYS, 1)) is True
        stopped.server.pause()
        try:
            await until(lambda: cache.peek(own[0]) is None)
            began = time.monotonic()
            while time.monotonic() < began + 0.8:  # less than the time after which a replica takes over
                assert [cache.peek(key) for key in theirs] == [1] * len(theirs)
                await asyncio.sleep(0.05)
            assert await cache.set_many(dict.fromkeys(theirs, 2)) is True
            assert await cache.set(own[0], 2) is False
            assert cache.health().status == "degraded"
        finally:
            stopped.server.resume()
            await asyncio.to_thread(cluster.wait, cluster.settled)
        await until(lambda: cache.healthy and not cache.health().journal, within=30)
        assert await cache.set_many(dict.fromkeys(KEYS, 3)) is True
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 3)


async def test_a_lost_link_between_nodes(cluster: LocalCluster, namespace: str) -> None:
    """Messages of a shard go to its own subscribers, so that a link between nodes carries none of them."""

    def cut() -> None:
        for node in cluster.primaries:
            for other in cluster.primaries:
                if other is not node:
                    node("DEBUG", "CLUSTERLINK", "KILL", "TO", other.name)
        time.sleep(0.5)
        cluster.wait(cluster.settled)

    load = await under_load(cluster, namespace, cut, elects=True)
    assert load.refused == 0
