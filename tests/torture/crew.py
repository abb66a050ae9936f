"""All processes of a run: started, told, asked, and ended."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Self

from tests.torture.book import Book
from tests.torture.worker import Plan, work

ANSWER_TIMEOUT = 60.0
"""Seconds that the crew waits for a process."""


class Crew:
    """The processes of some plans, each with a pipe."""

    def __init__(self, context: SpawnContext, plans: Sequence[Plan], book: Book) -> None:
        self._context, self._plans, self._book = context, plans, book
        self._members: dict[str, tuple[SpawnProcess, Connection]] = {}

    def __enter__(self) -> Self:
        try:
            for plan in self._plans:
                ours, theirs = self._context.Pipe()
                process = self._context.Process(
                    target=work, args=(plan, self._book, theirs), name=plan.who, daemon=True
                )
                process.start()
                theirs.close()
                self._members[plan.who] = process, ours
            for who in self._members:
                self._answer(who)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def ask(self, order: str, *arguments: object) -> list[Any]:
        """Tell all of them, and wait for all answers: a barrier.

        Raises:
            RuntimeError: one has ended, or does not answer.
        """
        for _, pipe in self._members.values():
            pipe.send((order, arguments))
        return [self._answer(who) for who in self._members]

    def kill(self, who: str) -> None:
        """End one as a crash does."""
        process, pipe = self._members.pop(who)
        process.kill()
        process.join()
        pipe.close()

    def _answer(self, who: str) -> Any:
        process, pipe = self._members[who]
        try:
            if pipe.poll(ANSWER_TIMEOUT):
                return pipe.recv()
        except EOFError:
            process.join(5)
            raise RuntimeError(f"{who} ended with {process.exitcode}; its traceback is above") from None
        raise RuntimeError(f"{who} has not answered for {ANSWER_TIMEOUT:.0f} s")

    def _end(self) -> None:
        for _, pipe in self._members.values():
            pipe.close()
        for process, _ in self._members.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
