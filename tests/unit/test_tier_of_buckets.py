"""L1 of several buckets: a bucket is dropped at once, whatever the others hold, and its entries leave step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nearcache.local.contents import OWN_MIN
from nearcache.local.deferred import STEP
from nearcache.local.snapshot import bucket_of
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.local.whole import WholeTier
from nearcache.protocol.versions import version_of

BUCKETS = 4
KEYS = [f"key:{number}" for number in range(1000)]


def put(whole: WholeTier, key: str, number: int = 1, tags: tuple[str, ...] = ()) -> bool:
    """Put a value of this write number."""
    part = part_of(whole, key)
    entry = Entry(number, float("inf"), version_of(number, 1), tags, 10, float("inf"))
    return part.put(key, entry, part.snapshot(key))


def part_of(whole: WholeTier, key: str) -> Tier:
    """The tier of a key's bucket."""
    return whole.parts[bucket_of(key, BUCKETS)]


def served(whole: WholeTier, key: str) -> bool:
    """What the fast path does."""
    entry = whole.entries.get(key)
    return entry is not None and entry.proof.until > 0


def of_bucket(bucket: int) -> list[str]:
    """The keys of a bucket."""
    return [key for key in KEYS if bucket_of(key, BUCKETS) == bucket]


@pytest.fixture
def whole() -> WholeTier:
    """A full one, of which each bucket is proven."""
    made = WholeTier(10 * len(KEYS), None, 100, "lru", buckets=BUCKETS)
    for part in made.parts:
        part.synced = part.floors.known = True
        part.proof.until = 1.0
    for key in KEYS:
        assert put(made, key, tags=("even",) if int(key[4:]) % 2 == 0 else ())
    return made


class Walked(dict[str, Entry]):
    """Entries that tell how often one was looked at."""

    looks = 0

    def __getitem__(self, key: str) -> Entry:
        self.looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        self.looks += len(self)
        return super().__iter__()

    def items(self) -> Any:
        """Count them all."""
        self.looks += len(self)
        return super().items()


@pytest.mark.parametrize("how", ["drop_all", "flush", "clear"])
def test_one_bucket_is_dropped_without_a_look_at_the_others(whole: WholeTier, how: str) -> None:
    """What is dropped serves no more, the others serve on, and the store gets rid of it in steps."""
    part, gone = whole.parts[1], of_bucket(1)
    walked = Walked(whole.entries)
    for one in (whole, *whole.parts):
        one.entries = walked
    if how == "clear":
        part.apply_clear(2)
    else:
        assert getattr(part, how)() == len(gone)
    assert walked.looks == 0
    for one in (whole, *whole.parts):
        one.entries = whole._store.entries
    part.proof.until = 1.0  # the next heartbeat
    assert [key for key in KEYS if served(whole, key)] == [key for key in KEYS if key not in gone]
    assert whole.count == len(KEYS) - len(gone)
    assert part.count == 0
    steps = 1
    while part.free_some():
        steps += 1
    assert steps == len(gone) // STEP + 1
    assert whole.entries.keys() == set(KEYS) - set(gone)


def test_what_comes_anew_stays(whole: WholeTier) -> None:
    """A key of a dropped bucket is put again before the sweep: the new entry is served, during the sweep and after."""
    part, gone = whole.parts[1], of_bucket(1)
    part.flush()
    assert put(whole, gone[0], 1)
    assert whole.count == len(KEYS) - len(gone) + 1
    while part.free_some():
        pass
    assert whole.entries[gone[0]].proof is part.proof
    assert part.count == 1


def test_what_was_dropped_serves_nobody_who_asks_for_it(whole: WholeTier) -> None:
    """The general way, and an error's last resort, drop it; a second flush before the sweep changes nothing."""
    part, gone = whole.parts[1], of_bucket(1)
    part.flush()
    part.flush()
    part.proof.until = 1.0
    assert part.entry(gone[0]) is None
    assert part.last_resort(gone[1], away=True) is None
    assert gone[0] not in whole.entries


def test_what_was_dropped_does_not_come_back_by_another_proof(whole: WholeTier) -> None:
    """A bucket is dropped · values of a tag come, more than are dropped one by one · the tag is invalidated."""
    part, gone = whole.parts[1], of_bucket(1)
    part.drop_all()
    part.proof.until = 1.0
    for key in gone[: STEP + 1]:
        assert put(whole, key, 3, tags=("new",))
    yet_to_leave = [key for key, entry in whole.entries.items() if key in gone and entry.version == version_of(1, 1)]
    assert yet_to_leave
    part.apply_tags(["new"], 5)
    assert not any(part.entry(key) for key in yet_to_leave)


def test_a_tag_finds_the_entries_of_its_bucket_alone(whole: WholeTier) -> None:
    """Also behind a flush, after which the index still has what is yet to leave."""
    part, other = whole.parts[1], of_bucket(2)
    part.flush()
    part.apply_tags(["even"], 5)
    assert not any(served(whole, key) for key in of_bucket(1))
    assert all(served(whole, key) for key in other)
    whole.parts[2].apply_tags(["even"], 5)
    whole.parts[2].proof.until = 1.0
    kept = [key for key in other if whole.parts[2].entry(key) is not None]
    assert kept == [key for key in other if int(key[4:]) % 2]


def test_all_buckets_are_dropped_together(whole: WholeTier) -> None:
    """Nothing is left in the store, and a bucket puts into the one that readers see."""
    assert whole.drop_all() == len(KEYS)
    assert (len(whole.entries), whole.count) == (0, 0)
    for part in whole.parts:
        part.proof.until = 1.0
        assert part.entries is whole.entries
    assert put(whole, KEYS[0])
    assert served(whole, KEYS[0])


def test_flushed_values_of_one_bucket_serve_after_an_error(whole: WholeTier) -> None:
    """With stale_if_error they are kept, and those of the other buckets stay where they are."""
    part, gone = whole.parts[1], of_bucket(1)
    part.fallback.keeps_flushed = True
    assert part.flush() == len(gone)
    found = part.last_resort(gone[0], away=True)
    assert found is not None
    assert found.value == 1
    assert len(whole.entries) == len(KEYS) - len(gone)


def test_the_noted_keys_of_a_bucket_are_bounded() -> None:
    """By twice the entries that it holds, though each key is another one."""
    whole = WholeTier(10, None, 100, "lru", buckets=1)
    part = whole.parts[0]
    part.synced = True
    for number in range(3 * OWN_MIN):
        part.put(f"k{number}", Entry(1, 1.0, version_of(1, 1), (), 10, 1.0), part.snapshot(f"k{number}"))
    assert len(part._own) <= OWN_MIN
    assert part.count == 10


def test_an_entry_that_has_left_keeps_no_value_out(whole: WholeTier) -> None:
    """Numbers may begin anew below its own; it is in the store until its step comes."""
    key = of_bucket(0)[0]
    part = part_of(whole, key)
    assert put(whole, key, 7)
    part.flush(restart=True)
    part.synced = part.floors.known = True
    part.proof.until = 1.0
    assert put(whole, key, 3)
    assert served(whole, key)
