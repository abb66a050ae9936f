"""L1's guards: what may be put, what drops what, and what is left of a write of unknown outcome."""

from __future__ import annotations

import zlib

import pytest

from nearcache.local.deferred import STEP
from nearcache.local.snapshot import STRIPES, stripe_of
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.protocol.answers import TagFloor
from nearcache.protocol.versions import Version, version_of


def at(number: int, created: int = 1) -> Version:
    """A version."""
    return version_of(number, created)


def entry(number: int, created: int = 1, *, value: object = None, tags: tuple[str, ...] = (), size: int = 10) -> Entry:
    """An entry that is fresh for ever."""
    return Entry(number if value is None else value, float("inf"), at(number, created), tags, size, float("inf"))


@pytest.fixture
def tier() -> Tier:
    """A tier whose bus is proven."""
    made = Tier(100)
    made.synced = True
    made.floors.known = True
    return made


def put(tier: Tier, key: str, what: Entry, *, own: bool = False) -> bool:
    """Put with a snapshot taken now."""
    snapshot = tier.snapshot(key)
    return tier.put(key, what, snapshot, own=own)


def change(tier: Tier, key: str, number: int) -> None:
    """What a message does."""
    with tier.lock:
        tier.apply_changes([key], version_of(number, 0))


def test_what_nobody_wrote_meanwhile_is_put(tier: Tier) -> None:
    """The plain case."""
    assert put(tier, "k", entry(5))
    assert tier.entries["k"].version == at(5)


def test_a_message_between_token_and_put_refuses_an_older_value(tier: Tier) -> None:
    """The fill race: the reply was read before the write, and comes after its message."""
    snapshot = tier.snapshot("k")
    change(tier, "k", 6)
    assert not tier.put("k", entry(5), snapshot)
    assert "k" not in tier.entries


def test_a_value_as_new_as_the_message_is_put(tier: Tier) -> None:
    """The stamp has changed, but by the very write that is put, or an older one."""
    snapshot = tier.snapshot("k")
    change(tier, "k", 6)
    assert tier.put("k", entry(6), snapshot)


@pytest.mark.parametrize("event", ["loss", "clear", "tag", "flush", "unknown write", "local clear"])
def test_an_epoch_between_token_and_put_refuses_any_value(tier: Tier, event: str) -> None:
    """What touches keys that are not named changes the epoch, and every put under way is refused."""
    snapshot = tier.snapshot("k")
    with tier.lock:
        if event == "clear":
            tier.apply_clear(6)
        elif event == "tag":
            tier.apply_tags(["users"], 6)
        elif event == "flush":
            tier.flush()
        elif event == "local clear":
            tier.drop_all()
        elif event == "loss":
            tier.epoch += 1
    if event == "unknown write":
        tier.journal_keys(["other"])
    assert not tier.put("k", entry(9), snapshot)
    assert "k" not in tier.entries


def test_nothing_is_put_while_the_bus_is_not_proven(tier: Tier) -> None:
    """Nobody would tell that the value was written."""
    tier.synced = False
    assert not put(tier, "k", entry(5))


def test_a_slow_put_does_not_bring_back_an_older_value(tier: Tier) -> None:
    """Own fill 5 is executed, its reply late; foreign set 6; another thread puts 6; the late reply comes (B)."""
    slow = tier.snapshot("k")
    assert put(tier, "k", entry(6))
    assert not tier.put("k", entry(5), slow)
    assert tier.entries["k"].version == at(6)


def test_a_refused_put_drops_what_is_older_than_the_value_returned(tier: Tier) -> None:
    """L1 holds 5; a thread reads 6, its put is refused, it returns 6; the next read must not hit 5 (C)."""
    assert put(tier, "k", entry(5))
    snapshot = tier.snapshot("k")
    tier.epoch += 1
    assert not tier.put("k", entry(6), snapshot)
    assert "k" not in tier.entries


def test_a_refused_put_leaves_what_is_newer(tier: Tier) -> None:
    """A foreign value that came late is no reason to drop a newer one."""
    assert put(tier, "k", entry(7))
    snapshot = tier.snapshot("k")
    assert not tier.put("k", entry(6), snapshot._replace(epoch=-1))
    assert tier.entries["k"].version == at(7)


