"""Several flows of one thread at once: what they ask of one server goes as one request."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.engine.gathering import Question, gather, gathers, turn, unwrapped
from nearcache.engine.ports import RemoteFailed
from nearcache.runtime.run_sync import run_sync


class Answering:
    """Answers each command with its name and the number of the request."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.requests: list[bytes] = []
        self.failure = failure

    async def send(self, packed: bytes, count: int) -> list[Any]:
        """One request."""
        self.requests.append(packed)
        if self.failure is not None:
            raise self.failure
        assert len(packed) == count
        return [(chr(byte), len(self.requests)) for byte in packed]

    def ask(self, commands: str) -> Question:
        """A question of some commands of one letter each."""
        return Question(self, self.send, commands.encode(), len(commands))


async def flow(*asks: tuple[Answering, str]) -> list[Any]:
    """Ask one after the other."""
    assert gathers()
    return [await server.ask(commands) for server, commands in asks]


def test_questions_of_one_server_are_one_request() -> None:
    """Each flow gets its own replies; a second question goes with those that are asked then."""
    one, two = Answering(), Answering()
    works = [flow((one, "ab"), (one, "c")), flow((two, "d")), flow((one, "e"), (two, "f")), flow()]
    assert unwrapped(gather(works)) == [
        [[("a", 1), ("b", 1)], [("c", 2)]],
        [[("d", 1)]],
        [[("e", 1)], [("f", 2)]],
        [],
    ]
    assert (one.requests, two.requests) == ([b"abe", b"c"], [b"d", b"f"])
    assert not gathers()


class Slow(Answering):
    """Suspends between sending and receiving, as connections of threads do, and notes both."""

    def __init__(self, log: list[str], failure: BaseException | None = None) -> None:
        super().__init__(failure)
        self.log = log

    async def send(self, packed: bytes, count: int) -> list[Any]:
        """One request."""
        self.log.append(f"sent {packed.decode()}")
        try:
            await turn()
            replies = await super().send(packed, count)
        finally:
            self.log.append(f"over {packed.decode()}")
        return replies


def test_all_servers_are_asked_before_the_first_has_answered() -> None:
    """They work at the same time; and in every thread the requests are begun in one order."""
    log: list[str] = []
    servers = sorted((Slow(log) for _ in range(3)), key=id)
    works = [flow((server, letter)) for server, letter in reversed(list(zip(servers, "abc", strict=True)))]
    assert unwrapped(gather(works)) == [[[("c", 1)]], [[("b", 1)]], [[("a", 1)]]]
    assert log == ["sent a", "sent b", "sent c", "over a", "over b", "over c"]


def test_an_interrupt_of_the_gathering_ends_every_request_and_flow() -> None:
    """What was sent and not received is ended, so that no connection keeps replies of another request."""
    log: list[str] = []
    one, two = sorted((Slow(log) for _ in range(2)), key=id)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    works = [flow((one, "a")), flow((two, "b"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearcache.engine.gathering._Request.finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gather(works)
    assert log == ["sent a", "sent b", "over a", "over b"]
    assert not gathers()


def test_a_failure_is_that_of_each_flow_that_asked() -> None:
    """The others have their replies; what is raised is told when all have ended."""
    broken, well = Answering(RemoteFailed("away")), Answering()

    async def careful() -> str:
        try:
            await broken.ask("a")
        except RemoteFailed as failure:
            return str(failure)
        return "no failure"

    results = gather([careful(), flow((well, "b")), flow((broken, "c"))])
    assert results[:2] == [("away", None), ([[("b", 1)]], None)]
    with pytest.raises(RemoteFailed, match="away"):
        unwrapped(results)


def test_an_interrupt_ends_every_flow() -> None:
    """It is raised, and comes before what is an Exception; each flow may tidy up."""
    ended: list[str] = []
    interrupted, well = Answering(KeyboardInterrupt()), Answering()

    async def tidy(server: Answering, name: str) -> None:
        try:
            await server.ask("a")
        except BaseException:
            ended.append(name)
            raise

    async def wrong() -> None:
        raise ValueError

    with pytest.raises(KeyboardInterrupt):
        unwrapped(gather([wrong(), tidy(interrupted, "one"), tidy(interrupted, "two"), tidy(well, "three")]))
    assert ended == ["one", "two"]


def test_a_call_inside_a_flow_asks_for_itself() -> None:
    """As by a listener, or a user's codec, that uses a cache: it is run to its end at once."""
    one = Answering()

    async def outer() -> list[Any]:
        inner: list[Any] = run_sync(flow((one, "i")))
        return [inner, await one.ask("o")]

    assert unwrapped(gather([outer()])) == [[[[("i", 1)]], [("o", 2)]]]
    one.failure = RemoteFailed("away")
    results = gather([outer()])
    assert str(results[0][1]) == "away"


def test_a_failure_may_be_a_result() -> None:
    """It is given, and not raised."""

    async def told() -> RemoteFailed:
        return RemoteFailed("told")

    assert [str(one) for one in unwrapped(gather([told()]))] == ["told"]
