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
import random
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
from benchmarks.sections.l2 import Case, Rounds, emptied, turns
from nearcache import NearCache
from nearcache.transport.cluster import BUCKETS
from nearcache.transport.embedded import EmbeddedServer
from tests.support.clusters import LocalCluster
from tests.support.report import Report
from tests.support.tables import Spread, Table

KEYS = 400
"""Read or set in each loop, each once."""
MANY = 100
"""Keys that one call reads."""
THREADS = 4
"""That read or set at once, for the throughput."""
LOOPS = 5
"""Of each kind, for the throughput."""
OPTIONS: Any = {"namespace": "c", "ttl": 3600, "l1_max_entries": 10 * KEYS, "redis_timeout": 5, "max_staleness": 20}
VALUE = {"id": 7, "name": "Ada"}
BUDGET = 1.1
CHANNEL = "floor"
SCRIPT = f"redis.call('SET', KEYS[1], ARGV[1]) redis.call('PUBLISH', '{CHANNEL}', KEYS[1])"
"""What a set can't be less than: it writes, and tells those that listen."""


@dataclass(frozen=True)
class Row:
    """Two loops whose times are compared."""

    label: str
    ours: str
    peer: str
    budget: bool = False

    def ratio(self, rounds: Rounds, at: int) -> Spread:
        """Per round; ``at``: 0 for the clock, 1 for this process's processor time."""
        return Spread.of([ours[at] / peer[at] for ours, peer in rounds[self.label]])


ROWS = (
    Row("L2 hit, beside one server", "cluster get", "server get", budget=True),
    Row("L2 hit, beside RedisCluster", "cluster get", "RedisCluster GET"),
    Row("control: GET, RedisCluster beside Redis", "RedisCluster GET", "Redis GET"),
    Row("floor: GET, three servers by turns beside one", "three GET", "Redis GET"),
    Row("set, beside one server", "cluster set", "server set", budget=True),
    Row("set, beside RedisCluster", "cluster set", "RedisCluster SET"),
    Row("control: SET, RedisCluster beside Redis", "RedisCluster SET", "Redis SET"),
    Row("floor: script, three servers by turns beside one", "three script", "Redis script"),
    Row(f"get_many of {MANY}, beside one server", "cluster get_many", "server get_many", budget=True),
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
        report.show(_ratios(measured, problems))
        one = _throughput(_url(server), [server.port], problems)
        three = _throughput(cluster.url, [node.server.port for node in cluster.nodes], problems)
        report.show(_throughputs(one, three, problems))
    for row in ROWS:
        if row.budget:
            report.budget(f"cluster: {row.label}", row.ratio(measured, 0), BUDGET, "× time", row.peer)
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
    measured: Rounds = {row.label: [] for row in ROWS}
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
            cases |= {f"{name} {word}": (loop, KEYS) for word, loop in _loops(cache, keys).items()}
        for name, peer in (("Redis", client), ("RedisCluster", clients)):
            for key in keys:
                peer.set(key, _packed())
            cases |= {f"{name} {word}": (loop, KEYS) for word, loop in _peers_loops(peer, keys).items()}
        cases |= _floors(others, keys)
        for number in range(rounds + 1):
            for row in random.sample(ROWS, len(ROWS)):
                took = await turns(cases[row.ours], cases[row.peer])
                if number:  # the first one fills caches and pools
                    measured[row.label].append(took)
        for cache in (alone, many):
            stats = cache.stats()
            if stats.misses or stats.l2_errors or stats.journalled or stats.l1_hits:
                problems.append(f"{cache.url}: {stats}")
    return measured, problems


def _loops(cache: NearCache, keys: list[str]) -> dict[str, Callable[[], object]]:
    def get() -> None:
        emptied(cache)
        for key in keys:
            cache.get(key)

    def get_many() -> None:
        emptied(cache)
        for at in range(0, len(keys), MANY):
            cache.get_many(keys[at : at + MANY])

    def put() -> None:
        for key in keys:
            cache.set(key, VALUE)

    return {"get": get, "get_many": get_many, "set": put}


def _peers_loops(client: Any, keys: list[str]) -> dict[str, Callable[[], object]]:
    get, put = redis_py.getting(client), redis_py.setting(client)
    read_many = client.mget_nonatomic if isinstance(client, RedisCluster) else client.mget

    def gets() -> None:
        for key in keys:
            get(key)

    def get_many() -> None:
        for at in range(0, len(keys), MANY):
            for packed in read_many(keys[at : at + MANY]):
                msgpack.unpackb(packed)

    def puts() -> None:
        for key in keys:
            put(key, VALUE)

    return {"GET": gets, "MGET": get_many, "SET": puts}


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
        for at in range(0, len(keys), MANY):
            _read_by_buckets(clients, [f"all:{key}" for key in keys[at : at + MANY]])

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
                parts = [keys[at::THREADS] for at in range(THREADS)]
                threads = [threading.Thread(target=work, args=(part,)) for part in parts]
                began = time.perf_counter()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
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
            cpu: Any = client.info("cpu")
        taken.append(cpu["used_cpu_sys"] + cpu["used_cpu_user"])
    return taken


def _ratios(rounds: Rounds, problems: list[str]) -> Table:
    rows = []
    for row in ROWS:
        clock, processor = row.ratio(rounds, 0), row.ratio(rounds, 1)
        ours, peer = (Spread.of([one[at][0] for one in rounds[row.label]]).median for at in (0, 1))
        figures = [f"{one.median:.2f} ({one.range()})" for one in (clock, processor)]
        rows.append([row.label, f"{ours:.1f}", f"{peer:.1f}", *figures])
    notes = [
        "µs per operation by the clock; ratios of the median round (least–greatest)",
        "processor's: of this process alone, its bus included; redis-py's clients unpack and pack by msgpack, too",
        *(f"WORTHLESS: {one}" for one in problems),
    ]
    head = ["", "µs", "beside µs", "by the clock", "processor's"]
    return Table(f"Three primaries beside one server, {len(rounds[ROWS[0].label])} rounds", head, rows, notes)


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
