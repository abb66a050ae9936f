"""Random schedules: operations of two instances on two keys, in any order, with losses, late executions, cancellations.

Rows of a database have versions that only rise; a write raises its rows' versions before it is sent, and a loader reads
the version as it is when it is called. Values are those versions, so that "older" can be seen. Sets of one key do not
overlap: their order would be the server's, which is promised, but not the database's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nearcache.engine.ports import MISSING
from tests.support.ablations.rules import Rules
from tests.support.stepper import Cancelled, Flow, Instance, Loading, Pause, Receiving, Request, World

KEYS = ("x", "y")
TAGS: dict[str, list[str]] = {"x": [], "y": ["t"]}
BEATS = 6
"""At the end; enough for the breaker to close and for leases without an answer to be given back."""
AT_ONCE = 6
"""Operations that are under way at the same time."""


SHORT = 0.4
"""Seconds of a life that passes within a schedule."""
STALE = {"stale_while_revalidate": 1000, "early_refresh": 0.5}


class Fails(LookupError):
    """What a loader raises."""


class Violated(AssertionError):
    """An invariant of the protocol does not hold."""


def must(holds: object, what: str) -> None:
    """An invariant."""
    if not holds:
        raise Violated(what)


@dataclass
class Read:
    """A read under way, and the version below which its answer must not be."""

    at: Instance
    key: str
    flow: Flow
    least: int
    least_unproven: int
    """The same as long as an own write that was not acknowledged has not been proven."""


@dataclass
class Write:
    """A write under way: the rows' versions, and whether the server has executed it."""

    at: Instance
    versions: dict[str, int]
    flow: Flow
    request: Request | None
    executed: bool = False
    ended: bool = False
    """Whether its end has been taken note of; what is executed later than that is told by a message alone."""

    @property
    def over(self) -> bool:
        """Whether nothing of it can happen any more."""
        lost = self.request is None or self.request not in self.at.world.requests
        return self.flow.done and (self.executed or lost)


Choice = tuple[int, str, Callable[[], object]]


