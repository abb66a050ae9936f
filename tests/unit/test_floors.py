"""Floors: they only rise, and what is absent counts as cleared."""

from __future__ import annotations

import pytest

from nearcache.local.floors import Floors


def test_a_value_below_the_floor_is_cleared_and_one_at_it_lives() -> None:
    """A fill takes the number as it stands, so a value made right after a clear has the clear's own number."""
    floors = Floors()
    floors.learn(7, 0.0)
    assert not floors.allow(6, None, (), {})
    assert floors.allow(7, None, (), {})


def test_a_floor_read_with_the_value_counts_too() -> None:
    """The higher one of the local floor and the one that was read decides."""
    floors = Floors()
    floors.learn(3, 0.0)
    assert not floors.allow(5, 6, (), {})
    assert floors.allow(6, 6, (), {})
    assert not floors.allow(2, 1, (), {})


def test_floors_only_rise() -> None:
    """A reply that was on the way when a clear was acknowledged does not lower the floor (L)."""
    floors = Floors()
    floors.raise_to(9)
    floors.learn(4, 0.0)
    floors.raise_tags({"users": 8})
    floors.raise_tags({"users": 3})
    assert floors.namespace == 9
    assert floors.tags == {"users": 8}
    assert floors.known


def test_after_a_gap_floors_count_as_unknown_until_they_are_told() -> None:
    """The message that was missed may have been a clear or a tag (M)."""
    floors = Floors()
    floors.learn(4, 0.0)
    floors.raise_tags({"users": 5})
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
    assert floors.allow(5, None, (), {})
    assert not floors.known


@pytest.mark.parametrize("told", [None, 0])
def test_a_tag_whose_floor_is_absent_means_miss(told: int | None) -> None:
    """An evicted floor may have been the one that cleared the value (K)."""
    assert not Floors().allow(5, None, ("users",), {"users": told})
    assert not Floors().allow(5, None, ("users",), {})


def test_a_tag_that_the_server_has_lost_means_miss_whatever_was_known_here() -> None:
    """A tag invalidated while its floor was evicted leaves no trace but a message, which may be the one missed (K)."""
    floors = Floors()
    floors.raise_tags({"users": 5})
    assert not floors.allow(6, 0, ("users",), {"users": None})


def test_every_tag_has_to_allow_a_value() -> None:
    """One tag above the value is enough to clear it; floors known here and floors read count alike."""
    floors = Floors()
    floors.raise_tags({"a": 4, "b": 6})
    assert floors.allow(6, None, ("a", "b"), {})
    assert not floors.allow(5, None, ("a", "b"), {})
    assert not floors.allow(6, None, ("a", "b"), {"a": 7})


def test_unknown_names_the_tags_to_ask_for() -> None:
    """Known tags are not asked for again."""
    floors = Floors()
    floors.raise_tags({"a": 1})
    assert floors.unknown(["a", "b"]) == ["b"]
