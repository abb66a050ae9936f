"""What an instance hears on its bus without one of the guards: the numbers, the identity, the floors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nearcache.local.effects import Effects
from nearcache.local.floors import Floors
from nearcache.local.invalidation import Invalidation
from nearcache.protocol.answers import Greeting, TagFloor
from nearcache.protocol.messages import Message


class NoGapWhileLost(Invalidation):
    """A gap is looked for only while the bus is proven; between loss and greeting, the number is just taken over."""

    def _message(self, message: Message, heard: Effects) -> None:
        if not self._tier.synced and message.number:
            self.last = message.number - 1
        super()._message(message, heard)


class NoGap(Invalidation):
    """Numbers are not looked at."""

    def _message(self, message: Message, heard: Effects) -> None:
        if message.number:
            self.last = message.number - 1
        super()._message(message, heard)


class BackProvesAll(Invalidation):
    """At the return of the bus L1 is kept, wherever the counter stands."""

    def back(self, greeting: Greeting, asked_at: float, *, prove: bool) -> tuple[Effects, int]:
        """Take the number over first."""
        self.last = greeting.number
        return super().back(greeting, asked_at, prove=prove)


class AnyServerIsTheSame(Invalidation):
    """The identity is not looked at."""

    def back(self, greeting: Greeting, asked_at: float, *, prove: bool) -> tuple[Effects, int]:
        """Take identity and history over first."""
        self.identity, self.history = greeting.identity, greeting.history
        return super().back(greeting, asked_at, prove=prove)


class NeverOverdue(Invalidation):
    """A number that the messages do not reach is waited for without end, and taken for proof."""

    def overdue(self, now: float) -> Effects:
        """Nothing."""
        del now
        if self.ahead is not None:
            self.last, self.ahead = self.ahead[0], None
        return Effects()


class NeverDisowns(Invalidation):
    """Who answers commands is not compared with who is listened to."""

    def check_identity(self, identity: str | None) -> Effects:
        """Nothing."""
        del identity
        return Effects()


def _known_after_a_gap(self: Floors) -> None:
    self.tags.clear()


def _lower(self: Floors, floor: int, _asked_at: float) -> None:
    self.namespace = floor
    self.known = True


_OVER = Floors.over


def _stale_is_fresh(
    self: Floors, tags: Sequence[str], floor: int | None, tag_floors: Mapping[str, TagFloor | None]
) -> TagFloor:
    """Only what is dead is not fresh."""
    return TagFloor.at(_OVER(self, tags, floor, tag_floors).dead)


def _unknown_is_stale(self: Floors, tags: Iterable[str], number: int, *, stale: bool) -> None:
    """A tag that is made stale, and whose floor is not known, was never invalidated."""
    floors = {tag: self.tags.get(tag, TagFloor(0, 0)) for tag in tags}
    self.raise_tags({tag: TagFloor(number, floor.dead if stale else number) for tag, floor in floors.items()})


def _raise_as_one(self: Floors, floors: Mapping[str, TagFloor]) -> None:
    """Of two pairs the one with the higher number counts."""
    for tag, floor in floors.items():
        self.tags[tag] = max(self.tags.get(tag, floor), floor)


def _local_floor_is_enough(
    self: Floors, tags: Sequence[str], floor: int | None, tag_floors: Mapping[str, TagFloor | None]
) -> TagFloor:
    """An absent tag floor is overridden by one that was known."""
    told = {tag: floor for tag, floor in tag_floors.items() if floor is not None}
    return _OVER(self, tags, floor, told)