def test_a_refused_own_write_drops_whatever_is_held(tier: Tier) -> None:
    """Numbers may be issued twice after a failover: "drop if older" could keep the wrong one (I)."""
    assert put(tier, "k", entry(7))
    snapshot = tier.snapshot("k")
    assert not tier.put("k", entry(6), snapshot._replace(epoch=-1), own=True)
    assert "k" not in tier.entries


def test_a_refused_put_raises_the_stamp(tier: Tier) -> None:
    """A slower put of an older value is then refused too."""
    slow = tier.snapshot("k")
    tier.put("k", entry(6), slow._replace(epoch=-1))
    assert not tier.put("k", entry(5), slow)


def test_two_loads_under_one_number_are_ordered_by_time(tier: Tier) -> None:
    """Hence a version is number and creation (J)."""
    assert put(tier, "k", entry(5, created=20))
    assert not put(tier, "k", entry(5, created=10))
    assert tier.entries["k"].version == at(5, 20)


def test_a_message_drops_what_is_older_and_knows_its_own_write(tier: Tier) -> None:
    """An own set is known by its version; there is no origin in a message."""
    assert put(tier, "k", entry(5), own=True)
    change(tier, "k", 5)
    assert "k" in tier.entries
    change(tier, "k", 6)
    assert "k" not in tier.entries


def test_an_own_write_without_a_value_drops_and_stamps(tier: Tier) -> None:
    """A delete is seen at once here, and a read that was under way does not bring the value back."""
    assert put(tier, "k", entry(5))
    snapshot = tier.snapshot("k")
    tier.wrote("k", version_of(6, 0), tier.epoch)
    assert "k" not in tier.entries
    assert not tier.put("k", entry(5), snapshot)


def test_a_clear_counts_once(tier: Tier) -> None:
    """Applied when acknowledged; its message, later, does not drop what was put after it (G)."""
    put(tier, "k", entry(5))
    with tier.lock:
        tier.apply_clear(6)
    assert not tier.entries
    put(tier, "k", entry(6))
    with tier.lock:
        tier.apply_clear(6)
    assert "k" in tier.entries
    assert tier.floors.namespace == 6


def test_a_tag_drops_what_carries_it_and_nothing_newer(tier: Tier) -> None:
    """Other entries stay; its message, behind the acknowledgement, does not drop what was put after it."""
    put(tier, "a", entry(5, tags=("users", "x")))
    put(tier, "b", entry(5, tags=("x",)))
    with tier.lock:
        tier.apply_tags(["users"], 6)
    assert list(tier.entries) == ["b"]
    assert tier.floors.tags == {"users": TagFloor.at(6)}
    put(tier, "a", entry(6, tags=("users",)))
    with tier.lock:
        tier.apply_tags(["users"], 6)
    assert set(tier.entries) == {"a", "b"}


def test_a_tag_whose_floor_was_read_is_not_taken_for_applied(tier: Tier) -> None:
    """The floor came with another key; the entries are still there until the message comes."""
    put(tier, "a", entry(5, tags=("users",)))
    tier.keep_tag_floors({"users": TagFloor.at(6)}, tier.epoch)
    snapshot = tier.snapshot("other")
    with tier.lock:
        tier.apply_tags(["users"], 6)
    assert not tier.entries
    assert not tier.put("other", entry(5, tags=("users",)), snapshot)


def test_a_flush_forgets_what_was_known_of_other_writers(tier: Tier) -> None:
    """Entries, stamps and floors; and it says how many entries there were."""
    put(tier, "a", entry(5))
    tier.keep_tag_floors({"users": TagFloor.at(5)}, tier.epoch)
    with tier.lock:
        assert tier.flush() == 1
    assert not tier.entries
    assert not any(tier.stamps)
    assert not tier.floors.known
    assert not tier.floors.tags


