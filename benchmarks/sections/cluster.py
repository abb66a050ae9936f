"""What a cluster of three primaries costs: each operation beside one server, and beside redis-py's client of a cluster.

Each row is a ratio of two loops that take turns within a round, as in ``l2``. Three servers need more of the machine
than one, whoever asks them: the same ratio for redis-py's two clients is the control, and the floor is redis-py's plain
clients of three servers without a cluster, which take turns; nothing that has to ask three servers costs less. A set
has to publish, too: its floor is a script that writes and publishes, with one subscriber in this process.

Then the throughput on one primary and on three. Here the servers and the client share the cores of one machine, so that
the clock says little; the time that the busiest primary takes for an operation says what a primary carries when it has
a core of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis
from redis.cluster import ClusterNode, RedisCluster

from benchmarks.rivals import redis_py
from benchmarks.sections import l2
from benchmarks.sections.fleet import cpu
from benchmarks.sections.l2 import (
    KEYS,
    MANY,
    VALUE,
    Case,
    Rounds,
    Row,
    by_hundreds,
    compare,
    emptied,
    ours_one_by_one,
    peers_one_by_one,
    ratios,
    spread,
)
from nearcache import NearCache
from nearcache.transport.cluster import BUCKETS
from nearcache.transport.embedded import EmbeddedServer
from tests.support.clusters import LocalCluster
from tests.support.report import Report
from tests.support.tables import Table

THREADS = 4
"""That read or set at once, for the throughput."""
LOOPS = 5
"""Of each kind, for the throughput."""
OPTIONS: Any = {**l2.OPTIONS, "namespace": "c"}
BUDGET = 1.1
CHANNEL = "floor"
SCRIPT = f"redis.call('SET', KEYS[1], ARGV[1]) redis.call('PUBLISH', '{CHANNEL}', KEYS[1])"
"""What a set can't be less than: it writes, and tells those that listen."""


ROWS = (
    Row("L2 hit, beside one server", "cluster get", "server get", most=BUDGET),
    Row("L2 hit, beside RedisCluster", "cluster get", "RedisCluster GET"),
    Row("control: GET, RedisCluster beside Redis", "RedisCluster GET", "Redis GET"),
    Row("floor: GET, three servers by turns beside one", "three GET", "Redis GET"),
    Row("set, beside one server", "cluster set", "server set", most=BUDGET),
    Row("set, beside RedisCluster", "cluster set", "RedisCluster SET"),
    Row("control: SET, RedisCluster beside Redis", "RedisCluster SET", "Redis SET"),
    Row("floor: script, three servers by turns beside one", "three script", "Redis script"),
    Row(f"get_many of {MANY}, beside one server", "cluster get_many", "server get_many", most=BUDGET),
    Row(f"get_many of {MANY}, beside RedisCluster", "cluster get_many", "RedisCluster MGET"),
    Row(f"control: {MANY} keys, RedisCluster beside Redis", "RedisCluster MGET", "Redis MGET"),
    Row(f"floor: {MANY} keys, 16 MGET on three beside one", "three MGET", "Redis MGET"),
)


def show(report: Report) -> bool:
    """Measure, print and keep; whether every read was an L2 hit."""
    rounds = 5 if report.quick else 15
    with EmbeddedServer() as server, LocalCluster("valkey") as cluster:
        with EmbeddedServer() as second, EmbeddedServer() as third:
            measured, problems = asyncio.run(_measure(_url(server), cluster, (server, second, third), rounds))
        report.show(ratios("Three primaries beside one server", ROWS, measured, problems))
        one = _throughput(_url(server), [server.port], problems)
        three = _throughput(cluster.url, [node.server.port for node in cluster.nodes], problems)
        report.show(_throughputs(one, three, problems))
    for row in ROWS:
        if row.most:
            report.budget(f"cluster: {row.label}", row.ratio(measured), BUDGET, "× time", row.peer)
    figures = {count: {name: asdict(kind) for name, kind in kinds.items()} for count, kinds in ((1, one), (3, three))}
    report.keep("cluster", {"rounds": measured, "throughput": figures, "problems": problems})
    return not problems


