"""Tier.put_plain: what was heard since the snapshots sends a plain record back to the general rules."""

from __future__ import annotations

from nearcache.local.marks import Mark
from nearcache.local.snapshot import Snapshots
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.protocol.versions import version_of


def proven() -> Tier:
    """A tier whose floors are known."""
    tier = Tier(10)
    tier.synced = tier.floors.known = True
    tier.proof.until = 10.0
    return tier


def put(tier: Tier, snapshots: Snapshots, now: float = 1.0) -> tuple[int, bool]:
    """How many records of one were put, and whether it counts as plain."""
    entries: list[Entry | None] = [None, Entry("v", 5.0, version_of(3, 1), (), 1, 5.0)]
    return tier.put_plain(["not plain", "a"], entries, snapshots, now), entries[1] is not None


def taken(tier: Tier) -> Snapshots:
    """The snapshots of a read that begins."""
    return tier.take(["not plain", "a"])


def test_a_plain_record_is_put_unless_something_was_heard_since_its_snapshot() -> None:
    """A clear, a value that was returned without a version, the end of a proof; else it is alive and in L1."""
    tier = proven()
    assert put(tier, taken(tier)) == (1, True)
    assert list(tier.entries) == ["a"]
    tier = proven()
    before = taken(tier)
    tier.apply_clear(4)
    assert put(tier, before) == (0, False)
    tier = proven()
    before = taken(tier)
    tier.returned_unversioned("a", Mark(1.0, 0.0), before.of(1))
    assert put(tier, before) == (0, False)
    tier = proven()
    before = taken(tier)
    tier.apply_changes(["a"], version_of(4, 0))
    assert put(tier, before) == (0, True), "it was alive when it was asked for"
    assert not tier.entries
    tier = proven()
    assert put(tier, taken(tier), 10.0) == (0, False), "without a proof"
    tier = proven()
    tier.synced = False
    assert put(tier, taken(tier)) == (0, False), "messages may have been missed"
    tier = proven()
    tier.floors.known = False
    assert put(tier, taken(tier)) == (0, False), "a clear may not be known"


def test_the_snapshots_of_many_keys_are_those_of_each() -> None:
    """What one key has alone: a turn, a mark, a journalled write; and all that the stripes have."""
    keys = [f"key:{number}" for number in range(20)]
    tier = proven()

    def same() -> bool:
        taken = tier.take(keys)
        alone = [tier.take([key]).of(0) for key in keys]
        return [taken.of(at) for at in range(len(keys))] == alone == tier.snapshots(keys)

    assert same()
    tier.apply_changes(keys[:1], version_of(4, 0))
    tier.returned_unversioned(keys[1], Mark(1.0, 0.0), tier.snapshot(keys[1]))
    tier.returned_unkept(keys[2], version_of(5, 1), tier.snapshot(keys[2])._replace(epoch=-1))
    tier.journal_keys([keys[3]])
    taken = tier.snapshots(keys)
    assert taken[0].stamp
    assert taken[1].turn
    assert taken[1].mark != taken[0].mark
    assert taken[2].turn
    assert (taken[3].trusted, taken[4].trusted) == (False, True)
    assert same()
