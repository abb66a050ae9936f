"""What invalidations cost: the CPU of taking them in; by the number of instances, their delay and the server's CPU.

Intake is processor time of the way from the socket's bytes to L1: decoder, bus protocol, subscriber, invalidation and
tier, in pieces as the bus reads them. Two controls run in the same rounds: a bare hiredis.Reader over the same bytes,
which is the floor, and redis-py's PubSub, which gets the same messages from a server and does nothing with them. The
garbage collector is off.

One by one, each message is alone in the socket when it is read, so that the system calls count; redis-py's PubSub takes
the same messages, and is the control.

Growth uses the processes of the section fleet: first with a raw subscriber in each and an increasing number of
processes; then without raw subscribers and a decreasing number, while the server's CPU per write is measured.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import redis

from benchmarks.rivals import near, redis_py
from benchmarks.sections.fleet import PERCENTILES, Delays, Fleet, costs
from nearcache import NearCache
from nearcache.engine.bus_state import BusSignal, Phase
from nearcache.engine.ports import Bus
from nearcache.engine.subscriber import Subscriber
from nearcache.engine.subscription import Subscription
from nearcache.local.invalidation import Invalidation
from nearcache.local.store import Entry
from nearcache.protocol import messages
from nearcache.protocol.answers import Greeting
from nearcache.protocol.names import Names
from nearcache.protocol.records import pack_names
from nearcache.protocol.versions import version_of
from nearcache.runtime.run_sync import run_sync
from nearcache.transport import resp
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.handshake import BusProtocol
from tests.support.report import Report
from tests.support.tables import Spread, Table, percentile

NAMES = Names("bus")
KEYS = tuple(f"user:{number}:profile" for number in range(20_000))
SEVERAL = 10
"""Keys of a message that has several."""
WRITES = 1000
"""Messages of a round of those that come one by one."""
LIMITS_US = {"not held, one key": 1.2, "held, one key": 1.5}
"""Of CPU per key."""
FIRST = 5
"""The number that the counter stands at before the first message."""
INSTANCES, FEWER = (1, 5, 10, 20, 24), (1, 5)
KINDS = ("SET", "NearCache.set")
"""Kinds of write that the table shows."""
NEVER = float("inf")

ALONE = "taking in invalidations one by one, the socket included"
READER, PUBSUB = "hiredis.Reader alone, one key", "redis-py PubSub, one key"


def packed(keys_each: int) -> list[bytes]:
    """The messages of writes of all keys, as the scripts send them."""
    return [
        messages.NUMBERED.pack(messages.VERSION, messages.CHANGED, FIRST + 1 + at)
        + pack_names(KEYS[at * keys_each : (at + 1) * keys_each])
        for at in range(len(KEYS) // keys_each)
    ]


def pieces(data: Sequence[bytes]) -> list[bytes]:
    """The server's bytes, cut as the bus reads them."""
    channel = NAMES.channel
    pushes = (
        b">3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(one), one) for one in data
    )
    stream = b"".join(pushes)
    return [stream[start : start + resp.BUS_CHUNK] for start in range(0, len(stream), resp.BUS_CHUNK)]


def clocked(work: Callable[[], object]) -> float:
    """Nanoseconds of this thread's processor time per key."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time_ns()
        work()
        return (time.thread_time_ns() - began) / len(KEYS)
    finally:
        gc.enable()


@dataclass(frozen=True)
class Ours:
    """Our intake, of one kind."""

    held: bool
    keys_each: int

    def __str__(self) -> str:
        keys = "one key" if self.keys_each == 1 else f"{self.keys_each} keys"
        return f"{'held' if self.held else 'not held'}, {keys}"

    def __call__(self, cut: dict[int, list[bytes]]) -> float:
        """One round."""
        with NearCache.from_url("memory://", l1_max_entries=2 * len(KEYS)) as cache:
            core = cache._core
            feed = core.invalidation = Invalidation(core.tier, NEVER)
            feed.back(Greeting("server", FIRST, 0, 0), 0.0, prove=True)
            if self.held:
                near.put_all(cache, lambda _: Entry("value", NEVER, version_of(FIRST, 1), (), 20, NEVER), KEYS)
            before = len(core.tier.entries)
            decoder, protocol = resp.Decoder(), BusProtocol(NAMES)
            connection = Subscription(Subscriber(core, core.runtime.latch(), core.runtime.latch()), cast("Bus", None))

            def take_in() -> None:
                for piece in cut[self.keys_each]:
                    run_sync(connection._take(protocol.parse(decoder.feed(piece))))

            took = clocked(take_in)
            last = FIRST + len(KEYS) // self.keys_each
            if (before, len(core.tier.entries), feed.last) != (self.held * len(KEYS), 0, last) or core.counters.flushes:
                raise RuntimeError(f"{self}: the messages did not do what they are for")
            return took


def subscribed(client: Any, data: Sequence[bytes]) -> float:
    """One round of redis-py's PubSub, with the reading of its socket, which takes 64 KiB at a time."""
    with client.pubsub() as pubsub:
        pubsub.subscribe(NAMES.channel)
        pubsub.get_message(timeout=5.0)
        pipe = client.pipeline(transaction=False)
        for one in data:
            pipe.publish(NAMES.channel, one)
        pipe.execute()

        return clocked(redis_py.receiving(pubsub, len(data)))


