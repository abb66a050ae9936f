"""Random schedules: operations of two instances in any order, with losses, late executions and cancellations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nearcache.engine.ports import MISSING
from tests.schedules.invariant import must
from tests.schedules.ledger import COUNTER, KEYS, TAGS, Ledger
from tests.support.ablations.rules import Rules
from tests.support.stepper import Flow, Instance, Loading, Pause, Receiving, Request

BEATS = 6
"""At the end; enough for the breaker to close and for leases without an answer to be given back."""
AT_ONCE = 6
"""Operations that are under way at the same time."""

Choice = tuple[int, str, Callable[[], object]]


@dataclass
class Crowd(Ledger):
    """One random schedule."""

    # ------------------------------------------------------------------------------------------------------- choosing

    def choices(self) -> list[Choice]:
        """What can happen next, with weights."""
        found: list[Choice] = []
        if sum(not flow.done for flow in self.world.flows) < AT_ONCE + len(self.instances):
            for at in self.instances:
                found += self.beginnings(at)
        for flow in self.world.flows:
            if not flow.done and flow.point is not None:
                found += self.steps(flow)
        for request in self.world.requests:
            if not request.open:
                found.append((3, f"late {request}", partial(self.late, request)))
                found.append((2, f"lost {request}", request.lose))
        for at in self.instances:
            found += self.bus(at)
        return found

    def beginnings(self, at: Instance) -> list[Choice]:
        """Operations that may begin."""
        found: list[Choice] = []
        busy = {key for write in self.writes for key in write.versions}
        for key in KEYS:
            found.append((5, f"{at.name} get {key}", partial(self.get, at, key)))
            found.append((5, f"{at.name} load {key}", partial(self.load, at, key)))
            found.append((1, f"{at.name} refresh {key}", partial(self.load, at, key, refresh=True)))
            if self.ages:
                found.append((2, f"{at.name} stale {key}", partial(self.load_or_stale, at, key, fails=False)))
                found.append((1, f"{at.name} failing {key}", partial(self.load_or_stale, at, key, fails=True)))
                found.append((1, f"{at.name} touch {key}", partial(at.touch, key, 60)))
            if self.ages and key not in busy:
                found.append((2, f"{at.name} add {key}", partial(self.add, at, key)))
                found.append((1, f"{at.name} delete_existing {key}", partial(self.delete_existing, at, key)))
            if key not in busy:
                found.append((3, f"{at.name} set {key}", partial(self.set, at, key)))
                found.append((3, f"{at.name} delete {key}", partial(self.delete, at, key)))
                found.append((1, f"{at.name} mark_stale {key}", partial(self.mark_stale, at, key)))
        if self.ages:
            found.append((4, f"{at.name} load many", partial(self.load_many, at)))
            found.append((1, f"{at.name} load many but x", partial(self.load_many, at, absent="x")))
            found.append((3, f"{at.name} incr", lambda: self.tally.flows.append(at.incr(COUNTER))))
        if not busy:
            found.append((2, f"{at.name} clear", lambda: self.write(at, KEYS, lambda _: at.clear())))
        found.append((2, f"{at.name} load y, tag by loader", partial(self.load_and_tag, at, "y")))
        if "y" not in busy:
            found.append((2, f"{at.name} tag", lambda: self.write(at, ["y"], lambda _: at.invalidate("t"))))
            stale = partial(at.invalidate, "t", stale=True)
            found.append((1, f"{at.name} mark_stale tag", lambda: self.write(at, ["y"], lambda _: stale())))
        return found

    def set(self, at: Instance, key: str) -> None:
        """Begin a set of the row's new version."""
        self.write(at, [key], lambda versions: at.set(key, versions[key], tags=TAGS[key]))

    def delete(self, at: Instance, key: str) -> None:
        """Begin a delete after the row has changed."""
        self.write(at, [key], lambda _: at.delete(key))

    def add(self, at: Instance, key: str) -> None:
        """Begin an add of the row's new version."""
        self.write(at, [key], lambda versions: at.add(key, versions[key], tags=TAGS[key]), "add")

    def delete_existing(self, at: Instance, key: str) -> None:
        """Begin a delete that tells whether it made a difference, after the row has changed."""
        self.write(at, [key], lambda _: at.delete_existing(key), "delete_existing")

    def mark_stale(self, at: Instance, key: str) -> None:
        """Begin to mark the row's value as stale after the row has changed."""
        self.write(at, [key], lambda _: at.mark_stale(key))

    def steps(self, flow: Flow) -> list[Choice]:
        """What can happen to a flow where it is."""
        point = flow.point
        found: list[Choice] = []
        if isinstance(point, Request):
            go = point.reply if point.executed else point.execute
            found.append((12, f"{'reply' if point.executed else 'execute'} {point}", go))
            found.append((1, f"fail {point}", point.fail))
            found.append((1, f"timeout {point}", partial(point.fail, timeout=True)))
        elif isinstance(point, Loading):
            found.append((8, f"{point}", point.resume))
        elif isinstance(point, Pause):
            found.append((10 if point.ready else 1, f"{flow} wakes", partial(self.wake, flow, point)))
        if not self.is_listener(flow) and flow.name != "settle":
            found.append((1, f"cancel {flow}", flow.cancel))
        return found

    def is_listener(self, flow: Flow) -> bool:
        """Whether it keeps a bus."""
        return any(flow is at.listening for at in self.instances)

    def bus(self, at: Instance) -> list[Choice]:
        """What can happen to a bus."""
        bus, point = at.bus, at.listening.point
        if bus is None or not isinstance(point, Receiving):
            return []
        if bus.cut_off:
            return [(4, f"{at.name} notices", at.lose)]
        found: list[Choice] = [(1, f"{at.name} cut", bus.cut), (2, f"{at.name} silence", point.silence)]
        if bus.line.questions:
            found.append((8, f"{at.name} question", lambda: self.world.server.answer(bus.line)))
        if bus.line.items:
            found.append((12, f"{at.name} hears", lambda: point.resume([bus.line.items.popleft()])))
        return found

    # --------------------------------------------------------------------------------------------------------- faults

    def wake(self, flow: Flow, point: Pause) -> None:
        """A wait ends; when its time is over, many seconds have passed for everybody else, and leases have ended."""
        self.excused |= not point.due and not self.is_listener(flow)
        point.end()

    def late(self, request: Request) -> None:
        """A request that nobody waits for is executed."""
        self.excused |= "lease" in str(request)
        request.execute()

    # -------------------------------------------------------------------------------------------------------- the whole

    def play(self, draws: Sequence[int]) -> None:
        """Let the draws decide, then let everything come to its end."""
        for draw in draws:
            choices = self.choices()
            at = draw % sum(weight for weight, _, _ in choices)
            for weight, name, act in choices:
                at -= weight
                if at < 0:
                    self.trace.append(name)
                    act()
                    break
            self.check()
        self.end()

    def end(self) -> None:
        """Everything is delivered and every bus is back: nothing is left, nothing is old, nobody sleeps."""
        self.trace.append("end")
        while late := [request for request in self.world.requests if not request.open]:
            self.late(late[0])
        for at in self.instances:
            self.heal(at)
        self.world.finish()
        self.check()
        for at in self.instances * BEATS:
            at.connect()
            at.beat()
            self.world.finish()
            self.check()
        left = [key for key in KEYS if self.world.server.holder(key)]
        must(self.excused or not left, f"leases are left: {left}")
        sleeping = self.sleeping()
        must(self.excused or not sleeping, f"nothing is on the way that could wake {sleeping}")
        while sleeping:
            self.world.step(sleeping[0])
            self.world.finish()
            self.check()
            sleeping = self.sleeping()
        self.look_around()

    def sleeping(self) -> list[Flow]:
        """Operations that have not ended."""
        return [flow for flow in self.world.flows if not flow.done and not self.is_listener(flow)]

    def look_around(self) -> None:
        """Nothing is left, and nothing old is served."""
        for at in self.instances:
            must(not len(at.core.flights), "a flight is left")
            must(not len(at.core.waiters), "a waiter is left")
            must(at.core.tier.snapshot("x").trusted, "a key is left unproven though the bus was proven")
            for key in KEYS:
                value: Any = at.look(key)
                must(value is MISSING or value >= self.executed[key], f"{at.name} still serves {key}={value}")
                self.get(at, key)
                self.world.finish()
                self.check()

    def heal(self, at: Instance) -> None:
        """The bus is back."""
        if at.bus is not None and at.bus.cut_off and isinstance(at.listening.point, Receiving):
            at.lose()
        at.connect()


def play(draws: Sequence[int], rules: Rules, *, ages: bool = True) -> None:
    """One random schedule under some rules."""
    with rules.world() as world:
        crowd = Crowd(world, [rules.instance(world, name) for name in "ab"], ages)
        try:
            crowd.play(draws)
        except Exception as error:
            error.add_note("\n".join(crowd.trace))
            raise