def test_tag_floors_are_kept_under_the_epoch_they_were_asked_in(tier: Tier) -> None:
    """A tag or a clear may have come meanwhile; and without a bus nobody would tell."""
    asked = tier.epoch
    tier.epoch += 1
    tier.keep_tag_floors({"users": TagFloor.at(5)}, asked)
    assert not tier.floors.tags
    tier.synced = False
    tier.keep_tag_floors({"users": TagFloor.at(5)}, tier.epoch)
    assert not tier.floors.tags
    tier.synced = True
    tier.keep_tag_floors({"users": TagFloor.at(5)}, tier.epoch)
    assert tier.floors.tags == {"users": TagFloor.at(5)}


def test_a_journalled_key_is_a_miss_until_it_is_replayed(tier: Tier) -> None:
    """It leaves L1, what is under way is not put, and a snapshot of it is not trusted."""
    put(tier, "k", entry(5))
    under_way = tier.snapshot("k")
    tier.journal_keys(["k"])
    assert "k" not in tier.entries
    assert not tier.snapshot("k").trusted
    assert tier.snapshot("other").trusted
    assert not tier.put("k", entry(5), under_way)
    batch = tier.journal.next(1)
    assert batch is not None
    tier.replayed(batch, 9, tier.epoch, 0.0)
    assert tier.snapshot("k").trusted
    assert not tier.put("k", entry(8), under_way), "the replay is a write as any other"


@pytest.mark.parametrize("tags", [(), ("t",)], ids=["clear", "tag"])
def test_a_journalled_clear_or_tag_makes_every_key_a_miss(tier: Tier, tags: tuple[str, ...]) -> None:
    """Any value in L2 may be one that was to be cleared; the replay is applied here as well."""
    put(tier, "k", entry(5))
    tier.journal_floors(tags)
    assert not tier.entries
    assert not tier.snapshot("any").trusted
    batch = tier.journal.next(1)
    assert batch is not None
    tier.replayed(batch, 9, tier.epoch, 0.0)
    assert tier.snapshot("any").trusted
    assert tier.floors.tags == {"t": TagFloor.at(9)} if tags else tier.floors.namespace == 9


def test_a_value_too_large_for_the_whole_tier_is_not_put() -> None:
    """And what was held under the key goes, since it is older than the value returned."""
    tier = Tier(100, max_bytes=1000)
    tier.synced = True
    assert put(tier, "k", entry(5))
    assert not put(tier, "k", entry(6, size=5000))
    assert "k" not in tier.entries


def test_evictions_and_size_are_told_over_a_clear() -> None:
    """A new store begins at nothing, the count goes on."""
    tier = Tier(2)
    tier.synced = True
    for key in "abc":
        put(tier, key, entry(5, size=7))
    assert tier.evictions == 1
    assert tier.size == 14
    with tier.lock:
        tier.drop_all()
    for key in "abcd":
        put(tier, key, entry(5))
    assert tier.evictions == 3


def test_stripes_are_the_same_in_every_process() -> None:
    """They do not depend on the hash seed, and stay within their number."""
    assert stripe_of("user:7") == zlib.crc32(b"user:7") % STRIPES
    assert all(0 <= stripe_of(str(number)) < STRIPES for number in range(2000))


def test_what_is_loaded_without_redis_is_bounded() -> None:
    """In entries and in bytes, as L1 is; the oldest leaves first, and what is too large alone is not kept."""
    few, small = Tier(2), Tier(100, 2000)
    for tier, size in ((few, 10), (small, 700)):
        for key in ("a", "b", "c"):
            tier.returned_unversioned(key, None, tier.snapshot(key), entry(0, size=size))
        assert [key for key in "abc" if tier.last_resort(key, away=True)] == ["b", "c"]
    small.returned_unversioned("d", None, small.snapshot("d"), entry(0, size=5000))
    assert [key for key in "abcd" if small.last_resort(key, away=True)] == ["b", "c"]


def test_a_large_tag_that_is_invalidated_leaves_no_last_resort() -> None:
    """A load is under way · its large tag is invalidated · the load fails: the old value does not serve instead."""
    tier = Tier(1000)
    tier.synced = True
    for number in range(STEP + 1):
        put(tier, f"k{number}", entry(1, tags=("t",)))
    tier.apply_tags(["t"], 2)
    assert tier.last_resort("k0", away=False) is None