def intake(server: EmbeddedServer, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of CPU per key, per case and round; all cases of a round side by side."""
    data = {keys_each: packed(keys_each) for keys_each in (1, SEVERAL)}
    cut = {keys_each: pieces(one) for keys_each, one in data.items()}
    with redis.Redis(port=server.port, socket_read_size=64 * 1024) as client:
        cases: dict[str, Callable[[], float]] = {
            str(case): lambda case=case: case(cut)  # type: ignore[misc]
            for case in (Ours(held, keys_each) for keys_each in (1, SEVERAL) for held in (False, True))
        }
        cases[READER] = lambda: clocked(lambda: redis_py.parse(cut[1]))
        cases[PUBSUB] = lambda: subscribed(client, data[1])
        found: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            for name in random.sample(list(cases), len(cases)):
                took = cases[name]()
                if number:  # the first is for the interpreter to specialise the code
                    found[name].append(took)
    return found


def one_by_one(server: EmbeddedServer, rounds: int) -> list[tuple[float, float]]:
    """Nanoseconds of CPU per message that is alone in the socket, by round: of our bus, and of redis-py's PubSub."""
    cache = NearCache.from_url(server.url, namespace="bus")
    core = cache._core
    assert core.new_bus is not None
    bus = core.new_bus()
    subscriber = Subscriber(core, core.runtime.latch(), core.runtime.latch())
    subscriber._advance(BusSignal.START)
    connection = Subscription(subscriber, bus)

    async def ours() -> None:
        await connection.take(await bus.receive(await connection.until_next()))

    async def prove() -> None:
        await bus.open()
        await connection.begin()
        while connection.phase is not Phase.PROVEN:
            await ours()

    run_sync(prove())
    found = []
    with cache, redis.Redis(port=server.port) as client, client.pubsub() as pubsub:
        pubsub.subscribe(NAMES.channel)
        takers: list[Callable[[], object]] = [
            lambda: run_sync(ours()),
            lambda: pubsub.get_message(timeout=5.0),
        ]
        takers[1]()
        for number in range(rounds + 1):
            spent = [0, 0]
            for key in KEYS[:WRITES]:
                last = cast("int", client.hincrby(cast("str", NAMES.counters), "s", 1))
                message = messages.NUMBERED.pack(messages.VERSION, messages.CHANGED, last) + pack_names([key])
                client.publish(NAMES.channel, message)
                client.ping()  # behind it, the message is in the sockets of the subscribers
                for which in random.sample((0, 1), 2):
                    began = time.thread_time_ns()
                    takers[which]()
                    spent[which] += time.thread_time_ns() - began
            if core.invalidation.last != last or core.counters.flushes:
                raise RuntimeError("the bus did not take each message")
            if number:  # the first is for the interpreter to specialise the code
                found.append((spent[0] / WRITES, spent[1] / WRITES))
        run_sync(bus.close())
    return found


def show(report: Report) -> bool:
    """Run, print and keep; whether no instance missed a message."""
    with EmbeddedServer() as server:
        taken = intake(server, 5 if report.quick else 11)
        _intake(report, taken)
        singly = one_by_one(server, 5 if report.quick else 11)
        report.budget(ALONE, Spread.of([ours / theirs for ours, theirs in singly]), 1.0, "×", "redis-py's PubSub")
        delays, alone, spent, whole = growth(report, server)
    report.keep(
        "bus",
        {
            "intake, ns per key": taken,
            "one by one, ns per message, ours and redis-py's": singly,
            "delays, ms": {
                name: {
                    str(count): {what: percentile(getattr(one, kind), part) for what, part in PERCENTILES.items()}
                    for count, one in found.items()
                }
                for name, found, kind in (
                    ("dropped", delays, "dropped"),
                    ("raw", delays, "raw"),
                    ("dropped, no raw subscribers", alone, "dropped"),
                )
            },
            "server µs per write": {str(count): one for count, one in spent.items()},
        },
    )
    return whole


def _intake(report: Report, taken: dict[str, list[float]]) -> None:
    rows = []
    for name, line in taken.items():
        us = Spread.of([ns / 1000 for ns in line])
        to = {
            other: statistics.median(a / b for a, b in zip(line, taken[other], strict=True))
            for other in (READER, PUBSUB)
        }
        rows.append([name, f"{us.median:.2f}", us.range(), f"{to[READER]:.2f}", f"{to[PUBSUB]:.2f}"])
    for name, limit in LIMITS_US.items():
        microseconds = Spread.of([ns / 1000 for ns in taken[name]])
        report.budget(f"taking in invalidations, {name}", microseconds, limit, "µs", note="of CPU per key")
    notes = [
        f"µs of CPU; {len(taken[READER])} rounds of {len(KEYS):,} keys, interleaved; ratios are medians of the rounds'"
    ]
    head = ["taking in invalidations", "µs per key", "least–greatest", "× hiredis", "× PubSub"]
    report.show(Table("Intake, without the socket", head, rows, notes))


def growth(
    report: Report, server: EmbeddedServer
) -> tuple[dict[int, Delays], dict[int, Delays], dict[int, dict[str, list[float]]], bool]:
    """Delays with raw subscribers and without, and the server's work, by the number of instances; whether all came."""
    counts = FEWER if report.quick else INSTANCES
    rounds, writes, spending = (1, 50, 100) if report.quick else (3, 200, 1000)
    delays: dict[int, Delays] = {}
    alone: dict[int, Delays] = {}
    spent: dict[int, dict[str, list[float]]] = {}
    with redis.Redis(port=server.port) as client:
        fleet = Fleet(server, writes)
        with fleet.writer, ExitStack() as crews:
            leave = []
            for before, count in zip((0, *counts), counts, strict=False):
                crew = fleet.crew(before, count)
                fleet.crews.append(crews.enter_context(crew))
                leave.append(crew)
                delays[count] = fleet.measure(rounds)[False]
            fleet.ask("silence")
            for count in reversed(counts):
                alone[count] = fleet.measure(rounds)[False]
                spent[count] = costs(fleet, client, rounds=1 if report.quick else 5, writes=spending)
                fleet.crews.pop()
                leave.pop().__exit__(None, None, None)
    rows = []
    for count in counts:
        row = [str(count)]
        for line in (delays[count].dropped, delays[count].raw, alone[count].dropped):
            row += [f"{percentile(line, part):.2f}" for part in PERCENTILES.values()]
        medians = {name: statistics.median(line) for name, line in spent[count].items()}
        rows.append([*row, *(f"{medians[name]:.1f}" for name in KINDS)])
    missed = sum(one.missed + one.stale for found in (delays, alone) for one in found.values())
    few, many = (statistics.median(spent[count]["NearCache.set"]) for count in (counts[0], counts[-1]))
    notes = [
        f"ms from the call of set, {rounds * writes} writes; beside raw subscribers in the same processes, and alone",
        "server µs: CPU per write of 200 bytes, heartbeats taken off; the instances and the writer's own subscribe",
        f"each further instance costs the server {(many - few) / (counts[-1] - counts[0]):.1f} µs per set",
        f"missed or stale: {missed}, must be 0",
    ]
    head = ["instances", *(f"{what} {name}" for what in ("dropped", "raw", "alone") for name in PERCENTILES)]
    report.show(Table("Propagation and the server's work", [*head, *(f"{name}, µs" for name in KINDS)], rows, notes))
    return delays, alone, spent, not missed
