"""Floors: below which write number a value counts as cleared. They only rise, until the server is another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nearcache.protocol.versions import NO_FLOOR

TAG_FLOORS_MAX = 10_000
"""Known tag floors are forgotten above this many; they are read again when needed."""


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
        self.tags: dict[str, int] = {}

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

    def raise_tags(self, floors: Mapping[str, int]) -> None:
        """These tags' floors are at least this."""
        for tag, floor in floors.items():
            self.tags[tag] = max(self.tags.get(tag, 0), floor)
        if len(self.tags) > TAG_FLOORS_MAX:
            self.tags.clear()

    def unknown(self, tags: Iterable[str]) -> list[str]:
        """Those of the tags whose floor is not known."""
        return [tag for tag in tags if tag not in self.tags]

    def allow(self, number: int, floor: int | None, tags: Sequence[str], tag_floors: Mapping[str, int | None]) -> bool:
        """Whether a value of this number stands above every floor; an absent tag floor means cleared (K).

        Args:
            number: the value's write number.
            floor: the namespace's floor if it was read with the value.
            tags: the value's tags.
            tag_floors: floors that were read with the value; the known ones are looked up here.
        """
        if number < self.namespace or (floor is not None and number < floor):
            return False
        for tag in tags:
            known = self.tags.get(tag, 0)
            told = tag_floors[tag] or NO_FLOOR if tag in tag_floors else known or NO_FLOOR
            if number < max(known, told):
                return False
        return True
