"""The connections of one bucket of a cluster: those to the node that has it now, and what is done where it says no.

A node that does not serve a command, or not now, says so instead of executing it:

- MOVED: another node has the slot. It is asked, and so are all later requests.
- ASK: the slot is on its way, and the names are at the other node already. It is asked behind ASKING, this time.
- TRYAGAIN: some of the names are there, and some are not. Values are then asked for one by one. A script fails: its
  names are those of the bucket and of the channel, of which the latter never is a name at either, so that no write is
  executed while a slot is on its way. That is wanted: else the importing node would make counters of its own.
- CLUSTERDOWN: nobody has the slot.

What has failed without having been executed is a miss, or is journalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nearcache.engine.breaker import ELSEWHERE
from nearcache.engine.gathering import gathers
from nearcache.engine.ports import NotSent
from nearcache.transport import resp
from nearcache.transport.handshake import Handshake
from nearcache.transport.port import Transport

if TYPE_CHECKING:
    from nearcache.transport.cluster import Cluster, Node

HOPS = 3
"""Nodes that a request is sent to, one after the other, while each says that another one has the bucket."""
_ASKING = resp.pack((b"ASKING",))


class Elsewhere(NotSent):
    """The node that was asked does not serve the bucket now; nothing was executed."""


def _refused(replies: Sequence[Any]) -> list[int]:
    """The places of the commands that were not executed."""
    return [at for at, one in enumerate(replies) if type(one) is resp.ServerError and one.code in ELSEWHERE]


class BucketTransport(Transport):
    """The connections of a bucket. The port documents the methods."""

    handshake: Handshake | None = None

    def __init__(self, cluster: Cluster, bucket: int) -> None:
        self._cluster = cluster
        self._bucket = bucket

    async def execute(
        self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
    ) -> list[Any]:
        cluster = self._cluster
        node = cluster.owner[self._bucket] or await cluster.find(self._bucket)
        if gathers():
            replies = await node.transport.execute_along(packed, count, repeatable=repeatable)
        else:
            replies = await node.transport.execute(packed, count, repeatable=repeatable, waited=waited)
        for reply in replies:
            if type(reply) is resp.ServerError and reply.code in ELSEWHERE:
                return await self._repeat(node, resp.commands_of(packed), replies, repeatable)
        return replies

    @property
    def server(self) -> Transport | None:
        node = self._cluster.owner[self._bucket]
        return None if node is None else node.transport

    async def _repeat(self, node: Node, commands: list[bytes], replies: list[Any], repeatable: bool) -> list[Any]:
        """The replies, after what was not executed was repeated where the node says.

        Of reads, what stands behind it is repeated too: bounds have to be read behind the values.

        Raises:
            Elsewhere: a command is served nowhere now.
        """
        refused = before = _refused(replies)
        refusal = replies[refused[0]]
        for _ in range(HOPS):
            self._cluster.trouble()
            again = [at for at in refused if replies[at].code == refusal.code]
            if refusal.code == "TRYAGAIN" and repeatable and (reads := resp.single_reads(commands[again[0]])):
                replies[again[0]] = await self.execute(b"".join(reads), len(reads))
            else:
                there = self._cluster.follow(self._bucket, node, refusal)
                if there is None:
                    break
                asking = refusal.code == "ASK"
                answers = await self._ask(there, [commands[at] for at in again], repeatable, asking=asking)
                for at, answer in zip(again, answers, strict=True):
                    replies[at] = answer
                node = there
            refused = _refused(replies)
            if not refused:
                behind = [at for at in range(before[0], len(replies)) if repeatable and at not in before]
                if behind:
                    packed = b"".join(commands[at] for at in behind)
                    answers = await self.execute(packed, len(behind), repeatable=True)
                    for at, answer in zip(behind, answers, strict=True):
                        replies[at] = answer
                return replies
            refusal = replies[refused[0]]
        raise Elsewhere(f"the cluster does not serve the bucket now: {refusal}")

    @staticmethod
    async def _ask(node: Node, commands: Sequence[bytes], repeatable: bool, *, asking: bool = False) -> list[Any]:
        if not asking:
            return await node.transport.execute(b"".join(commands), len(commands), repeatable=repeatable)
        packed = b"".join(_ASKING + command for command in commands)
        return (await node.transport.execute(packed, 2 * len(commands), repeatable=repeatable))[1::2]

    async def pause(self, seconds: float) -> None:
        await self._cluster.any_transport.pause(seconds)

    async def connect(self) -> None:
        node = self._cluster.owner[self._bucket] or await self._cluster.find(self._bucket)
        await node.transport.connect()

    def discard_idle(self) -> None:
        node = self._cluster.owner[self._bucket]
        if node is not None:
            node.transport.discard_idle()

    async def close(self) -> None:
        await self._cluster.close()
