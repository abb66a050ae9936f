"""The journal: what is replayed, when, in which parts, and what ends an entry."""

from __future__ import annotations

from nearcache.local.journal import ALL, KEYS, TAGS, Batch, Journal
from nearcache.protocol.answers import BATCH


def next_of(journal: Journal, now: int = 0) -> Batch:
    """What is due."""
    batch = journal.next(now)
    assert batch is not None
    return batch


def test_keys_are_replayed_in_parts() -> None:
    """At most BATCH at once, the oldest first; each part ends what it took on."""
    journal = Journal(10_000)
    journal.note([f"k{number}" for number in range(BATCH + 1)], 0, 0)
    first = next_of(journal)
    assert (first.kind, len(first.names), first.names[0]) == (KEYS, BATCH, "k0")
    journal.replayed(first)
    assert next_of(journal).names == [f"k{BATCH}"]
    journal.replayed(next_of(journal))
    assert journal.next(0) is None
    assert not len(journal)


def test_a_key_journalled_again_outlives_its_replay() -> None:
    """The replay may have been executed before the later write failed (F)."""
    journal = Journal(10)
    journal.note(["a", "b"], 0, 0)
    replay = next_of(journal)
    journal.note(["a"], 0, 0)
    journal.replayed(replay)
    assert set(journal.keys) == {"a"}
    journal.note_tags(["t"])
    tags = next_of(journal)
    journal.note_tags(["t"])
    journal.replayed(tags)
    assert journal.tags
    journal.note_clear()
    clear = next_of(journal)
    journal.note_clear()
    journal.replayed(clear)
    assert journal.clear is not None


def test_a_key_waits_for_its_deadline() -> None:
    """What was sent may still be executed until then; the later of two deadlines counts (E)."""
    journal = Journal(10)
    journal.note(["a"], 500, 0)
    journal.note(["a"], 0, 0)
    journal.note(["b"], 0, 0)
    assert next_of(journal, 100).names == ["b"]
    assert next_of(journal, 500).not_before == 500
    journal.forget_clock()
    assert next_of(journal, 0).names == ["a", "b"]


def test_holds_are_kept_and_not_mixed() -> None:
    """A part has one hold; the longer one of a key stays."""
    journal = Journal(10)
    journal.note(["a"], 0, 1000)
    journal.note(["b"], 0, 0)
    journal.note(["a"], 0, 10)
    assert (next_of(journal).names, next_of(journal).hold_ms) == (["b"], 0)
    journal.replayed(next_of(journal))
    assert (next_of(journal).names, next_of(journal).hold_ms) == (["a"], 1000)


def test_too_many_become_one_clear() -> None:
    """After the last deadline among them; until then nothing is trusted."""
    journal = Journal(3)
    journal.note(["a", "b", "c"], 700, 0)
    assert not journal.covers("other")
    journal.note_tags(["t"])
    assert (len(journal), journal.covers("other")) == (1, True)
    assert journal.next(600) is None
    assert next_of(journal, 700) == Batch((), next_of(journal, 700).numbers, ALL, 700)


def test_tags_make_everything_doubtful() -> None:
    """Which keys carry them is not known here."""
    journal = Journal(10)
    journal.note_tags(["t", "u"])
    assert journal.covers("any")
    assert (next_of(journal).kind, next_of(journal).names) == (TAGS, ["t", "u"])


def test_without_anybody_to_replay_to_nothing_is_kept() -> None:
    """One process alone."""
    journal = Journal(0)
    journal.note(["a"], 0, 0)
    journal.note_tags(["t"])
    journal.note_clear()
    assert not len(journal)
    assert not journal.covers("a")
