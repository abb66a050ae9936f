"""What a node of a cluster has refused is repeated where it says, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from nearcache.engine.ports import RemoteFailed
from nearcache.protocol.names import Names
from nearcache.transport import resp
from nearcache.transport.client import RedisRemote
from nearcache.transport.cluster import Cluster, Node
from nearcache.transport.cluster_bucket import BucketTransport, Elsewhere

ASK, MOVED, TRYAGAIN = (
    resp.ServerError(f"{text}") for text in ("ASK 1 127.0.0.1:2", "MOVED 1 127.0.0.1:2", "TRYAGAIN Multiple keys")
)


class ScriptedNode:
    """A node that gives these replies, one list for each request."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[list[bytes]] = []
        self.transport = self

    async def execute(self, packed: bytes, count: int = 1, **_: object) -> list[Any]:
        """Note the commands, and answer."""
        commands = [b" ".join(parts) for parts in resp._parts_of(packed)]
        assert len(commands) == count
        self.asked.append(commands)
        return self.answers.pop(0)


class Pair:
    """A cluster of two nodes, of which the first has the bucket."""

    blocks = False

    def __init__(self, first: ScriptedNode, second: ScriptedNode) -> None:
        self.owner, self.second = [first], second

    def trouble(self) -> None:
        """Nobody has to look for places."""

    def follow(self, bucket: int, asked: Node, refusal: resp.ServerError) -> ScriptedNode | None:
        """As that of Cluster, where all nodes name the second."""
        del asked
        if refusal.code == "MOVED":
            self.owner[bucket] = self.second
        return self.second if refusal.moved_to else None


def execute(first: ScriptedNode, second: ScriptedNode, *commands: bytes, repeatable: bool = False) -> list[Any]:
    """The replies to commands of the bucket."""
    packed = b"".join(resp.pack(tuple(command.split())) for command in commands)
    transport = BucketTransport(cast("Cluster", Pair(first, second)), 0)
    return asyncio.run(transport.execute(packed, len(commands), repeatable=repeatable))


@pytest.mark.parametrize(("refusal", "asking"), [(MOVED, []), (ASK, [b"ASKING"])], ids=["MOVED", "ASK"])
def test_of_writes_only_what_was_refused_is_repeated(refusal: resp.ServerError, asking: list[bytes]) -> None:
    """The first was executed: to execute it twice would refuse a lease that was just given."""
    first, second = (
        ScriptedNode([1, refusal, refusal]),
        ScriptedNode([*["OK"] * len(asking), 2, *["OK"] * len(asking), 3]),
    )
    assert execute(first, second, b"EVALSHA a", b"EVALSHA b", b"EVALSHA c") == [1, 2, 3]
    assert second.asked == [[*asking, b"EVALSHA b", *asking, b"EVALSHA c"]]


def test_bounds_are_read_behind_the_values_when_those_are_repeated() -> None:
    """The counters are still there: read before the values, a clear between the two would be missed."""
    first, second = ScriptedNode([ASK, [b"5", b"1"]], [[b"9", b"8"]]), ScriptedNode(["OK", [b"v"]])
    assert execute(first, second, b"MGET a", b"HMGET m s f", repeatable=True) == [[b"v"], [b"9", b"8"]]
    assert (first.asked[1:], second.asked) == ([[b"HMGET m s f"]], [[b"ASKING", b"MGET a"]])


def test_counters_that_have_gone_are_asked_behind_the_values() -> None:
    """The values are at both nodes, the counters at the other one."""
    first, second = ScriptedNode([TRYAGAIN, ASK], [b"1", ASK]), ScriptedNode(["OK", b"2"], ["OK", [b"9", b"8"]])
    assert execute(first, second, b"MGET a b", b"HMGET m s f", repeatable=True) == [[b"1", b"2"], [b"9", b"8"]]
    assert second.asked == [[b"ASKING", b"GET b"], [b"ASKING", b"HMGET m s f"]]


def test_values_at_two_nodes_are_read_one_by_one() -> None:
    """And the bounds behind them once more."""
    first = ScriptedNode([TRYAGAIN, [b"5", b"1"]], [ASK, b"2", b"3"], [[b"9", b"8"]])
    second = ScriptedNode(["OK", b"1"])
    found = execute(first, second, b"MGET a b c", b"HMGET m s f", repeatable=True)
    assert found == [[b"1", b"2", b"3"], [b"9", b"8"]]
    assert first.asked[1:] == [[b"GET a", b"GET b", b"GET c"], [b"HMGET m s f"]]
    assert second.asked == [[b"ASKING", b"GET a"]]


@pytest.mark.parametrize("answers", [[[TRYAGAIN]], [[ASK], [TRYAGAIN]]])
def test_a_script_of_a_slot_on_its_way_was_not_executed(answers: list[list[Any]]) -> None:
    """It is told as not sent, wherever it was refused."""
    first, second = ScriptedNode(answers[0]), ScriptedNode(["OK", *(answers[1:] or [[]])[0]])
    with pytest.raises(Elsewhere) as caught:
        execute(first, second, b"EVALSHA a")
    assert caught.value.sent is False


def test_nodes_that_name_each_other_are_not_asked_for_ever() -> None:
    """Each request has its HOPS."""
    first, second = ScriptedNode([MOVED]), ScriptedNode(*([MOVED] for _ in range(5)))
    with pytest.raises(Elsewhere):
        execute(first, second, b"GET a", repeatable=True)
    assert len(second.asked) < 5


def test_buckets_are_read_along_where_their_own_connections_go_alone() -> None:
    """To another server they have not introduced this client: it has not compared whose numbers that one counts (U)."""
    here, there = (ScriptedNode([[b"record"]]) for _ in range(2))
    remotes = [
        RedisRemote(cast("Any", To(node)), Names("n", 0, bucket, 16), retries=0, redis_timeout=0.1)
        for bucket, node in enumerate((here, there))
    ]
    first, second = asyncio.run(remotes[0].read_each([(remotes[0], ["a"]), (remotes[1], ["b"])]))
    assert first == [b"record"]
    assert isinstance(second, RemoteFailed)
    assert (here.asked, there.asked) == ([[b"MGET {n:0}:v:a"]], [])


class To:
    """Connections to a node."""

    handshake = None
    discard_idle = connect = close = None

    def __init__(self, node: ScriptedNode) -> None:
        self.server = self
        self.node = node

    async def execute_along(self, packed: bytes, count: int, *, repeatable: bool = False) -> list[Any]:
        """The node's replies."""
        return await self.node.execute(packed, count, repeatable=repeatable)
