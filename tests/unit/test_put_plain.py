"""Tier.put_plain: what was heard since the snapshots sends a plain record back to the general rules."""

from __future__ import annotations

from nearcache.local.marks import Mark
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.protocol.versions import version_of


def proven() -> Tier:
    """A tier whose floors are known."""
    tier = Tier(10)
    tier.synced = tier.floors.known = True
    tier.proof.until = 10.0
    return tier


def test_a_plain_record_is_put_unless_something_was_heard_since_its_snapshot() -> None:
    """A clear, a value that was returned without a version, the end of a proof; else it is alive and in L1."""
    entry = Entry("v", 5.0, version_of(3, 1), (), 1, 5.0)
    tier = proven()
    assert tier.put_plain([(7, "a", entry, tier.snapshot("a"))], 1.0) == (1, [])
    tier = proven()
    before = tier.snapshot("a")
    tier.apply_clear(4)
    assert tier.put_plain([(7, "a", entry, before)], 1.0) == (0, [7])
    tier = proven()
    before = tier.snapshot("a")
    tier.returned_unversioned("a", Mark(1.0, 0.0), before)
    assert tier.put_plain([(7, "a", entry, before)], 1.0) == (0, [7])
    tier = proven()
    assert tier.put_plain([(7, "a", entry, tier.snapshot("a"))], 10.0) == (0, [7]), "without a proof"
    tier = proven()
    tier.synced = False
    assert tier.put_plain([(7, "a", entry, tier.snapshot("a"))], 1.0) == (0, [7]), "messages may have been missed"
    tier = proven()
    tier.floors.known = False
    assert tier.put_plain([(7, "a", entry, tier.snapshot("a"))], 1.0) == (0, [7]), "a clear may not be known"
