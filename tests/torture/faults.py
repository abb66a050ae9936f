"""Faults of the network and of one server: each is begun, does something now and then, and ends.

A fault is a generator: what comes before its first ``yield`` begins it, each ``yield`` gives the seconds until it goes
on (``REST``: until its end), and its ``finally`` ends it. ``play`` runs one for a time, and heals the proxies after it.
"""

from __future__ import annotations

import math
import random
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import redis

from nearcache.protocol.names import Names
from nearcache.testing import FaultProxy, commands, everyone, subscribers
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Crew
from tests.support.sentinels import Group
from tests.torture.book import Window
from tests.torture.look import Looker
from tests.torture.worker import NAMESPACE, REDIS_TIMEOUT

REST = math.inf
FILLER = 8_000
"""Bytes of a message that nobody waits for; Valkey does not count larger ones, which it sends without a copy."""
BURST = 320
"""So many of them at once; the kernel's buffers hold some of these bursts."""
BURSTS = 30
"""At most; receivers that do not answer for long are given up by their own side."""
PUBLISH_MANY = "for _ = 1, ARGV[2] do redis.call('PUBLISH', KEYS[1], ARGV[1]) end"


class CannotRun(Exception):
    """A phase could not be set up; says why."""


@dataclass
class Stage:
    """What a fault acts on. The far writer is beyond ``far``, everybody else beyond ``near``, where most faults are."""

    kind: str
    server: EmbeddedServer
    near: FaultProxy
    far: FaultProxy
    rng: random.Random
    seconds: float
    """How long the fault lasts."""
    cleanup: ExitStack
    without: str | None = None
    """The guard that is taken away."""
    window: Window = field(default_factory=Window)
    notes: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    """What callers beside the crew saw and must not see."""
    crew: Crew = field(init=False)
    looker: Looker = field(init=False)
    # What a phase's ``prepare`` brings: another server, the link of a replica, processes beside the crew.
    spare: EmbeddedServer = field(init=False)
    link: FaultProxy = field(init=False)
    strangers: Crew = field(init=False)
    group: Group = field(init=False)
    """The server's replica and Sentinels, in a phase with these."""
    clock: Path = field(init=False)
    """What it says is added to the server's time, in a phase with a false clock."""

    @contextmanager
    def client(self, port: int | None = None, database: int = 0) -> Iterator[Any]:
        """A client of the server, or of the one on another port, past the proxies."""
        with closing(redis.Redis(port=port or self.server.port, db=database, socket_timeout=5)) as client:
            yield client


Steps: TypeAlias = "Generator[float]"
Fault: TypeAlias = "Callable[[Stage], Steps]"


def play(fault: Fault, stage: Stage) -> None:
    """Run a fault for the stage's seconds."""
    end = time.monotonic() + stage.seconds
    with _begun(fault, stage) as steps:
        for pause in steps:
            left = end - time.monotonic()
            time.sleep(max(0.0, min(left, pause)))
            if pause >= left:
                return


@contextmanager
def lasting(fault: Fault, stage: Stage) -> Iterator[None]:
    """A fault that lasts as long as the block; only its first step is taken."""
    with _begun(fault, stage) as steps:
        next(steps)
        yield


@contextmanager
def _begun(fault: Fault, stage: Stage) -> Iterator[Steps]:
    steps = fault(stage)
    try:
        yield steps
    finally:
        steps.close()
        stage.near.heal()
        stage.far.heal()


def steady(_stage: Stage) -> Steps:
    """Nothing happens."""
    yield REST


def delayed_replies(stage: Stage) -> Steps:
    """Replies to commands come late, and messages do not."""
    while True:
        stage.near.delay_replies(stage.rng.uniform(0.01, 0.15), commands)
        yield stage.rng.uniform(0.1, 0.4)


def bus_cut(stage: Stage) -> Steps:
    """The subscribed connections are closed, again and again."""
    while True:
        stage.near.cut_connections(subscribers)
        yield stage.rng.uniform(0.1, 0.6)


def kill_pubsub(stage: Stage) -> Steps:
    """The server closes them."""
    with stage.client() as client:
        while True:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            yield stage.rng.uniform(0.1, 0.6)


