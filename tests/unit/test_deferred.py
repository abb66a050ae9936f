"""What is too much for one step: out of reach at once, and released little by little."""

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


def serves(tier: Tier, key: str) -> bool:
    """Whether a reader may have the entry of a key."""
    entry = tier.entry(key)
    return entry is not None and entry.proof.until > 0


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
    made.proof.until = float("inf")
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
    held = list(tier.entries.values())
    invalidate(tier, 6, "all")
    assert not any(entry.proof.until > 0 for entry in held), "a reader that has looked it up must not pass"
    assert not serves(tier, "k0")
    assert tidy(tier) >= MANY // STEP
    assert not tier.entries


def test_what_does_not_carry_the_tag_is_served(tier: Tier) -> None:
    """Invalidating half of L1 costs the other half one slow hit."""
    invalidate(tier, 6, "half")
    assert serves(tier, "k0")
    assert tier.entries["k0"].proof is tier.proof
    tidy(tier)
    assert serves(tier, "k2")
    assert set(tier.entries) == {f"k{number}" for number in range(0, MANY, 2)}
    assert tier.evictions == 0


def test_what_is_newer_than_the_tag_is_served(tier: Tier) -> None:
    """It was written after the invalidation, whose message came late."""
    put(tier, "k1", 7, "half")
    invalidate(tier, 6, "half")
    assert serves(tier, "k1")
    tidy(tier)
    assert serves(tier, "k1")


@pytest.mark.parametrize("swept", [False, True])
def test_what_was_newer_is_not_newer_than_the_next(tier: Tier, swept: bool) -> None:
    """An entry that one invalidation has left is found by the next one, whether all were looked at meanwhile or not."""
    put(tier, "k1", 7, "half")
    invalidate(tier, 6, "half")
    assert serves(tier, "k1")
    if swept:
        tidy(tier)
    invalidate(tier, 8, "half")
    assert not serves(tier, "k1")


def test_a_late_older_invalidation_does_not_lower_the_newer(tier: Tier) -> None:
    """An own invalidation is applied before a foreign one that came before it."""
    invalidate(tier, 6, "half")
    invalidate(tier, 4, "half")
    tidy(tier)
    assert "k1" not in tier.entries


@pytest.mark.parametrize("event", ["tag", "change", "own write", "unknown write", "passed by", "clear", "flush"])
def test_what_is_written_meanwhile_is_not_served(tier: Tier, event: str) -> None:
    """Entries without the present proof are invalidated all the same."""
    invalidate(tier, 6, "half")
    with tier.lock:
        if event == "tag":
            tier.apply_tags(["own0"], 7)
        elif event == "change":
            tier.apply_changes(["k0"], version_of(7, 0))
        elif event == "own write":
            tier.wrote("k0", at(7), tier.epoch)
        elif event == "unknown write":
            tier.journal_keys(["k0"])
        elif event == "passed by":
            tier.returned_unversioned("k0", None, tier.snapshot("k0"))
        elif event == "clear":
            tier.apply_clear(7)
        else:
            tier.flush()
    tidy(tier)
    assert not serves(tier, "k0")
    assert serves(tier, "k2") is (event not in {"clear", "flush"})


def test_a_put_sees_what_has_no_proof_now(tier: Tier) -> None:
    """Else an older value would take its place."""
    invalidate(tier, 6, "half")
    old = tier.snapshot("k0")
    assert not tier.put("k0", tier.make_entry("old", float("inf"), at(4), (), 10, float("inf")), old)
    assert tier.entries["k0"].version == at(5)
    assert put(tier, "k2", 7)
    tidy(tier)
    assert tier.entries["k2"].version == at(7)


def test_a_second_large_tag(tier: Tier) -> None:
    """The first one is not forgotten, and what neither concerns is served."""
    invalidate(tier, 6, "half")
    for number in range(STEP + 1):
        put(tier, f"new{number}", 7, "new")
    invalidate(tier, 8, "new")
    assert serves(tier, "k0")
    assert not serves(tier, "k1")
    assert not serves(tier, "new1")
    tidy(tier)
    assert set(tier.entries) == {f"k{number}" for number in range(0, MANY, 2)}


def test_a_flush_ends_what_a_reader_has_looked_up(tier: Tier) -> None:
    """A reader is held up between its look-up and the comparison, and a heartbeat comes: it must not pass (G1)."""
    looked_up = tier.entries["k0"]
    with tier.lock:
        tier.flush()
    tier.proof.until = float("inf")
    assert looked_up.proof.until < 0


def test_what_a_tag_dooms_is_no_fallback(tier: Tier) -> None:
    """A flush keeps entries for stale_if_error, but none that was invalidated."""
    tier.fallback.keeps_flushed = True
    invalidate(tier, 6, "half")
    with tier.lock:
        tier.flush()
    assert tier.last_resort("k1", away=True) is None


def test_closed_all_is_released(tier: Tier) -> None:
    """A closed cache that somebody still holds keeps no value."""
    invalidate(tier, 6, "half")
    with tier.lock:
        tier.drop_all()
    tier.release()
    assert not tier.free_some()
