"""What the named schedules share: how one is registered with its ablations, two instances, and single steps.

A letter in parentheses is the rule's in docs/protocol.md. Each schedule runs under the library's rules, and under rules
that lack one guard, where the same invariant has to be violated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.ablations.rules import Rules
from tests.support.stepper import Flow, Instance, Pause, World

Schedule = Callable[[Rules], None]


SCHEDULES: list[Schedule] = []
NAMED: list[tuple[Schedule, Rules]] = []


def schedule(*rules: Rules) -> Callable[[Schedule], Schedule]:
    """A schedule that fails under each of these rules, one of which lacks a guard."""

    def note(run: Schedule) -> Schedule:
        SCHEDULES.append(run)
        NAMED.extend((run, rule) for rule in rules)
        return run

    return note


def two(rules: Rules, world: World) -> tuple[Instance, Instance]:
    """Two connected instances."""
    a, b = rules.instance(world, "a"), rules.instance(world, "b")
    world.deliver_all()
    return a, b


def encoded(world: World, value: object) -> bytes:
    """A value as a record holds it."""
    return world.instances[0].core.settings.codec.encode(value)


def get(instance: Instance, key: str) -> Any:
    """A get with nothing in its way."""
    return instance.world.run(instance.get(key))


def put(instance: Instance, key: str, value: object, **options: Any) -> None:
    """An acknowledged set with nothing in its way, heard by everybody."""
    assert instance.world.run(instance.set(key, value, **options))
    instance.world.deliver_all()


def miss_a_message(instance: Instance, write: Flow) -> None:
    """A write is acknowledged, its message to this instance is lost, and another's shows the gap."""
    world = instance.world
    world.run(write)
    assert instance.bus is not None
    instance.bus.line.items.clear()
    world.run(next(other for other in world.instances if other is not instance).delete("another key"))
    instance.deliver()


def fail(write: Flow) -> None:
    """A write's request is lost, and its connection with it."""
    write.request.lose()
    write.request.fail()
    assert write.value() is False


def past(world: World, seconds: float = 2.0) -> None:
    """Time passes: every deadline of a set is over."""
    world.now += seconds


def follower_of(world: World, b: Instance) -> Flow:
    """A load on b that waits for another's lease."""
    flow = world.reach(b.load("k", lambda: 2), "wait")
    assert isinstance(flow.point, Pause)
    return flow