def bus_held(stage: Stage) -> Steps:
    """Messages and heartbeats' answers stay on the way, connections open; commands go on."""
    stage.near.hold("replies", subscribers)
    yield REST


def sockets_cut(stage: Stage) -> Steps:
    """Every connection is closed, again and again."""
    while True:
        stage.near.cut_connections(everyone)
        stage.far.cut_connections(everyone)
        yield stage.rng.uniform(0.1, 0.6)


def stopped(stage: Stage) -> Steps:
    """The server stands still (SIGSTOP), connections stay open; the far writer can replay its journal later only."""
    stage.server.pause()
    stage.far.hold("requests")
    try:
        yield REST
    finally:
        stage.server.resume()
        time.sleep(REDIS_TIMEOUT)  # the readers come back to what Redis had before


def killed(stage: Stage) -> Steps:
    """The server is killed, is away for a while, and comes back empty."""
    stage.server.kill()
    try:
        yield stage.seconds / 2
    finally:
        stage.server.start()
    yield REST


def pause_write(stage: Stage) -> Steps:
    """CLIENT PAUSE WRITE, for less and for more than a write waits."""
    with stage.client() as client:
        try:
            while True:
                length = stage.rng.choice([0.4 * REDIS_TIMEOUT, 3 * REDIS_TIMEOUT])
                client.execute_command("CLIENT", "PAUSE", int(length * 1000), "WRITE")
                yield stage.rng.uniform(0.5, 1.0)
        finally:
            client.execute_command("CLIENT", "UNPAUSE")


def flushall(stage: Stage) -> Steps:
    """Scripts and data are gone, while everything goes on."""
    with stage.client() as client:
        while True:
            client.script_flush()
            client.flushall()
            yield stage.rng.uniform(0.3, 0.8)


def partition(stage: Stage) -> Steps:
    """Nothing passes either way between the server and all but one writer; what was sent arrives afterwards."""
    stage.near.hold("requests")
    stage.near.hold("replies")
    yield REST


def evicted(stage: Stage) -> Steps:
    """Subscribers stop reading, and the server closes their connections when its buffers are full."""
    filler = b"\x01F" + struct.pack(">H", FILLER) + b"x" * FILLER
    with stage.client() as client:
        client.config_set("client-output-buffer-limit", f"pubsub {2 * BURST * FILLER} 0 0")
        with stage.near.not_reading(subscribers) as stalled:
            closed = bursts = 0
            while closed < stalled and bursts < BURSTS:
                client.eval(PUBLISH_MANY, 1, Names(NAMESPACE).channel, filler, BURST)
                bursts += 1
                yield 0.01  # who does read has read it by then
                # By the server's log: not every version counts them.
                log = stage.server._path("log").read_text(errors="replace")
                closed = log.count("output buffer limits")
            if not closed:
                raise CannotRun("the server closed no subscriber")
            stage.notes.append(f"{closed} of {stalled} subscribers closed for their output buffers")
            yield REST


def full(stage: Stage) -> Steps:
    """Every connection is closed while the server's memory is full, after it has hung for longer than a read waits."""
    with stage.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            stage.server.pause()
            yield 1.5 * REDIS_TIMEOUT
            stage.server.resume()
            stage.near.cut_connections(everyone)
            stage.far.cut_connections(everyone)
            yield REST
        finally:
            stage.server.resume()
            client.config_set("maxmemory", 0)


FAR_WRITER = "far writer"


def writer_killed(stage: Stage) -> Steps:
    """A writer loses its way to the server, goes on writing, and is killed with what it could not tell."""
    stage.far.cut()
    yield stage.seconds / 2
    stage.crew.kill(FAR_WRITER)
    yield REST


def clients_stopped(stage: Stage) -> Steps:
    """A reader's and a writer's process stand still (SIGSTOP), and go on as if no time had passed."""
    names = ("threads", FAR_WRITER)
    for name in names:
        stage.crew.pause(name)
    try:
        yield REST
    finally:
        for name in names:
            stage.crew.resume(name)