def _url(server: EmbeddedServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


async def _measure(
    url: str, cluster: LocalCluster, others: Sequence[EmbeddedServer], rounds: int
) -> tuple[Rounds, list[str]]:
    """Per row and round, µs per operation of both; and what makes them worthless."""
    keys = [f"user:{number}" for number in range(KEYS)]
    node_of: Any = ClusterNode  # redis-py has no types here
    nodes = [node_of("127.0.0.1", node.server.port) for node in cluster.nodes]
    problems: list[str] = []
    with (
        NearCache.from_url(url, **OPTIONS) as alone,
        NearCache.from_url(cluster.url, **OPTIONS) as many,
        redis.Redis.from_url(url) as client,
        RedisCluster(startup_nodes=nodes) as clients,
    ):
        cases: dict[str, Case] = {}
        for name, cache in (("server", alone), ("cluster", many)):
            if not cache.set_many(dict.fromkeys(keys, VALUE)):
                raise RuntimeError(f"{cache.url} did not store the values")
            cases |= {f"{name} {word}": loop for word, loop in ours_one_by_one(cache, cache, keys).items()}
        for name, peer in (("Redis", client), ("RedisCluster", clients)):
            for key in keys:
                peer.set(key, _packed())
            cases |= {f"{name} {word}": loop for word, loop in peers_one_by_one(peer, keys).items()}
        cases |= _floors(others, keys)
        measured = await compare(ROWS, cases, rounds)
        for cache in (alone, many):
            stats = cache.stats()
            if stats.misses or stats.l2_errors or stats.journalled or stats.l1_hits:
                problems.append(f"{cache.url}: {stats}")
    return measured, problems


def _packed() -> Any:
    return msgpack.packb(VALUE)


def _floors(servers: Sequence[EmbeddedServer], keys: list[str]) -> dict[str, Case]:
    """Loops of clients that have nothing to look up: on all of these servers by turns, and a script on the first."""
    clients = [redis.Redis(port=server.port) for server in servers]
    for client in clients:
        _subscribe(client)
    cases = {f"three {word}": (loop, KEYS) for word, loop in _floors_loops(clients, keys).items()}
    return cases | {"Redis script": (_floors_loops(clients[:1], keys)["script"], KEYS)}


def _floors_loops(clients: Sequence[redis.Redis], keys: list[str]) -> dict[str, Callable[[], object]]:
    """The same on three servers, by clients that have nothing to look up."""
    calls = [(redis_py.getting(client), redis_py.setting(client), client.register_script(SCRIPT)) for client in clients]
    placed = [(key, *calls[at % len(calls)]) for at, key in enumerate(keys)]
    for key, _, put, _ in placed:
        put(key, VALUE)
    for key in keys:
        for client in clients:
            client.set(f"all:{key}", _packed())

    def gets() -> None:
        for key, get, _, _ in placed:
            get(key)

    def get_many() -> None:
        by_hundreds(lambda part: _read_by_buckets(clients, [f"all:{key}" for key in part]), keys)

    def scripts() -> None:
        for key, _, _, script in placed:
            script(keys=[key], args=[_packed()])

    return {"GET": gets, "MGET": get_many, "script": scripts}


def _subscribe(client: redis.Redis) -> None:
    """Let a thread take in what is published on a server until that ends, and do nothing with it."""
    connection: Any = client.connection_pool.make_connection()
    connection.send_command("SUBSCRIBE", CHANNEL)

    connection._sock.settimeout(None)  # its own layers would cost more than the message

    def take_in() -> None:
        with suppress(OSError):
            while connection._sock.recv(4096):
                pass

    threading.Thread(target=take_in, daemon=True).start()


def _read_by_buckets(clients: Sequence[redis.Redis], keys: list[str]) -> None:
    """One request for each server, with a command for each bucket, as nobody can read a cluster with fewer."""
    for number, client in enumerate(clients):
        pipeline = client.pipeline(transaction=False)
        for bucket in range(number, BUCKETS, len(clients)):
            pipeline.mget(keys[bucket::BUCKETS])
        for found in pipeline.execute():
            for packed in found:
                msgpack.unpackb(packed)


@dataclass
class Throughput:
    """Of one kind of operation: by the clock, and what the busiest server takes for each."""

    each_second: float
    busiest_us: float
    """µs of the busiest server's processor time per operation."""
    all_us: float
    """The same of all servers together."""


def _throughput(url: str, ports: Sequence[int], problems: list[str]) -> dict[str, Throughput]:
    """Of sets and of L2 reads, by some threads."""
    keys = [f"user:{number}" for number in range(KEYS)]
    measured: dict[str, Throughput] = {}
    with NearCache.from_url(url, **OPTIONS) as cache:
        cache.set_many(dict.fromkeys(keys, VALUE))
        kinds: dict[str, Callable[[list[str]], object]] = {
            "L2 reads": lambda part: [cache.get(key) for key in part],
            "L2 reads, 100 by get_many": cache.get_many,
            "sets": lambda part: [cache.set(key, VALUE) for key in part],
            "sets, 100 by set_many": lambda part: cache.set_many(dict.fromkeys(part, VALUE)),
        }
        for name, work in kinds.items():
            took, before = 0.0, _busy(ports)
            for _ in range(LOOPS):
                emptied(cache)
                began = time.perf_counter()
                spread(work, keys, THREADS)
                took += time.perf_counter() - began
            busy = [(after - was) / (LOOPS * KEYS) * 1e6 for was, after in zip(before, _busy(ports), strict=True)]
            measured[name] = Throughput(LOOPS * KEYS / took, max(busy), sum(busy))
        if cache.stats().journalled or cache.stats().l2_errors:
            problems.append(f"{cache.url}: {cache.stats()}")
    return measured


def _busy(ports: Sequence[int]) -> list[float]:
    """Seconds of each server's processor time until now."""
    taken = []
    for port in ports:
        with redis.Redis(port=port) as client:
            taken.append(cpu(client))
    return taken


def _throughputs(one: dict[str, Throughput], three: dict[str, Throughput], problems: list[str]) -> Table:
    rows = []
    for name, single in one.items():
        spread = three[name]
        figures = [single.each_second, spread.each_second, single.busiest_us, spread.busiest_us, spread.all_us]
        rows.append([name, *(f"{figure:,.0f}" for figure in figures[:2]), *(f"{figure:.2f}" for figure in figures[2:])])
    notes = [
        f"{THREADS} threads of one process; servers and client share this machine's cores, so that three primaries",
        "can't be faster here: what a primary carries on a core of its own is 1 s by the µs of the busiest",
        *(f"WORTHLESS: {one}" for one in problems),
    ]
    head = ["", "1: a second", "3: a second", "1: server µs", "3: busiest µs", "3: all µs"]
    return Table("Throughput on one primary and on three", head, rows, notes)
