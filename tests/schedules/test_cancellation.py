"""A flow cancelled at any suspension leaves nothing behind: no flight, no waiter, no lease; and others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nearcache.engine.ports import MISSING
from tests.support.stepper import Cancelled, Flow, Instance, World

BEGIN: dict[str, Callable[[Instance], Flow]] = {
    "get": lambda one: one.get("k"),
    "load": lambda one: one.load("k", lambda: 1, tags=["t"]),
    "load many": lambda one: one.load_many(["k", "l"], lambda _: 1, tags=["t"]),
    "refresh": lambda one: one.load("k", lambda: 1, refresh=True),
    "set": lambda one: one.set("k", 1, tags=["t"]),
    "delete": lambda one: one.delete("k"),
    "clear": lambda one: one.clear(),
    "tags": lambda one: one.invalidate("t"),
}

POINTS = 8
"""More than any of these flows has."""


def advance(world: World, flow: Flow, points: int) -> None:
    """So many suspensions further, or to the end."""
    for _ in range(points):
        if not flow.done:
            world.step(flow)


def execute_in_order(world: World) -> None:
    """The server executes what was sent in its order: all tasks share one connection."""
    for request in list(world.requests):
        if not request.executed:
            request.execute()


def assert_nothing_is_left(world: World, *instances: Instance) -> None:
    """No flight, no waiter, no lease."""
    for instance in instances:
        assert not len(instance.core.flights)
        assert not len(instance.core.waiters)
    assert not world.server.leases


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "on the way"])
@pytest.mark.parametrize("points", range(POINTS))
@pytest.mark.parametrize("kind", BEGIN)
def test_a_cancelled_flow_leaves_nothing(kind: str, points: int, *, executed: bool) -> None:
    """At each of its suspensions, with its request executed or still on the way."""
    world = World()
    one, other = Instance(world, "a"), Instance(world, "b")
    flow = BEGIN[kind](one)
    advance(world, flow, points)
    if not flow.done:
        if executed and flow.point in world.requests:
            flow.request.execute()
        flow.cancel()
        assert isinstance(flow.error, Cancelled)
    execute_in_order(world)
    world.finish()
    assert_nothing_is_left(world, one, other)
    for instance in (one, other):
        instance.beat()
        assert world.run(instance.load("k", lambda: 2)) in {1, 2}
    world.finish()
    assert_nothing_is_left(world, one, other)


@pytest.mark.parametrize("points", range(POINTS))
@pytest.mark.parametrize("leads", ["load", "load many"])
@pytest.mark.parametrize("follows", ["load", "load many"])
def test_a_follower_leads_when_its_leader_is_cancelled(leads: str, follows: str, points: int) -> None:
    """The load is handed over, at whatever point it was: nobody waits for one who has gone."""
    world = World()
    one = Instance(world, "a")
    leader, follower = BEGIN[leads](one), BEGIN[follows](one)
    advance(world, leader, points)
    if leader.done:
        return
    leader.cancel()
    execute_in_order(world)
    before = world.now
    world.finish()
    assert follower.value() == (1 if follows == "load" else {"k": 1, "l": 1})
    assert world.now - before < 1, "it did not wait for a timeout"
    assert_nothing_is_left(world, one)


@pytest.mark.parametrize("leads", ["load", "load many"])
@pytest.mark.parametrize("follows", ["load", "load many"])
def test_another_instance_goes_on_when_the_loader_is_cancelled(leads: str, follows: str) -> None:
    """The lease is given back, and whoever waits for it is told."""
    world = World()
    one, other = Instance(world, "a"), Instance(world, "b")
    loading = world.reach(BEGIN[leads](one), "loader")
    waiting = world.reach(BEGIN[follows](other), "wait")
    loading.cancel()
    before = world.now
    world.finish()
    assert waiting.value() == (1 if follows == "load" else {"k": 1, "l": 1})
    assert world.now - before < 1, "it did not wait for the lease's end"


def test_a_loader_that_raises_frees_its_key_and_reaches_its_followers() -> None:
    """The error is everybody's who joined; the lease is given back."""
    world = World()
    one = Instance(world, "a")

    def fail() -> int:
        raise LookupError("no such row")

    leader, follower = one.load("k", fail), one.load("k", lambda: 2)
    world.finish()
    for flow in (leader, follower):
        assert isinstance(flow.error, LookupError)
    assert_nothing_is_left(world, one)


@pytest.mark.parametrize("points", range(POINTS))
@pytest.mark.parametrize("timeout", [True, False], ids=["timeout", "cut"])
@pytest.mark.parametrize("kind", ["load", "load many"])
def test_a_load_survives_the_loss_of_any_request(kind: str, points: int, *, timeout: bool) -> None:
    """Redis fails at any point of a load: the caller gets the loader's value, and nothing of this process is left."""
    world = World()
    one = Instance(world, "a")
    flow = BEGIN[kind](one)
    advance(world, flow, points)
    if flow.point in world.requests:
        flow.request.fail(timeout=timeout)
    assert world.run(flow) == (1 if kind == "load" else {"k": 1, "l": 1})
    assert not len(one.core.flights)
    assert not len(one.core.waiters)


def test_a_cancelled_write_counts_as_not_acknowledged() -> None:
    """Whether it was executed is unknown: a miss here, and deleted when its deadline has passed."""
    world = World()
    one = Instance(world, "a")
    assert world.run(one.set("k", 1))
    world.finish()
    writing = one.set("k", 2)
    writing.cancel()
    assert one.look("k") is MISSING
    assert world.run(one.get("k")) is MISSING
    world.finish()
    assert world.server.living("k") is not None, "the request was on the way, and executed after all"
    for _ in range(3):
        one.beat()
        assert world.run(one.get("k")) is MISSING
    assert world.server.living("k") is None
    assert world.run(one.load("k", lambda: 3)) == 3
    assert one.look("k") == 3
