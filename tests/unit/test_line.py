"""A line of several buckets: when an empty one is greeted again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nearcache.engine.breaker import Breaker
from nearcache.engine.line import Line
from nearcache.protocol.answers import Empty
from nearcache.runtime.run_sync import run_sync


def test_an_empty_bucket_is_greeted_once_it_may_be_taken() -> None:
    """Not while a heartbeat is out, whose answer asks for a greeting: one of the two would come before the probe."""
    may, greeted = [False], []

    async def greet() -> None:
        greeted.append(1)

    left: list[str] = []
    bucket = SimpleNamespace(empty=Empty(lambda: may[0], lambda: "why"))
    lines: Any = SimpleNamespace(buckets=[bucket], leave_empty=lambda _, why: left.append(why))
    core = SimpleNamespace(tier=SimpleNamespace(proof=SimpleNamespace(bucket=0)))
    feed = SimpleNamespace(subscriber=SimpleNamespace(core=core), asked=[], ask_greeting=greet)
    feeds: Any = {"bus": feed}
    line = Line(lines, "place", Breaker(3, 1.0))

    run_sync(line._take_empty(feeds))
    assert (left, greeted) == (["why"], [])
    may[0] = True
    feed.asked = [1.0]
    run_sync(line._take_empty(feeds))
    assert (bucket.empty is not None, greeted) == (True, [])
    feed.asked = []
    run_sync(line._take_empty(feeds))
    run_sync(line._take_empty(feeds))
    assert (bucket.empty, greeted) == (None, [1])
