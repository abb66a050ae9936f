"""Several flows of one thread at once, so that what they ask of one server goes as one request.

A flow of a thread never suspends, since its ports block; but inside ``gather`` the connections of a cluster's bucket
suspend it instead, with the question that they would send. When all flows have ended or are suspended, the questions
are sent by server, and each flow goes on with its own replies.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")
Ended: TypeAlias = tuple[T | None, BaseException | None]
"""The result of a flow, or what it has raised. A failure may be a result, too."""

_gathers: ContextVar[bool] = ContextVar("nearcache_gathers", default=False)


class Question:
    """What a flow asks of a server.

    Args:
        subject: what it is sent by; questions of one subject go together.
        send: sends packed commands, and gives their replies; it never suspends.
        packed: the commands.
        count: of the replies.
    """

    def __init__(
        self, subject: object, send: Callable[[bytes, int], Coroutine[Any, Any, list[Any]]], packed: bytes, count: int
    ) -> None:
        self.subject, self.send, self.packed, self.count = subject, send, packed, count

    def __await__(self) -> Generator[Question, list[Any], list[Any]]:
        return (yield self)


def gathers() -> bool:
    """Whether this flow is one of several that ``gather`` does."""
    return _gathers.get()


def gather(works: Sequence[Coroutine[Any, Any, T]]) -> list[Ended[T]]:
    """Do some flows to their ends; their results, and what they have raised."""
    results: list[Any] = [None] * len(works)
    waiting: dict[int, Question] = {}

    def go_on(number: int, value: Any, error: BaseException | None) -> None:
        try:
            work = works[number]
            waiting[number] = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            results[number] = stop.value, None
        except BaseException as failure:  # noqa: BLE001  # it is raised when all have ended
            results[number] = None, failure

    within = _gathers.set(True)
    try:
        for number in range(len(works)):
            go_on(number, None, None)
        while waiting:
            asked = list(waiting.items())
            waiting.clear()
            for subject in {id(question.subject): None for _, question in asked}:
                _ask([(number, one) for number, one in asked if id(one.subject) == subject], go_on)
    finally:
        _gathers.reset(within)
        for number in waiting:  # an interrupt came: they end as if each had been interrupted
            works[number].close()
    return results


def _ask(asked: list[tuple[int, Question]], go_on: Callable[[int, Any, BaseException | None], None]) -> None:
    """Send the questions of one server, and let each flow go on with its replies, or with the failure of all."""
    replies: list[Any] = []
    failure: BaseException | None = None
    sending = asked[0][1].send(b"".join(one.packed for _, one in asked), sum(one.count for _, one in asked))
    try:
        sending.send(None)
    except StopIteration as stop:
        replies = stop.value
    except BaseException as error:  # noqa: BLE001  # each flow has to take it
        failure = error
    start = 0
    for number, one in asked:
        go_on(number, None if failure else replies[start : start + one.count], failure)
        start += one.count


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
