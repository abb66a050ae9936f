"""Judge what a server says of itself: plain, without a connection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nearcache.findings import Finding
from nearcache.settings import SETTINGS, Settings
from nearcache.transport.examine import Server

BUFFER_MIN = 1 << 20
"""Bytes that may wait for a subscriber, before the server ends it: less is a burst of some thousand keys."""
REQUEST_MARGIN = 64 * 1024
"""Bytes of a request beside the value."""
FULL = 0.8
"""Part of maxclients, at which connections may run out."""
RESP3 = 3


def judge(server: Server, settings: Settings, *, of_cluster: bool = False) -> Iterator[Finding]:
    """What is wrong with a server; ``of_cluster``: it is one of those of a cluster's URL."""
    if server.problem is not None:
        yield Finding("too-old" if server.too_old else "set-up", server.problem)
    if server.watched is not None:
        yield from (Finding("quorum", problem) for problem in server.watched.problems)
    if server.role not in ("", "master"):
        yield Finding("replica", f"the server is a {server.role}, which takes no writes")
    if server.protocol < RESP3:
        yield Finding("resp2", "the connection speaks RESP2, and L1 needs RESP3")
    if server.mode == "cluster" and not of_cluster:
        yield Finding("cluster-node", "the server is a node of a cluster, and the URL names it alone")
    if server.round_trip > settings.redis_timeout / 4:
        yield Finding("slow", f"a round trip takes {server.round_trip * 1000:.0f} ms of {settings.redis_timeout} s")
    if settings.namespace == SETTINGS["namespace"].default:
        yield Finding("default-namespace", f"the namespace is {settings.namespace!r}, as of all who name none")
    if server.info is None:
        yield Finding("no-info", "the user may not call INFO, so nothing tells one server from another")
    else:
        yield from _judge_info(server.info, of_cluster=of_cluster)
    if server.config is None:
        yield Finding("config-denied", "the user may not call CONFIG GET, so the server's limits were not checked")
    else:
        yield from _judge_config(server.config, settings, of_cluster=of_cluster)


def _judge_info(info: Mapping[str, str], *, of_cluster: bool) -> Iterator[Finding]:
    if of_cluster and info.get("connected_slaves") == "0":
        yield Finding("no-replica", "no replica is connected to it")
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys"):
        yield Finding("evicting-policy", f"maxmemory-policy is {policy}")
    most, there = _number(info.get("maxclients")), _number(info.get("connected_clients"))
    if most and there and there > FULL * most:
        yield Finding("connections", f"{there} of {most} connections are in use")


def _judge_config(config: Mapping[str, str], settings: Settings, *, of_cluster: bool) -> Iterator[Finding]:
    pubsub = re.search(r"pubsub (\d+) (\d+) \d+", config.get("client-output-buffer-limit", ""))
    limits = [int(limit) for limit in pubsub.groups() if int(limit)] if pubsub else []
    if limits and min(limits) < BUFFER_MIN:
        yield Finding("pubsub-buffer", f"a subscriber is ended when {min(limits)} bytes wait for it")
    needed = settings.max_value_bytes + REQUEST_MARGIN
    for name in ("client-query-buffer-limit", "proto-max-bulk-len"):
        limit = _number(config.get(name))
        if limit and limit < needed:
            yield Finding("request-limits", f"{name} is {limit}, and max_value_bytes {settings.max_value_bytes}")
    timeout = _number(config.get("timeout"))
    if timeout:
        yield Finding("idle-timeout", f"timeout is {timeout}: connections idle for so many seconds are ended")
    if of_cluster and config.get("cluster-require-full-coverage") == "yes":
        yield Finding("full-coverage", "cluster-require-full-coverage is yes")
    if config.get("tcp-keepalive") == "0":
        yield Finding("keepalive", "tcp-keepalive is 0")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
