"""The fourteen phases: each a fault that lasts for a while, on a stage of a server, two proxies and a crew."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from nearcache.protocol.names import Names
from nearcache.testing import FaultProxy, commands, everyone, subscribers
from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support import servers
from tests.support.processes import Crew
from tests.torture.book import Window, now
from tests.torture.look import Looker
from tests.torture.worker import NAMESPACE, REDIS_TIMEOUT

PATIENCE = 10.0
"""Seconds that a phase waits for what it needs."""
LAG = int(0.1e9)
"""ns that a replica may be behind while its link is whole."""
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
    """What a phase acts on. The far writer is beyond ``far``, everybody else beyond ``near``, where most faults are."""

    kind: str
    server: EmbeddedServer
    near: FaultProxy
    far: FaultProxy
    crew: Crew
    looker: Looker
    rng: random.Random
    seconds: float
    """How long the fault shall last."""
    cleanup: ExitStack
    window: Window = field(default_factory=Window)
    notes: list[str] = field(default_factory=list)
    replica: EmbeddedServer | None = None
    link: FaultProxy | None = None
    """Between server and replica."""

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client of the server, past the proxies."""
        with closing(redis.Redis(port=self.server.port, socket_timeout=5)) as client:
            yield client

    def again(self, act: Callable[[], object], least: float, most: float) -> None:
        """Do something again and again until the fault's time is over, with pauses."""
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0:
            act()
            time.sleep(min(left, self.rng.uniform(least, most)))


@dataclass(frozen=True)
class Phase:
    """A fault by name."""

    name: str
    fault: Callable[[Stage], None]
    """Returns when the fault is over; what it does to the proxies is healed then."""
    whole: bool = False
    """Whether the bus stays whole, so that a raw subscriber may be compared."""
    config: Mapping[str, str] = field(default_factory=dict)
    agreement: float | None = None
    """The L2 ttl in seconds, if only that makes all agree in the end."""
    prepare: Callable[[Stage], None] = lambda _: None


def steady(stage: Stage) -> None:
    """Nothing happens."""
    time.sleep(stage.seconds)


def delayed_replies(stage: Stage) -> None:
    """Replies to commands come late, and messages do not."""
    stage.again(lambda: stage.near.delay_replies(stage.rng.uniform(0.01, 0.15), commands), 0.1, 0.4)


def bus_cut(stage: Stage) -> None:
    """The subscribed connections are closed, again and again."""
    stage.again(lambda: stage.near.cut_connections(subscribers), 0.1, 0.6)


