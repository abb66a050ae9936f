"""cachekit as a peer: reader and writer, each in a process of its own, as a process has one listener and one URL.

cachekit has no set: a value is loaded by a decorated function, and a write is a row that has changed and an
``invalidate_cache``, which deletes the value in Redis and publishes that. The row goes along with each question.

Run as a program it is one of the two processes: a line of JSON each for question and answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

TTL = 600
"""Seconds, as long as no peer's values end by themselves."""


class Process:
    """One of the two processes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = count()

    async def ask(self, **question: str | None) -> Any:
        """What it answers; what it raises is a RuntimeError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        number = next(self._numbers)
        self._process.stdin.write(json.dumps({**question, "number": number}).encode() + b"\n")
        while True:  # the answers to questions that took too long come first
            answer = json.loads(await self._process.stdout.readline())
            if answer["number"] == number:
                break
        if answer["raised"] is not None:
            raise RuntimeError(answer["raised"])
        return answer["value"]


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Process]:
    """A process on a server."""
    environ = {**os.environ, "CACHEKIT_REDIS_URL": url, "CACHEKIT_INVALIDATION_LISTENER_ENABLED": "true"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=environ
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        await process.wait()


def answer_questions() -> None:
    """Read and invalidate as asked, until the input ends."""
    from cachekit import cache

    row: str | None = None

    def load(key: str) -> str | None:
        del key
        return row

    value: Any = cache(ttl=TTL, namespace="peers")(load)
    for line in sys.stdin:
        question = json.loads(line)
        row, found, raised = question["row"], None, None
        try:
            if question["what"] == "read":
                found = value(question["key"])
            else:  # it raises nothing when Redis does not answer
                found = value.invalidate_cache(question["key"]).value
        except Exception as error:  # whatever it raises is told
            raised = type(error).__name__
        print(json.dumps({"number": question["number"], "value": found, "raised": raised}), flush=True)


if __name__ == "__main__":
    answer_questions()
