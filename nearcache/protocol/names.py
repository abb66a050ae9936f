"""The names in Redis. The names of one bucket share a hash tag; one server is one bucket, number 0."""

from __future__ import annotations

from collections.abc import Sequence

PROTOCOL = b"2/1"
"""Major number of the protocol, and number of buckets, as a field of ``{ns:0}:m`` keeps them."""
PLACES = 256
"""Instances of a namespace that can announce themselves at a time."""


class Names:
    """The names of one namespace in one database of the server.

    Pub/sub knows no databases, so a database other than 0 has a channel of its own: numbers of two counters on one
    channel would be gaps (docs/protocol.md, W).

    >>> Names("shop").value("user:7")
    b'{shop:0}:v:user:7'
    """

    __slots__ = ("_lease", "_tag", "_value", "bucket", "channel", "counters", "database", "scratch")

    def __init__(self, namespace: str, database: int = 0) -> None:
        bucket = f"{{{namespace}:0}}:".encode()
        self.bucket = bucket
        self.database = database
        self.counters = bucket + b"m"
        self.channel = bucket + (b"c:%d" % database if database else b"c")
        self.scratch = bucket + b"x"
        self._value = bucket + b"v:"
        self._lease = bucket + b"l:"
        self._tag = bucket + b"t:"

    def place(self, number: int) -> bytes:
        """The name of a place where an instance announces itself."""
        return b"%bi:%d" % (self.bucket, number)

    def value(self, key: str) -> bytes:
        """The name of a key's record."""
        return self._value + key.encode()

    def lease(self, key: str) -> bytes:
        """The name of a key's lease or hold."""
        return self._lease + key.encode()

    def values(self, keys: Sequence[str]) -> list[bytes]:
        """The names of the records of some keys."""
        return list(map(self._value.__add__, map(str.encode, keys)))

    def tags(self, tags: Sequence[str]) -> list[bytes]:
        """The names of the floors of some tags."""
        return [self._tag + tag.encode() for tag in tags]

    def pairs(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[bytes]:
        """The names of record and lease of each key, then those of the floors of some tags."""
        names: list[bytes] = []
        for key in keys:
            encoded = key.encode()
            names += (self._value + encoded, self._lease + encoded)
        for tag in tags:
            names.append(self._tag + tag.encode())
        return names


def acl(namespace: str) -> str:
    """The rights that a user of a namespace needs, as ACL SETUSER takes them; docs/security.md has them, too."""
    rights = "-@all +time +get +mget +set +del +hmget +hset +hincrby +getrange +setrange +pttl +pexpire"
    return f"~{{{namespace}:* &{{{namespace}:* {rights} +eval +evalsha +publish +subscribe +info"
