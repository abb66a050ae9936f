"""A primary, its replica, and Sentinels that watch them, as processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nearcache.transport.embedded import HOST, EmbeddedServer, find_binary
from tests.support.servers import REDIS, make
from tests.support.waiting import redis_of, wait_until

SERVICE = "main"
DOWN_AFTER = 0.4
"""Seconds of silence after which a Sentinel holds a server to be down."""


@dataclass
class Group:
    """A primary, its replicas and the Sentinels."""

    servers: Sequence[EmbeddedServer]
    """The first was the primary when it was started."""
    sentinels: Sequence[EmbeddedServer]

    @property
    def url(self) -> str:
        """The URL of a cache."""
        return url_of(self.sentinels)

    @property
    def primary(self) -> EmbeddedServer:
        """The server that the first Sentinel names."""
        port = self.named(self.sentinels[0])
        return next(one for one in self.servers if one.port == port)

    def named(self, sentinel: EmbeddedServer) -> int:
        """The port that a Sentinel names."""
        return int(self.ask(sentinel, "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def ask(self, sentinel: EmbeddedServer, *words: str) -> Any:
        """What a Sentinel answers."""
        with redis_of(sentinel.url) as client:
            # Without redis-py's reading of the answer.
            return client.execute_command("SENTINEL", *words, NEVER_DECODE=True)

    def fail_over(self) -> None:
        """Replace the primary by hand, and wait until all Sentinels name the new one. The old one lives on."""
        old = self.primary
        wait_until(lambda: self.ask(self.sentinels[0], "FAILOVER", SERVICE) == b"OK", despite=[Exception])
        self.wait_for_another(old)

    def wait_for_another(self, old: EmbeddedServer) -> None:
        """Wait until all living Sentinels name another server than this one."""
        living = [one for one in self.sentinels if one.running]
        wait_until(lambda: all(self.named(one) != old.port for one in living))

    def wait_until_settled(self) -> None:
        """Wait until the primary has a replica in step, and each Sentinel knows that and the others."""
        wait_until(self._settled)

    def _settled(self) -> bool:
        with redis_of(self.primary.url) as client:
            told = client.info("replication")
        if not any(isinstance(one, dict) and one["state"] == "online" for one in told.values()):
            return False
        for sentinel in self.sentinels:
            state = self.ask(sentinel, "MASTER", SERVICE)
            fields = dict(zip(state[::2], state[1::2], strict=True))
            replicas = [dict(zip(one[::2], one[1::2], strict=True)) for one in self.ask(sentinel, "REPLICAS", SERVICE)]
            good = [one for one in replicas if one[b"flags"] == b"slave" and one[b"master-link-status"] == b"ok"]
            others = int(fields[b"num-other-sentinels"])
            if not good or others != len(self.sentinels) - 1 or fields[b"flags"] != b"master":
                return False
        return True


def url_of(sentinels: Sequence[EmbeddedServer], service: str = SERVICE) -> str:
    """The URL of a service of these Sentinels."""
    return f"redis+sentinel://{','.join(f'{HOST}:{one.port}' for one in sentinels)}/{service}/0"


@contextmanager
def sentinel_program(kind: str) -> Iterator[str]:
    """A program that runs a server of this kind as a Sentinel."""
    with TemporaryDirectory(prefix="nearcache-sentinel-") as folder:
        program = Path(folder, "sentinel")
        program.write_text(f'#!/bin/sh\nexec {REDIS if kind == "redis" else find_binary()} "$@" --sentinel\n')
        program.chmod(0o700)
        yield str(program)


@contextmanager
def sentinel_of(
    kind: str, primary: int, quorum: int = 1, more: Mapping[str, str] = {}, port: int | None = None
) -> Iterator[EmbeddedServer]:
    """A running Sentinel that watches the server on this port."""
    config = {
        **more,
        "sentinel monitor": f"{SERVICE} {HOST} {primary} {quorum}",
        "sentinel down-after-milliseconds": f"{SERVICE} {DOWN_AFTER * 1000:.0f}",
        "sentinel failover-timeout": f"{SERVICE} 3000",
    }
    with sentinel_program(kind) as program, EmbeddedServer(port=port, binary=program, config=config) as sentinel:
        yield sentinel


@contextmanager
def group(kind: str = "valkey", replicas: int = 1, sentinels: int = 3) -> Iterator[Group]:
    """A primary with replicas, and Sentinels that know of each other."""
    with ExitStack() as stack:
        at_once = {"repl-diskless-sync-delay": "0"}  # else a replica waits for others for 5 s
        first = stack.enter_context(make(kind, at_once))
        follows = {"replicaof": f"{HOST} {first.port}", **at_once}
        servers = [first, *(stack.enter_context(make(kind, follows)) for _ in range(replicas))]
        quorum = sentinels // 2 + 1
        watching = [stack.enter_context(sentinel_of(kind, first.port, quorum)) for _ in range(sentinels)]
        made = Group(servers, watching)
        made.wait_until_settled()
        yield made