def kill_pubsub(stage: Stage) -> None:
    """The server closes them."""
    with stage.client() as client:
        stage.again(lambda: client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"), 0.1, 0.6)


def bus_held(stage: Stage) -> None:
    """Messages and heartbeats' answers stay on the way, connections open; commands go on."""
    stage.near.hold("replies", subscribers)
    time.sleep(stage.seconds)


def sockets_cut(stage: Stage) -> None:
    """Every connection is closed, again and again."""

    def cut() -> None:
        stage.near.cut_connections(everyone)
        stage.far.cut_connections(everyone)

    stage.again(cut, 0.1, 0.6)


def stopped(stage: Stage) -> None:
    """The server stands still (SIGSTOP); connections stay open."""
    stage.server.pause()
    try:
        time.sleep(stage.seconds)
    finally:
        stage.server.resume()


def killed(stage: Stage) -> None:
    """The server is killed, is away for a while, and comes back empty."""
    stage.server.kill()
    time.sleep(stage.seconds / 2)
    stage.server.start()
    time.sleep(stage.seconds / 2)


def pause_write(stage: Stage) -> None:
    """CLIENT PAUSE WRITE, for less and for more than a write waits."""

    def pause() -> None:
        length = stage.rng.choice([0.4 * REDIS_TIMEOUT, 3 * REDIS_TIMEOUT])
        client.execute_command("CLIENT", "PAUSE", int(length * 1000), "WRITE")

    with stage.client() as client:
        stage.again(pause, 0.5, 1.0)
        client.execute_command("CLIENT", "UNPAUSE")


def flushall(stage: Stage) -> None:
    """Scripts and data are gone, while everything goes on."""

    def flush() -> None:
        client.script_flush()
        client.flushall()

    with stage.client() as client:
        stage.again(flush, 0.3, 0.8)


def partition(stage: Stage) -> None:
    """Nothing passes either way between the server and all but one writer; what was sent arrives afterwards."""
    stage.near.hold("requests")
    stage.near.hold("replies")
    time.sleep(stage.seconds)


def evicted(stage: Stage) -> None:
    """Subscribers stop reading, and the server closes their connections when its buffers are full."""
    filler = b"\x01F" + struct.pack(">H", FILLER) + b"x" * FILLER
    end = time.monotonic() + stage.seconds
    with stage.client() as client:
        client.config_set("client-output-buffer-limit", f"pubsub {2 * BURST * FILLER} 0 0")
        with stage.near.not_reading(subscribers) as stalled:
            closed = bursts = 0
            while closed < stalled and bursts < BURSTS:
                client.eval(PUBLISH_MANY, 1, Names(NAMESPACE).channel, filler, BURST)
                bursts += 1
                time.sleep(0.01)  # who does read has read it by then
                closed = _closed_for_their_buffers(stage.server)
            if not closed:
                raise CannotRun("the server closed no subscriber")
            stage.notes.append(f"{closed} of {stalled} subscribers closed for their output buffers")
            time.sleep(max(0.0, end - time.monotonic()))


def _closed_for_their_buffers(server: EmbeddedServer) -> int:
    """By the server's log: not every version counts them."""
    return server._path("log").read_text(errors="replace").count("output buffer limits")


def replicate(stage: Stage) -> None:
    """Give the server a replica behind a link that can be cut."""
    link = stage.cleanup.enter_context(FaultProxy(stage.server.port))
    replica = servers.make(stage.kind, {"replicaof": f"{HOST} {link.port}", "repl-diskless-sync-delay": "0"})
    stage.cleanup.enter_context(replica)
    stage.replica = replica
    stage.link = link
    end = time.monotonic() + PATIENCE
    with closing(redis.Redis(port=replica.port, socket_timeout=5)) as client:
        while client.info("replication")["master_link_status"] != "up":
            if time.monotonic() > end:
                raise CannotRun("the replica did not get in step with its primary")
            time.sleep(0.01)


def failover(stage: Stage) -> None:
    """The replica's link is cut, writes go on; then the primary dies, and the replica takes its place."""
    replica, link = stage.replica, stage.link
    assert replica is not None and link is not None
    begin = now() - LAG
    link.cut()
    time.sleep(stage.seconds / 2)
    stage.server.kill()
    with closing(redis.Redis(port=replica.port, socket_timeout=5)) as client:
        client.replicaof("NO", "ONE")
    stage.looker.port = replica.port
    for proxy in (stage.near, stage.far):
        proxy.target_port = replica.port
        proxy.cut_connections(everyone)
    stage.window = Window(begin, now())
    time.sleep(stage.seconds / 2)


def writer_killed(stage: Stage) -> None:
    """A writer loses its way to the server, goes on writing, and is killed with what it could not tell."""
    stage.far.cut()
    time.sleep(stage.seconds / 2)
    stage.crew.kill(FAR_WRITER)
    time.sleep(stage.seconds / 2)


FAR_WRITER = "far writer"
SHORT_TTL = 3.0

PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("steady", steady, whole=True),
        Phase("delayed replies", delayed_replies, whole=True),
        Phase("bus cut", bus_cut),
        Phase("kill pubsub", kill_pubsub),
        Phase("bus held back", bus_held),
        Phase("sockets cut", sockets_cut),
        Phase("server stopped", stopped),
        Phase("killed, back empty", killed),
        Phase("pause write", pause_write, whole=True),
        Phase("flushall", flushall, whole=True),
        Phase("full partition", partition),
        Phase("buffer eviction", evicted),
        Phase("failover", failover, prepare=replicate),
        Phase("writer killed", writer_killed, agreement=SHORT_TTL),
    )
}
