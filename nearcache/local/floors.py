"""Floors: below which write number a value counts as cleared. They only rise, until the server is another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nearcache.protocol.answers import TagFloor
from nearcache.protocol.versions import NO_FLOOR

TAG_FLOORS_MAX = 10_000
"""Known tag floors are forgotten above this many; they are read again when needed."""
ABSENT = TagFloor.at(NO_FLOOR)


class Floors:
    """The namespace's floor and the tags' floors as far as they are known.

    ``known`` is False from a gap in the numbers until a heartbeat has told the floor anew: the message that was missed
    may have been a clear. Meanwhile floors are read with the values (docs/protocol.md, counterexample M).
    """

    __slots__ = ("_raised_at", "known", "namespace", "tags")

    def __init__(self) -> None:
        self.known = False
        self._raised_at = float("-inf")
        self.namespace = 0
        self.tags: dict[str, TagFloor] = {}

    def forget(self) -> None:
        """A message may have been missed: any tag, or everything, may have been cleared."""
        self.known = False
        self.tags.clear()

    def restart(self) -> None:
        """The server is another one: its numbers say nothing about the old floor."""
        self.forget()
        self.namespace = 0

    def raise_to(self, floor: int) -> None:
        """The namespace's floor is at least this."""
        self.namespace = max(self.namespace, floor)

    def raised(self, now: float) -> None:
        """This process has raised a floor: an answer that was asked before does not know of it."""
        self._raised_at = now

    def learn(self, floor: int, asked_at: float) -> None:
        """The server told its floor behind every earlier message.

        An answer that was asked before an own clear makes nothing known: after a change of servers, which restarts the
        floors, the cleared values would be read until the message of the clear comes (Z).
        """
        self.raise_to(floor)
        self.known = self.known or asked_at > self._raised_at

    def raise_tags(self, floors: Mapping[str, TagFloor]) -> None:
        """These tags' floors are at least this."""
        for tag, floor in floors.items():
            self.tags[tag] = floor.raised(self.tags.get(tag, floor))
        if len(self.tags) > TAG_FLOORS_MAX:
            self.tags.clear()

    def unknown(self, tags: Iterable[str]) -> list[str]:
        """Those of the tags whose floor is not known."""
        return [tag for tag in tags if tag not in self.tags]

    def invalidate(self, tags: Iterable[str], number: int, *, stale: bool) -> None:
        """These tags were invalidated under this number; ``stale``: their values were only made stale."""
        if not stale:
            self.raise_tags(dict.fromkeys(tags, TagFloor.at(number)))
            return
        # The floor of t is not known here, and stands at 6 · t is made stale under 7: as (7, nothing) its floor would
        # let a value of 5, which is dead, serve as a stale one. It stays unknown, and is read when it is needed.
        known = {tag: self.tags[tag] for tag in tags if tag in self.tags}
        self.raise_tags({tag: TagFloor(number, floor.dead) for tag, floor in known.items()})

    def over(self, tags: Sequence[str], floor: int | None, tag_floors: Mapping[str, TagFloor | None]) -> TagFloor:
        """The floor of a value with these tags; an absent tag floor means dead (K).

        Args:
            tags: the value's tags.
            floor: the namespace's floor if it was read with the value.
            tag_floors: floors that were read with the value; the known ones are looked up here.
        """
        number = dead = max(self.namespace, floor or 0)
        for tag in tags:
            known = self.tags.get(tag)
            told = tag_floors.get(tag, known) or ABSENT
            if known is not None and known is not told:
                told = told.raised(known)
            number, dead = max(number, told.number), max(dead, told.dead)
        return TagFloor(number, dead)
