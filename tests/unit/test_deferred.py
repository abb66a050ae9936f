"""What is too much for one step: out of sight at once, released or brought back little by little."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from nearcache.local.contents import STORES
from nearcache.local.deferred import STEP
from nearcache.local.tier import Tier
from nearcache.protocol.versions import Version, version_of

MANY = 3 * STEP


class Value:
    """Something that a weak reference may watch."""


def at(number: int) -> Version:
    """A version."""
    return version_of(number, 1)


def put(tier: Tier, key: str, number: int = 5, *tags: str, value: object = None) -> bool:
    """Put with a token taken now."""
    return tier.put(key, tier.make_entry(value, float("inf"), at(number), tags, 10, float("inf")), tier.snapshot(key))


def invalidate(tier: Tier, number: int, *tags: str) -> None:
    """What a message does."""
    with tier.lock:
        tier.apply_tags(tags, number)


def tidy(tier: Tier) -> int:
    """Until all is done; how many steps it took."""
    steps = 1
    while tier.free_some():
        steps += 1
    return steps


@pytest.fixture(params=STORES)
def new_tier(request: pytest.FixtureRequest) -> Callable[[int], Tier]:
    """Makes tiers of one of the policies."""
    return partial(Tier, eviction=request.param)


@pytest.fixture
def tier(new_tier: Callable[[int], Tier]) -> Tier:
    """A proven tier: half of many entries carry the tag "half", all the tag "all", each one of its own."""
    made = new_tier(10 * MANY)
    made.synced = True
    made.floors.known = True
    for number in range(MANY):
        half = ("half",) if number % 2 else ()
        assert put(made, f"k{number}", 5, "all", f"own{number}", *half)
    return made


def test_a_large_store_is_released_in_steps(new_tier: Callable[[int], Tier]) -> None:
    """Nobody finds it any more, and its values go little by little."""
    tier = new_tier(10 * MANY)
    tier.synced = True
    values = [Value() for _ in range(MANY)]
    watched = [weakref.ref(value) for value in values]
    for number, value in enumerate(values):
        put(tier, f"k{number}", value=value)
    del values, value
    with tier.lock:
        assert tier.drop_all() == MANY
    assert not tier.entries
    assert tier.size == 0
    left = MANY
    while tier.free_some():
        before, left = left, sum(watch() is not None for watch in watched)
        assert 0 < before - left <= STEP
    gc.collect()
    assert not any(watch() for watch in watched)


def test_a_small_store_is_released_at_once(new_tier: Callable[[int], Tier]) -> None:
    """Nothing is put off that takes no time."""
    tier = new_tier(100)
    tier.synced = True
    value = Value()
    watched = weakref.ref(value)
    put(tier, "k", value=value)
    del value
    with tier.lock:
        tier.drop_all()
    assert watched() is None
    assert not tier.free_some()


def test_puts_release_more_than_they_bring(tier: Tier) -> None:
    """So what was dropped is bounded, and ends without a bus too."""
    with tier.lock:
        tier.drop_all()
    for number in range(MANY // 2 + 1):
        put(tier, f"new{number}")
    assert not tier._deferred


def test_a_common_tag_is_out_of_sight_at_once(tier: Tier) -> None:
    """The caller of invalidate_tags reads its own write."""
    invalidate(tier, 6, "all")
    assert not tier.entries
    assert tidy(tier) >= MANY // STEP
    assert not tier.entries


def test_what_does_not_carry_the_tag_comes_back(tier: Tier) -> None:
    """Invalidating half of L1 costs the other half nothing but a short while."""
    invalidate(tier, 6, "half")
    tidy(tier)
    assert set(tier.entries) == {f"k{number}" for number in range(0, MANY, 2)}
    assert tier.evictions == 0


def test_what_is_newer_than_the_tag_comes_back(tier: Tier) -> None:
    """It was written after the invalidation, whose message came late."""
    put(tier, "k1", 7, "half")
    invalidate(tier, 6, "half")
    tidy(tier)
    assert "k1" in tier.entries


def test_a_late_older_invalidation_does_not_lower_the_newer(tier: Tier) -> None:
    """An own invalidation is applied before a foreign one that came before it."""
    invalidate(tier, 6, "half")
    invalidate(tier, 4, "half")
    tidy(tier)
    assert "k1" not in tier.entries


@pytest.mark.parametrize("event", ["tag", "change", "own write", "unknown write", "passed by", "clear", "flush"])
def test_what_is_written_meanwhile_does_not_come_back(tier: Tier, event: str) -> None:
    """Entries that nobody sees are invalidated all the same."""
    invalidate(tier, 6, "half")
    with tier.lock:
        if event == "tag":
            tier.apply_tags(["own0"], 7)
        elif event == "change":
            tier.apply_changes(["k0"], version_of(7, 0))
        elif event == "own write":
            tier.wrote("k0", at(7))
        elif event == "unknown write":
            tier.journal_keys(["k0"])
        elif event == "passed by":
            tier.returned_unversioned("k0", 0.0)
        elif event == "clear":
            tier.apply_clear(7)
        else:
            tier.flush()
    tidy(tier)
    assert "k0" not in tier.entries
    assert ("k2" in tier.entries) is (event not in {"clear", "flush"})


def test_a_put_sees_what_was_set_aside(tier: Tier) -> None:
    """Else an older value would take its place, or it would come back over a newer one."""
    invalidate(tier, 6, "half")
    old = tier.snapshot("k0")
    assert not tier.put("k0", tier.make_entry("old", float("inf"), at(4), (), 10, float("inf")), old)
    assert tier.entries["k0"].version == at(5)
    assert put(tier, "k2", 7)
    tidy(tier)
    assert tier.entries["k2"].version == at(7)


def test_a_second_large_tag_ends_what_was_set_aside(tier: Tier) -> None:
    """One store at a time: the older one's entries are misses."""
    invalidate(tier, 6, "half")
    for number in range(STEP + 1):
        put(tier, f"new{number}", 7, "new")
    invalidate(tier, 8, "new")
    tidy(tier)
    assert not [key for key in tier.entries if key.startswith("new")]


def test_the_dropped_are_counted_with_what_was_set_aside(tier: Tier) -> None:
    """A flush tells how much it cost."""
    invalidate(tier, 6, "half")
    put(tier, "new", 7)
    with tier.lock:
        assert tier.flush() == MANY + 1 - 2  # the put has dropped two that carried the tag


def test_closed_all_is_released(tier: Tier) -> None:
    """A closed cache that somebody still holds keeps no value."""
    invalidate(tier, 6, "half")
    with tier.lock:
        tier.drop_all()
    tier.release()
    assert not tier.free_some()
