"""Floors: they only rise, and what is absent counts as cleared."""

from __future__ import annotations

from collections.abc import Mapping

from nearcache.local.floors import Floors
from nearcache.protocol.answers import TagFloor


def allow(
    floors: Floors, number: int, floor: int | None, tags: tuple[str, ...], told: Mapping[str, TagFloor | None]
) -> bool:
    """Whether a value of this number is fresh; of what was invalidated, and not only made stale, nothing else is."""
    over = floors.over(tags, floor, told)
    assert over.dead == over.number
    return number >= over.number


def test_a_value_below_the_floor_is_cleared_and_one_at_it_lives() -> None:
    """A fill takes the number as it stands, so a value made right after a clear has the clear's own number."""
    floors = Floors()
    floors.learn(7, 0.0)
    assert not allow(floors, 6, None, (), {})
    assert allow(floors, 7, None, (), {})


def test_a_floor_read_with_the_value_counts_too() -> None:
    """The higher one of the local floor and the one that was read decides."""
    floors = Floors()
    floors.learn(3, 0.0)
    assert not allow(floors, 5, 6, (), {})
    assert allow(floors, 6, 6, (), {})
    assert not allow(floors, 2, 1, (), {})


def test_floors_only_rise() -> None:
    """A reply that was on the way when a clear was acknowledged does not lower the floor (L)."""
    floors = Floors()
    floors.raise_to(9)
    floors.learn(4, 0.0)
    floors.raise_tags({"users": TagFloor.at(8)})
    floors.raise_tags({"users": TagFloor.at(3)})
    assert floors.namespace == 9
    assert floors.tags == {"users": TagFloor.at(8)}
    assert floors.known


def test_after_a_gap_floors_count_as_unknown_until_they_are_told() -> None:
    """The message that was missed may have been a clear or a tag (M)."""
    floors = Floors()
    floors.learn(4, 0.0)
    floors.raise_tags({"users": TagFloor.at(5)})
    floors.forget()
    assert not floors.known
    assert floors.unknown(["users"]) == ["users"]
    assert floors.namespace == 4
    floors.learn(6, 0.0)
    assert floors.known


def test_another_server_begins_at_nothing() -> None:
    """After a change of identity, numbers of the old server say nothing."""
    floors = Floors()
    floors.learn(1_000, 0.0)
    floors.restart()
    assert allow(floors, 5, None, (), {})
    assert not floors.known


def test_a_tag_whose_floor_is_absent_means_miss() -> None:
    """An evicted floor may have been the one that cleared the value (K)."""
    assert not allow(Floors(), 5, None, ("users",), {"users": None})
    assert not allow(Floors(), 5, None, ("users",), {})


def test_a_tag_that_the_server_has_lost_means_miss_whatever_was_known_here() -> None:
    """A tag invalidated while its floor was evicted leaves no trace but a message, which may be the one missed (K)."""
    floors = Floors()
    floors.raise_tags({"users": TagFloor.at(5)})
    assert not allow(floors, 6, 0, ("users",), {"users": None})


def test_every_tag_has_to_allow_a_value() -> None:
    """One tag above the value is enough to clear it; floors known here and floors read count alike."""
    floors = Floors()
    floors.raise_tags({"a": TagFloor.at(4), "b": TagFloor.at(6)})
    assert allow(floors, 6, None, ("a", "b"), {})
    assert not allow(floors, 5, None, ("a", "b"), {})
    assert not allow(floors, 6, None, ("a", "b"), {"a": TagFloor.at(7)})


def test_unknown_names_the_tags_to_ask_for() -> None:
    """Known tags are not asked for again."""
    floors = Floors()
    floors.raise_tags({"a": TagFloor.at(1)})
    assert floors.unknown(["a", "b"]) == ["b"]


def test_a_stale_tag_keeps_the_floor_below_which_values_are_dead() -> None:
    """Between the two floors a value may serve after an error."""
    floors = Floors()
    floors.invalidate(["a"], 4, stale=False)
    floors.invalidate(["a"], 6, stale=True)
    assert floors.over(("a",), 0, {}) == TagFloor(6, 4)
    floors.invalidate(["a"], 7, stale=False)
    assert floors.over(("a",), 0, {}) == TagFloor.at(7)


def test_an_unknown_tag_that_is_made_stale_stays_unknown() -> None:
    """What it was invalidated under before is not known."""
    floors = Floors()
    floors.invalidate(["a"], 6, stale=True)
    assert floors.unknown(["a"]) == ["a"]


def test_both_floors_of_a_tag_rise_by_themselves() -> None:
    """An own acknowledgement comes before messages of lower numbers; the namespace's floor counts for every tag."""
    floors = Floors()
    floors.raise_tags({"a": TagFloor.at(1)})
    floors.invalidate(["a"], 6, stale=True)
    floors.invalidate(["a"], 5, stale=False)
    assert floors.over(("a",), 0, {}) == TagFloor(6, 5)
    assert floors.over(("a",), 0, {"a": TagFloor(8, 2)}) == TagFloor(8, 5)
    assert floors.over(("a",), 9, {}) == TagFloor.at(9)
