"""The names in Redis. The names of one bucket share a hash tag; on one server there is one bucket, number 0."""

from __future__ import annotations

from collections.abc import Sequence

MAJOR = 2
"""Of the protocol."""
PROTOCOL = b"%d/1" % MAJOR
"""Major number of the protocol, and number of buckets, as a field of ``m`` keeps them; here those of one bucket."""
PLACES = 256
"""Instances of a namespace that can announce themselves at a time."""


class Names:
    """The names of one bucket of a namespace in one database of the server.

    Pub/sub knows no databases, so a database other than 0 has a channel of its own: numbers of two counters on one
    channel would be gaps (docs/protocol.md, W).

    Args:
        namespace: the namespace.
        database: the number of the database.
        bucket: the number of the bucket.
        buckets: how many buckets the namespace has.
        sharded: whether the bucket's channel is in the slot of its names: then SPUBLISH and SSUBSCRIBE reach it.

    >>> Names("shop").value("user:7")
    b'{shop:0}:v:user:7'
    """

    __slots__ = (
        "_lease",
        "_place",
        "_tag",
        "_value",
        "bucket",
        "channel",
        "counters",
        "database",
        "protocol",
        "scratch",
        "sharded",
        "value_of",
    )

    def __init__(
        self, namespace: str, database: int = 0, bucket: int = 0, buckets: int = 1, *, sharded: bool = False
    ) -> None:
        prefix = f"{{{namespace}:{bucket}}}:".encode()
        self.database, self.bucket, self.sharded = database, bucket, sharded
        self.protocol = b"%d/%d" % (MAJOR, buckets)
        self.counters = prefix + b"m"
        self.channel = prefix + (b"c:%d" % database if database else b"c")
        self.scratch = prefix + b"x"
        self._value = prefix + b"v:"
        self.value_of = self._value.__add__
        """The name of the record of a key of these bytes."""
        self._lease = prefix + b"l:"
        self._tag = prefix + b"t:"
        self._place = prefix + b"i:"

    def place(self, number: int) -> bytes:
        """The name of a place where an instance announces itself."""
        return self._place + b"%d" % number

    def value(self, key: str) -> bytes:
        """The name of a key's record."""
        return self._value + key.encode()

    def lease(self, key: str) -> bytes:
        """The name of a key's lease or hold."""
        return self._lease + key.encode()

    def values(self, keys: Sequence[str]) -> list[bytes]:
        """The names of the records of some keys."""
        return list(map(self.value_of, map(str.encode, keys)))

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


def acl(namespace: str, *, cluster: bool = False) -> str:
    """The rights that a user of a namespace needs, as ACL SETUSER takes them; docs/security.md has them, too."""
    rights = "-@all +time +get +mget +set +del +hmget +hset +hincrby +getrange +setrange +pttl +pexpire"
    bus = "+spublish +ssubscribe +sunsubscribe +cluster|slots" if cluster else "+publish +subscribe"
    return f"~{{{namespace}:* &{{{namespace}:* {rights} +eval +evalsha {bus} +info"
