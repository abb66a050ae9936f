"""What may be wrong with a set-up, and what to do about it: one table with three outlets.

`nearcache doctor` prints them, ``health().reasons`` has those that a running cache can tell without asking, and the
logger ``nearcache`` gets each of these once. Each kind has a section of its name in docs/operations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

PAGE = "docs/operations.md"


class Kind(NamedTuple):
    """A kind of finding."""

    level: Literal["error", "warning", "note"]
    """``error``: the cache does not work, or only in part. ``warning``: it works, and will cause trouble. ``note``: it
    depends."""
    todo: str


KINDS = {
    "url": Kind("error", "mend the URL or the settings"),
    "unreachable": Kind("error", "start the server, or mend host, port and firewall"),
    "set-up": Kind("error", "mend user, password, database or TLS in the URL"),
    "too-old": Kind("error", "upgrade the server: Redis 7.0, Valkey 7.2, or newer"),
    "sentinel": Kind(
        "error", "start the Sentinels that watch the service, or mend their hosts or the service's name in the URL"
    ),
    "replica": Kind("error", "name the address of the primary"),
    "resp2": Kind(
        "error", "let the server, or the proxy before it, accept HELLO 3, and remove protocol=2 from the URL"
    ),
    "rights": Kind("error", "give the user the rights that `nearcache doctor --acl` prints"),
    "bus": Kind("error", "let messages pass on the channel of the namespace, from this very server"),
    "overtaking": Kind(
        "error", "remove the proxy that lets an answer overtake a message: L1 can't be proven behind it"
    ),
    "other-protocol": Kind("error", "use another namespace, or the same release everywhere"),
    "no-info": Kind("warning", "allow INFO (+info): without it L1 is dropped at each reconnect"),
    "evicting-policy": Kind(
        "warning",
        "set maxmemory-policy to a volatile-* one, and give the cache memory: only values have a ttl, while an allkeys "
        "policy may evict the counter, at which every L1 is dropped",
    ),
    "pubsub-buffer": Kind(
        "warning",
        "raise the pubsub part of client-output-buffer-limit to 32mb 8mb 60, its default: a burst of writes ends "
        "every bus, and drops every L1",
    ),
    "request-limits": Kind(
        "warning", "raise client-query-buffer-limit and proto-max-bulk-len above max_value_bytes, or lower that"
    ),
    "quorum": Kind(
        "warning", "start more Sentinels, or mend the network between them: a majority has to agree on a failover"
    ),
    "slow": Kind("warning", "move closer to the server, or raise redis_timeout and max_staleness"),
    "connections": Kind("warning", "raise maxclients, or lower max_connections: see the sum of connections"),
    "l1-churn": Kind("warning", "raise l1_max_entries, or take eviction='s3fifo' where many keys are read once"),
    "never-stored": Kind("warning", "let the loader give types that the codec carries, or raise max_value_bytes"),
    "function-cost": Kind(
        "warning", "do not cache this function, or pass it a larger piece of work: loading is cheaper than a miss"
    ),
    "large-values": Kind(
        "warning",
        "promise copy='none' where no caller changes the value, cache a smaller part, or give an immutable type: a "
        "mutable value is decoded anew at each hit",
    ),
    "large-batches": Kind("warning", "ask for fewer keys at a time, or raise redis_timeout"),
    "cluster-node": Kind(
        "note",
        "begin the URL with redis+cluster://, unless the cluster has one primary, or a proxy that looks like one: the "
        "namespace may move to another node, which this URL does not find",
    ),
    "no-replica": Kind(
        "note", "give each primary a replica: without one its buckets are out of service while it is away"
    ),
    "full-coverage": Kind(
        "note",
        "set cluster-require-full-coverage no: else all primaries refuse everything while the slots of one are away",
    ),
    "idle-timeout": Kind("note", "set timeout 0: the server ends idle connections, and each is made anew"),
    "keepalive": Kind("note", "set tcp-keepalive 300: connections of hosts that died stay open for ever"),
    "default-namespace": Kind("note", "name the namespace, if any other application uses this server"),
    "config-denied": Kind("note", "run doctor as a user who may call CONFIG GET, to check the server's limits"),
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be."""

    kind: str
    """One of KINDS."""
    detail: str
    """What was found, in a sentence without secrets."""

    @property
    def level(self) -> Literal["error", "warning", "note"]:
        """How grave it is."""
        return KINDS[self.kind].level

    @property
    def todo(self) -> str:
        """What to do."""
        return KINDS[self.kind].todo

    @property
    def anchor(self) -> str:
        """Where to read more.

        >>> Finding("rights", "PUBLISH was refused").anchor
        'docs/operations.md#rights'
        """
        return f"{PAGE}#{self.kind}"
