"""What a cache does now and then: when it is due, and what stands in its way."""

from __future__ import annotations

from typing import Any, cast

from nearcache.engine.chores import Chores
from nearcache.engine.ports import RemoteFailed, Runtime
from nearcache.runtime.run_sync import run_sync


class Hand:
    """A runtime whose time is set, and which runs at once what it is given, or has no thread for it."""

    def __init__(self) -> None:
        self.now, self.full = 100.0, False

    def monotonic(self) -> float:
        """As it was set."""
        return self.now

    async def spawn(self, work: Any, _owner: object, _timeout: float) -> object | None:
        """Run it."""
        if self.full:
            work.close()
            return None
        await work
        return self


def test_a_chore_is_done_when_it_is_due() -> None:
    """Whatever the others raise, and however late it is because no thread was free; 0: each time."""
    hand, done = Hand(), list[str]()
    chores = Chores(cast("Runtime", hand))

    async def seldom() -> None:
        done.append("seldom")
        raise RemoteFailed("away")

    async def always() -> None:
        done.append("always")

    chores.add(seldom, 60.0)
    chores.add(always, 0.0)
    run_sync(chores.begin_due())
    assert done == ["always"]
    hand.now += 61
    hand.full = True
    run_sync(chores.begin_due())
    assert done == ["always"]
    hand.full = False
    run_sync(chores.begin_due())
    run_sync(chores.begin_due())
    assert done == ["always", "seldom", "always", "always"]


def test_one_at_a_time() -> None:
    """What is due while another one is under way waits for the next heartbeat."""
    hand, done = Hand(), list[str]()
    chores = Chores(cast("Runtime", hand))

    async def long() -> None:
        done.append("begun")
        await chores.begin_due()

    chores.add(long, 0.0)
    run_sync(chores.begin_due())
    assert done == ["begun"]
