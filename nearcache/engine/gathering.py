"""Several flows of one thread at once, so that what they ask of one server goes as one request.

A flow of a thread never suspends, since its ports block; but inside ``gather`` the connections of a cluster's bucket
suspend it instead, with the question that they would send. When all flows have ended or are suspended, the questions
are sent by server, to all servers before the replies of the first are awaited, and each flow goes on with its own
replies.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextvars import ContextVar
from types import coroutine
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")
Ended: TypeAlias = tuple[T | None, BaseException | None]
"""The result of a flow, or what it has raised. A failure may be a result, too."""

_gathers: ContextVar[bool] = ContextVar("nearcache_gathers", default=False)


class Question:
    """What a flow asks of a server.

    Args:
        subject: what it is sent by; questions of one subject go together.
        send: sends packed commands, and gives their replies; it may suspend between the two, by ``turn``.
        packed: the commands.
        count: of the replies.
    """

    def __init__(
        self, subject: object, send: Callable[[bytes, int], Coroutine[Any, Any, list[Any]]], packed: bytes, count: int
    ) -> None:
        self.subject, self.send, self.packed, self.count = subject, send, packed, count

    def __await__(self) -> Generator[Question, list[Any], list[Any]]:
        return (yield self)

    def answer(self) -> list[Any]:
        """The replies, where no other flow asks at the same time."""
        request = _Request([(0, self)])
        request.finish()
        if request.failure is not None:
            raise request.failure
        return request.replies


gathers: Callable[[], bool] = _gathers.get
"""Whether this flow is one of several that ``gather`` does."""


@coroutine
def turn() -> Generator[None, None, None]:
    """Suspend what sends, so that the questions to other servers are sent as well before the replies are awaited."""
    yield


class _Request:
    """The questions of some flows to one server."""

    def __init__(self, asked: list[tuple[int, Question]]) -> None:
        self.asked = asked
        first = asked[0][1]
        self.sending = first.send(b"".join([one.packed for _, one in asked]), sum([one.count for _, one in asked]))
        self.replies: list[Any] = []
        self.failure: BaseException | None = None
        self.over = False

    def go_on(self) -> None:
        """Send, or receive."""
        try:
            self.sending.send(None)
        except StopIteration as stop:
            self.replies, self.over = stop.value, True
        except BaseException as error:  # noqa: BLE001  # each flow has to take it
            self.failure, self.over = error, True

    def finish(self) -> None:
        """Do what is left to do."""
        while not self.over:
            self.go_on()

    def shared_out(self) -> Iterator[tuple[int, list[Any]]]:
        """The replies of each flow, which are none after a failure."""
        start = 0
        for number, one in self.asked:
            yield number, self.replies[start : start + one.count]
            start += one.count


class _Flows:
    """Flows that are under way: which have ended, and what the others ask."""

    def __init__(self, works: Sequence[Coroutine[Any, Any, Any]]) -> None:
        self._works = works
        self.results: list[Any] = [None] * len(works)
        self.waiting: dict[int, Question] = {}
        self._requests: list[_Request] = []

    def go_on(self, number: int, value: Any, error: BaseException | None) -> None:
        """Let a flow go on until it ends or asks."""
        try:
            work = self._works[number]
            self.waiting[number] = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            self.results[number] = stop.value, None
        except BaseException as failure:  # noqa: BLE001  # it is raised when all have ended
            self.results[number] = None, failure

    def ask(self) -> None:
        """Send what they ask, one request to each server, and let each flow go on with its replies."""
        subjects: dict[int, list[tuple[int, Question]]] = {}
        for number, question in self.waiting.items():
            subjects.setdefault(id(question.subject), []).append((number, question))
        self.waiting.clear()
        # In one order in all threads: each holds a connection to a server while it waits for one to the next.
        self._requests = [_Request(subjects[subject]) for subject in sorted(subjects)]
        for request in self._requests:
            request.go_on()
        for request in self._requests:
            request.finish()
            for number, replies in request.shared_out():
                self.go_on(number, replies, request.failure)

    def close(self) -> None:
        """End what an interrupt has left: each flow as if it had been interrupted itself."""
        for request in self._requests:
            request.sending.close()
        for number in self.waiting:
            self._works[number].close()


def gather(works: Sequence[Coroutine[Any, Any, T]]) -> list[Ended[T]]:
    """Do some flows to their ends; their results, and what they have raised."""
    flows = _Flows(works)
    within = _gathers.set(True)
    try:
        for number in range(len(works)):
            flows.go_on(number, None, None)
        while flows.waiting:
            flows.ask()
    finally:
        _gathers.reset(within)
        flows.close()
    return flows.results


async def ended(work: Coroutine[Any, Any, T]) -> Ended[T]:
    """Do one flow to its end."""
    try:
        return await work, None
    except BaseException as failure:  # noqa: BLE001  # it is raised when all have ended
        return None, failure


def unwrapped(results: Sequence[Ended[T]]) -> list[T]:
    """The results of flows, or the first exception among them; one that is no Exception comes first."""
    raised = [error for _, error in results if error is not None]
    for error in sorted(raised, key=lambda one: isinstance(one, Exception)):
        raise error
    return [cast("T", result) for result, _ in results]
