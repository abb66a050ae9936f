"""What a random schedule knows of its rows, so that each answer can be judged.

Rows of a database have versions that only rise; a write raises its rows' versions before it is sent, and a loader reads
the version as it is when it is called. Values are those versions, so that "older" can be seen. Sets of one key do not
overlap: their order would be the server's, which is promised, but not the database's.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearcache import current_load
from nearcache.engine.ports import MISSING
from nearcache.protocol.answers import Counted, Held, Item, Present, Written
from nearcache.protocol.records import count_of
from tests.schedules.invariant import must
from tests.support.stepper import Cancelled, Flow, Instance, Request, World

KEYS = ("x", "y")
COUNTER = "n"
COUNTED = 200.0
"""Seconds that a counter lives at least."""
TAGS: dict[str, list[str]] = {"x": [], "y": ["t"]}
SHORT = 0.4
"""Seconds of a life that passes within a schedule."""
STALE = {"stale_while_revalidate": 1000, "early_refresh": 0.5}


class Fails(LookupError):
    """What a loader raises."""


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
    script: str = ""
    """The name of its request, where another one comes before it."""
    executed: bool = False
    ended: bool = False
    """Whether its end has been taken note of; what is executed later than that is told by a message alone."""

    def look(self, added: set[tuple[str, int]]) -> None:
        """Take note of its request, and of its execution; an add that finds something does nothing."""
        point = self.flow.point
        if self.script and not self.executed and isinstance(point, Request) and str(point).endswith(f": {self.script}"):
            self.request = point
        if self.script == "add":
            self.executed = not added.isdisjoint(self.versions.items())
        elif self.request is not None and self.request.executed:
            self.executed = True

    @property
    def over(self) -> bool:
        """Whether nothing of it can happen any more."""
        lost = self.request is None or self.request not in self.at.world.requests
        return self.flow.done and (self.executed or lost)


class Tally:
    """The executions of incr by the server, and what their callers were told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._incr = world.server.incr
        self._executed: list[int] = []
        """The count after each."""
        self._told: list[int] = []
        self._life: tuple[int, float] = (0, 0.0)
        """Of the counter: the floor then, and when it began."""
        self.flows: list[Flow] = []
        world.server.incr = self._count  # type: ignore[method-assign, assignment]

    def _count(self, *args: Any, **options: Any) -> object:
        answer = self._incr(*args, **options)
        if isinstance(answer, Counted):
            self._executed.append(answer.total)
            if answer.total == 1:
                self._life = self._world.server.floor, self._world.now
        return answer

    def check(self) -> None:
        """Each number that was told is that of an execution of its own, and none is lost while the counter lives."""
        for flow in self.flows:
            if flow.done and flow.error is None:
                self._told.append(flow.result)
        self.flows = [flow for flow in self.flows if not flow.done]
        must(not Multiset(self._told) - Multiset(self._executed), "AA: a number is told twice")
        floor, began = self._life
        if self._executed and self._world.server.floor == floor and self._world.now < began + COUNTED:
            payload = self._world.server.living(COUNTER)
            must(payload is not None and count_of(payload) == self._executed[-1], "AA: a count is lost")


@dataclass
class Ledger:
    """The rows of a random schedule, its operations under way, and what each of them may answer."""

    world: World
    instances: list[Instance]
    ages: bool = True
    """Whether there are loads of short lives, whose values may be served past their end, add, touch, incr,
    delete_existing and loads of many keys."""
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
    tally: Tally = field(init=False)
    added: set[tuple[str, int]] = field(default_factory=set)
    """What an add has stored: the key, and its version."""

    def __post_init__(self) -> None:
        self.tally, add = Tally(self.world), self.world.server.add

        def noted(item: Item, *args: Any, **options: Any) -> Written | Present | Held:
            answer = add(item, *args, **options)
            if isinstance(answer, Written):
                self.added.add((item.key, self.living(item.key) or 0))
            return answer

        self.world.server.add = noted  # type: ignore[method-assign]

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

    def load_and_tag(self, at: Instance, key: str) -> None:
        """Begin a get_or_set whose loader adds the tags."""

        def load() -> int:
            current_load().tags |= set(TAGS[key])
            return self.rows[key]

        self.read(at, key, lambda k: at.load(k, load), self.least(at, key))

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

    def load_many(self, at: Instance, *, absent: str = "") -> None:
        """Begin a get_or_set_many of all keys; its loader may leave one out."""
        least = {key: self.least(at, key) for key in KEYS}
        flow = at.load_many(KEYS, lambda key: MISSING if key == absent else self.rows[key], tags=TAGS["y"])
        for key in KEYS:
            self.read(at, key, lambda _: flow, least[key])

    def write(
        self, at: Instance, keys: Sequence[str], begin: Callable[[dict[str, int]], Flow], script: str = ""
    ) -> None:
        """Begin a write of these rows."""
        for key in keys:
            self.rows[key] += 1
        versions = {key: self.rows[key] for key in keys}
        flow = begin(versions)
        request = flow.point if isinstance(flow.point, Request) and not script else None
        self.writes.append(Write(at, versions, flow, request, script))

    # ------------------------------------------------------------------------------------------------------- checking

    def check(self) -> None:
        """After each step."""
        for write in self.writes:
            write.look(self.added)
            if write.executed:
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
        self.tally.check()
        for key in KEYS:
            living = self.living(key)
            must(
                living is None or living >= self.executed[key],
                f"G5: L2 has {key}={living}, older than an executed write",
            )

    def wrote(self, write: Write) -> None:
        """A write has ended."""
        told = write.flow.error is None and write.flow.result
        must(not told or write.executed or write.script != "add", "AA: an add is told True that nobody has executed")
        for key, version in write.versions.items():
            place = write.at.name, key
            if write.executed or write.script != "add":  # one that changes nothing leaves what was kept aside
                self.failed[place] = max(self.failed.get(place, 0), version)
            if write.executed:
                self.own[place] = max(self.own.get(place, 0), version)
                if "mark_stale" not in write.flow.name:
                    self.unmarked[place] = max(self.unmarked.get(place, 0), version)
            if told:
                self.acknowledged.append((self.world.now, key, version))

    def answered(self, read: Read) -> None:
        """A read has ended."""
        if isinstance(read.flow.error, Cancelled | Fails):
            return
        value = read.flow.value()
        if isinstance(value, dict):
            value = value.get(read.key, MISSING)
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
