"""A cluster of real servers on this machine: three primaries, each with a replica if asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Self

import redis

from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support import servers
from tests.support.waiting import wait_until

CONFIG = {
    "enable-debug-command": "yes",
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1500",
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync-delay": "0",
}
SLOTS = 16384
PRIMARIES = 3
PATIENCE = 30.0


class Node:
    """One server of a cluster, and a client of it."""

    def __init__(self, server: EmbeddedServer, tls: Mapping[str, Any] = {}) -> None:
        self.server = server
        self._tls = tls

    def __call__(self, *command: object) -> Any:
        """Execute a command; the port may be another one after a restart."""
        options: dict[str, Any] = {"socket_timeout": 5, "protocol": 2, "decode_responses": True, **self._tls}
        with redis.Redis(host=HOST, port=self.server.port, **options) as client:
            return client.execute_command(*command)

    @property
    def name(self) -> str:
        """The identity of the node in the cluster."""
        return str(self("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        """Whether it is a primary now, as far as it knows."""
        return bool(self("ROLE")[0] == "master")


class LocalCluster:
    """Three primaries, and as many replicas if asked, as processes on loopback.

    Args:
        kind: one of servers.KINDS.
        replicas: whether each primary has one.
        config_of_port: more of the configuration of a server, by its port, such as that of TLS.
        tls: options of a redis-py client of these servers, if they speak TLS.
    """

    def __init__(
        self,
        kind: str,
        *,
        replicas: bool = False,
        config_of_port: Callable[[int], Mapping[str, str]] | None = None,
        tls: Mapping[str, Any] = {},
    ) -> None:
        self._kind = kind
        self._replicas = replicas
        self._config_of_port, self._tls = config_of_port, tls
        self._servers = ExitStack()
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        count = PRIMARIES * (1 + self._replicas)
        for _ in range(count):
            port = None if self._config_of_port is None else free_port()
            more = {} if self._config_of_port is None or port is None else self._config_of_port(port)
            server = servers.make(self._kind, {**CONFIG, **more}, port)
            self._servers.enter_context(server)
            self.nodes.append(Node(server, self._tls))
        first = self.nodes[0]
        per = SLOTS // PRIMARIES
        for number, node in enumerate(self.nodes[:PRIMARIES]):
            last = SLOTS - 1 if number == PRIMARIES - 1 else (number + 1) * per - 1
            node("CLUSTER", "ADDSLOTSRANGE", number * per, last)
            node("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node("CLUSTER", "MEET", "127.0.0.1", first.server.port)
        self.wait(lambda: all(f"cluster_known_nodes:{count}" in node("CLUSTER", "INFO") for node in self.nodes))
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            name = self.nodes[number].name
            self.wait(lambda node=node, name=name: node("CLUSTER", "REPLICATE", name) == "OK")
        self.wait(self.settled)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._servers.close()

    @property
    def url(self) -> str:
        """The address of all nodes."""
        scheme = "rediss" if self._tls else "redis"
        return f"{scheme}+cluster://" + ",".join(f"127.0.0.1:{node.server.port}" for node in self.nodes)

    @property
    def running(self) -> list[Node]:
        """The nodes whose servers run."""
        return [node for node in self.nodes if node.server.running]

    @property
    def primaries(self) -> list[Node]:
        """The primaries that run now."""
        return [node for node in self.running if node.is_primary]

    def owner(self, slot: int) -> Node:
        """The primary that has a slot, by the view of the nodes themselves."""
        for node in self.primaries:
            for first, last, (_, port, *_), *_ in node("CLUSTER", "SLOTS"):
                if first <= slot <= last and port == node.server.port:
                    return node
        raise LookupError(slot)

    def settled(self) -> bool:
        """Whether every node says that the cluster is well, and every replica follows its primary."""
        for node in self.running:
            if "cluster_state:ok" not in node("CLUSTER", "INFO"):
                return False
            role = node("ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
        return True

    def replica_of(self, primary: Node) -> Node:
        """A replica of a primary."""
        for node in self.running:
            role = node("ROLE")
            if role[0] == "slave" and role[2] == primary.server.port:
                return node
        raise LookupError(primary.server.port)

    def migrate(self, slot: int, target: Node, *, pause: float = 0.0) -> None:
        """Move a slot with its keys to another primary, key by key."""
        source = self.owner(slot)
        if source is target:
            return
        target("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
        source("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
        self.migrate_rest(slot, source, target, pause=pause)

    def migrate_rest(self, slot: int, source: Node, target: Node, *, pause: float = 0.0) -> None:
        """Move the keys of a slot that is on its way, and end it."""
        while keys := source("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source("MIGRATE", "127.0.0.1", target.server.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(pause)
        for node in (target, source, *self.primaries):
            with suppress(redis.ResponseError):
                node("CLUSTER", "SETSLOT", slot, "NODE", target.name)

    @staticmethod
    def wait(condition: Any, within: float = PATIENCE) -> None:
        """Wait until something holds."""
        wait_until(condition, within, despite=[redis.RedisError])