@dataclass
class Crowd:
    """One random schedule."""

    world: World
    instances: list[Instance]
    ages: bool = True
    """Whether there are loads of short lives, whose values may be served past their end."""
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 1))
    executed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    """The newest version whose write the server has executed."""
    acknowledged: list[tuple[float, str, int]] = field(default_factory=list)
    own: dict[tuple[str, str], int] = field(default_factory=dict)
    """By instance and key: the newest own write that has ended and was executed."""
    unmarked: dict[tuple[str, str], int] = field(default_factory=dict)
    """The same without those that only marked a value as stale."""
    failed: dict[tuple[str, str], int] = field(default_factory=dict)
    """The newest own write that has ended, whatever became of it."""
    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    """The newest version that a read here has returned."""
    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    excused: bool = False
    """Whether a lease may be left and waited for until its end: its request came when nobody waited for it any more, or
    the time jumped over the end of one."""
    trace: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------------------ beginning

    def least(self, at: Instance, key: str) -> int:
        """Below which version a read that begins now must not answer."""
        place = at.name, key
        least = max(self.own.get(place, 0), self.seen.get(place, 0))
        if at.serves(key):
            bound = self.world.now - at.core.settings.max_staleness
            least = max([least, *(version for when, of, version in self.acknowledged if of == key and when < bound)])
        return least

    def get(self, at: Instance, key: str) -> None:
        """Begin a get; without a bus it sees whatever was executed before."""
        least = self.least(at, key)
        if not at.core.tier.synced and not at.serves(key):
            least = max(least, self.executed[key])
        self.read(at, key, at.get, least)

    def read(self, at: Instance, key: str, begin: Callable[[str], Flow], least: int) -> None:
        """Begin a read."""
        unproven = 0 if at.core.tier.snapshot(key).trusted else self.failed.get((at.name, key), 0)
        self.reads.append(Read(at, key, begin(key), least, unproven))

    def load(self, at: Instance, key: str, *, refresh: bool = False) -> None:
        """Begin a get_or_set or a refresh."""
        least = self.least(at, key)
        self.read(at, key, lambda k: at.load(k, lambda: self.rows[k], refresh=refresh, tags=TAGS[k]), least)

    def load_or_stale(self, at: Instance, key: str, *, fails: bool) -> None:
        """Begin a get_or_set that may serve what is past its short life; its loader may fail.

        After an error a stale value may be older than G1 allows, and so what was marked stale; but what was deleted or
        overwritten here is not served (G3).
        """
        least = self.unmarked.get((at.name, key), 0) if fails else self.least(at, key)

        def loader() -> int:
            if fails:
                raise Fails
            return self.rows[key]

        options = {"stale_if_error": 1000} if fails else STALE
        self.read(at, key, lambda k: at.load(k, loader, tags=TAGS[k], ttl=SHORT, **options), least)

    def write(self, at: Instance, keys: Sequence[str], begin: Callable[[dict[str, int]], Flow]) -> None:
        """Begin a write of these rows."""
        for key in keys:
            self.rows[key] += 1
        versions = {key: self.rows[key] for key in keys}
        flow = begin(versions)
        self.writes.append(Write(at, versions, flow, flow.point if isinstance(flow.point, Request) else None))

    # ------------------------------------------------------------------------------------------------------- checking

    def check(self) -> None:
        """After each step."""
        for write in self.writes:
            if not write.executed and write.request is not None and write.request.executed:
                write.executed = True
                for key, version in write.versions.items():
                    self.executed[key] = max(self.executed[key], version)
            if write.flow.done and not write.ended:
                write.ended = True
                self.wrote(write)
        self.writes = [write for write in self.writes if not write.over]
        for read in self.reads:
            if read.flow.done:
                self.answered(read)
        self.reads = [read for read in self.reads if not read.flow.done]
        for key in KEYS:
            living = self.living(key)
            must(
                living is None or living >= self.executed[key],
                f"G5: L2 has {key}={living}, older than an executed write",
            )

    def wrote(self, write: Write) -> None:
        """A write has ended."""
        for key, version in write.versions.items():
            place = write.at.name, key
            self.failed[place] = max(self.failed.get(place, 0), version)
            if write.executed:
                self.own[place] = max(self.own.get(place, 0), version)
                if "mark_stale" not in write.flow.name:
                    self.unmarked[place] = max(self.unmarked.get(place, 0), version)
            if write.flow.error is None and write.flow.result:
                self.acknowledged.append((self.world.now, key, version))

    def answered(self, read: Read) -> None:
        """A read has ended."""
        if isinstance(read.flow.error, Cancelled | Fails):
            return
        value = read.flow.value()
        if value is MISSING:
            return
        proven = read.at.core.tier.snapshot(read.key).trusted
        least = read.least if proven else max(read.least, read.least_unproven)
        must(value >= least, f"G1/G3/G4: {read.flow} answered {value}, must be at least {least}")
        must(value <= self.rows[read.key], "a value from nowhere")
        if value <= max(self.executed[read.key], self.living(read.key) or 0):
            place = read.at.name, read.key
            self.seen[place] = max(self.seen.get(place, 0), value)

    def living(self, key: str) -> int | None:
        """What L2 has of a key."""
        payload = self.world.server.living(key)
        return None if payload is None else int(self.instances[0].core.settings.codec.decode(payload))

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
            if key not in busy:
                found.append((3, f"{at.name} set {key}", partial(self.set, at, key)))
                found.append((3, f"{at.name} delete {key}", partial(self.delete, at, key)))
                found.append((1, f"{at.name} mark_stale {key}", partial(self.mark_stale, at, key)))
        if not busy:
            found.append((2, f"{at.name} clear", lambda: self.write(at, KEYS, lambda _: at.clear())))
        if "y" not in busy:
            found.append((2, f"{at.name} tag", lambda: self.write(at, ["y"], lambda _: at.invalidate("t"))))
        return found

    def set(self, at: Instance, key: str) -> None:
        """Begin a set of the row's new version."""
        self.write(at, [key], lambda versions: at.set(key, versions[key], tags=TAGS[key]))

    def delete(self, at: Instance, key: str) -> None:
        """Begin a delete after the row has changed."""
        self.write(at, [key], lambda _: at.delete(key))

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
