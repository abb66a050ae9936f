"""The contract of L1's eviction policies: each through the same tests, then against a model, then under threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from cachetools import Cache

from nearcache.local import s3fifo
from nearcache.local.contents import STORES
from nearcache.local.s3fifo import USES_MAX, S3Fifo, Used
from nearcache.local.store import ENTRY_OVERHEAD, Lru, Store

POLICIES: list[Callable[..., Store[Any]]] = list(STORES.values())
"""Each is made from max_entries and max_bytes."""


KEYS = [str(number) for number in range(8)]


def entry(size: int = 10, tags: tuple[str, ...] = ()) -> Used:
    """An entry of this many encoded bytes, which every policy takes."""
    return Used("value", float("inf"), 1, tags, size, float("inf"))


def hit(store: Store[Any], key: str) -> None:
    """What a reader does, but for the clock."""
    found = store.entries[key]
    if store.touch is not None:
        store.touch(key)
    elif found.uses < USES_MAX:
        found.uses += 1


@pytest.fixture(params=POLICIES, ids=lambda policy: policy.__name__)
def policy(request: pytest.FixtureRequest) -> Any:
    """A policy's class."""
    return request.param


def test_it_is_a_cache_of_cachetools(policy: Any) -> None:
    """Capacity and sizes are cachetools' own."""
    assert isinstance(policy(3), Cache)


def test_it_holds_what_was_put_and_readers_see_the_same(policy: Any) -> None:
    """The mapping and ``entries`` are one."""
    store = policy(3)
    one, two = entry(), entry()
    store["a"] = one
    store["a"] = two
    assert store["a"] is two
    assert dict(store.entries) == {"a": two}
    assert len(store) == 1
    assert "b" not in store
    with pytest.raises(KeyError):
        store["b"]


def test_it_never_holds_more_than_max_entries(policy: Any) -> None:
    """Each entry too many makes one leave, and it is counted."""
    store = policy(3)
    for number in range(10):
        store[str(number)] = entry()
        assert len(store) <= 3
        assert set(store) == set(store.entries)
    assert store.evicted == 7


def test_replacing_a_value_evicts_nobody(policy: Any) -> None:
    """A full store takes a new value under a key that it holds."""
    store = policy(2)
    store["a"], store["b"] = entry(), entry()
    store["a"] = entry()
    assert set(store) == {"a", "b"}
    assert store.evicted == 0


def test_it_never_holds_more_than_max_bytes(policy: Any) -> None:
    """Keys, values and what an entry costs beside them."""
    store = policy(100, 3 * (ENTRY_OVERHEAD + 100))
    for number in range(10):
        store[str(number)] = entry(100)
    assert len(store) == 3
    assert store.currsize <= store.maxsize
    store["big"] = entry(2 * 100 + ENTRY_OVERHEAD)
    assert set(store.entries) == set(store)
    assert store.currsize <= store.maxsize


def test_both_bounds_hold_at_once(policy: Any) -> None:
    """Small entries meet the bound of entries, large ones that of bytes."""
    store = policy(4, 10 * (ENTRY_OVERHEAD + 10))
    for number in range(20):
        store[str(number)] = entry(10)
    assert len(store) == 4


def test_what_is_too_large_alone_is_refused_and_changes_nothing(policy: Any) -> None:
    """A ValueError, as cachetools says it; the others stay."""
    store = policy(10, 1000)
    store["a"] = entry(10)
    with pytest.raises(ValueError, match="too large"):
        store["b"] = entry(5000)
    with pytest.raises(ValueError, match="too large"):
        store["a"] = entry(5000)
    assert set(store) == set(store.entries) == {"a"}
    assert store["a"].size == 10


def test_a_deleted_key_is_gone_and_gives_its_room_back(policy: Any) -> None:
    """A delete is no eviction."""
    store = policy(2, 2 * (ENTRY_OVERHEAD + 10))
    store["a"], store["b"] = entry(), entry()
    del store["a"]
    assert store.currsize == ENTRY_OVERHEAD + 10
    with pytest.raises(KeyError):
        del store["a"]
    store["c"] = entry()
    assert set(store) == {"b", "c"}
    assert store.evicted == 0


def test_a_hit_on_what_has_left_is_a_key_error(policy: Any) -> None:
    """A reader without a lock takes it for a miss; it must not bring the key back."""
    store = policy(2)
    store["a"] = entry()
    touch = store.touch or store.entries.__getitem__
    del store["a"]
    with pytest.raises(KeyError):
        touch("a")
    assert not store.entries


def test_a_value_that_grows_makes_room_for_itself(policy: Any) -> None:
    """Others leave for it, never it for them; what is held counts once."""
    store = policy(10, 3 * ENTRY_OVERHEAD + 60)
    store["a"], store["b"], store["c"] = entry(20), entry(20), entry(20)
    large = store["a"] = entry(ENTRY_OVERHEAD + 30)
    assert store["a"] is large
    assert len(store) == 2
    assert (store.evicted, store.bytes) == (1, ENTRY_OVERHEAD + 50)
    assert store.currsize <= store.maxsize


def test_a_tag_names_the_keys_that_carry_it(policy: Any) -> None:
    """Through replacing, deleting and evicting; a tag that nobody carries is gone."""
    store = policy(2)
    store["a"], store["b"] = entry(tags=("x", "y")), entry(tags=("x",))
    assert store.tagged == {"x": {"a", "b"}, "y": {"a"}}
    store["a"] = entry(tags=("z",))
    assert store.tagged == {"x": {"b"}, "z": {"a"}}
    del store["b"]
    assert store.tagged == {"z": {"a"}}
    store["c"], store["d"] = entry(tags=("w",)), entry()
    assert store.tagged == ({"w": {"c"}} if "c" in store else {"z": {"a"}})
    store.clear()
    assert (dict(store.tagged), len(store), store.currsize, store.bytes) == ({}, 0, 0, 0)


def test_the_oldest_is_one_that_is_held(policy: Any) -> None:
    """By it a store is emptied step by step: first the one that came first, as long as nobody was hit."""
    store = policy(10)
    with pytest.raises(KeyError):
        store.oldest()
    for key in "abc":
        store[key] = entry()
    left = []
    while store:
        left.append(store.oldest())
        del store[left[-1]]
    assert left == ["a", "b", "c"]


def test_a_policy_makes_its_own_entries(policy: Any) -> None:
    """From what all have."""
    made = policy.make_entry("value", 1.0, 2, ("tag",), 3, 4.0)
    assert (made.value, made.deadline, made.version, made.tags, made.size) == ("value", 1.0, 2, ("tag",), 3)
    assert made.expires == 4.0
    store = policy(1)
    store["a"] = made
    hit(store, "a")
    assert store["a"] is made


def test_an_empty_store_has_nothing_to_evict(policy: Any) -> None:
    """As cachetools says it."""
    with pytest.raises(KeyError):
        policy(2).popitem()


def test_lru_evicts_what_was_used_longest_ago() -> None:
    """Putting, replacing and touching are uses."""
    store = Lru(3)
    for key in "abc":
        store[key] = entry()
    hit(store, "a")
    store["b"] = entry()
    store["d"] = entry()
    assert set(store) == {"a", "b", "d"}
    assert [store.popitem()[0] for _ in range(3)] == ["a", "b", "d"]


class TestS3Fifo:
    """The queues, as the paper has them."""

    def test_what_is_hit_once_outlives_a_scan(self) -> None:
        """New keys that nobody asks for again pass through the small queue, and leave the main one alone."""
        store = S3Fifo(100)
        for number in range(65):
            store[f"hot:{number}"] = entry()
            hit(store, f"hot:{number}")
        for number in range(1000):
            store[f"scan:{number}"] = entry()
        assert all(f"hot:{number}" in store for number in range(65))

    def test_who_comes_back_soon_is_kept(self) -> None:
        """A ghost brings its key into the main queue, past which new ones come and go."""
        store = S3Fifo(100)
        for number in range(101):
            store[str(number)] = entry()
        assert "0" not in store
        store["0"] = entry()
        for number in range(1000):
            store[f"scan:{number}"] = entry()
        assert "0" in store

    def test_who_comes_back_late_is_new(self) -> None:
        """Ghosts are remembered for as long as 0.9 of the entries stay."""
        store = S3Fifo(100)
        for number in range(200):
            store[str(number)] = entry()
        assert len(store._left_small) <= 90
        store["0"] = entry()
        for number in range(1000):
            store[f"scan:{number}"] = entry()
        assert "0" not in store

    def test_the_small_queue_grows_where_scans_are_longer(self) -> None:
        """Keys that are used twice, the second time after more others than the small queue holds at first."""
        store, found = S3Fifo(100), []
        for number in range(3000):
            store.setdefault(f"{number}", entry())
            again = f"{number - 80}"
            found.append(again in store)
            if found[-1]:
                hit(store, again)
            else:
                store[again] = entry()
        assert sum(found[-1000:]) > 900, "as LRU does"

    def test_the_small_queue_shrinks_where_it_is_too_long(self) -> None:
        """Keys that come back after they left the main queue say that it is too short."""
        store, found = S3Fifo(100), []
        for number in range(8000):
            key = f"popular:{number % 85}"
            found.append(key in store)
            if found[-1]:
                hit(store, key)
            else:
                store[key] = entry()
            store[f"scan:{number}"] = entry()
        assert sum(found[-1000:]) > 900, "a queue of the first length would leave the popular ones 70 places"

    def test_a_use_is_worth_one_more_round(self) -> None:
        """In the main queue, hits are spent one a round; the least used leaves first."""
        store = S3Fifo(10)
        for number in range(10):
            store[str(number)] = entry()
            hit(store, str(number))
        for number in range(10, 20):  # all go to the main queue, and spend there what is left
            store[str(number)] = entry()
        assert sum(str(number) in store for number in range(10)) == 7, "and three wait in the small one"
        for _ in range(3):
            for number in range(9):
                if str(number) in store:
                    hit(store, str(number))
        kept = {str(number) for number in range(9)} & store.keys()
        for number in range(20, 60):
            store[str(number)] = entry()
        assert kept <= store.keys()

    def test_no_insert_passes_by_more_than_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When all were used, the next in turn leaves after so many chances: work is bounded."""
        monkeypatch.setattr(s3fifo, "STEPS", 5)
        store = S3Fifo(100)
        for number in range(100):
            store[str(number)] = entry()
            for _ in range(USES_MAX):
                hit(store, str(number))
        store["new"] = entry()
        assert len(store) == 100
        assert store._main.count == 5, "so many had their chance"
        assert "5" not in store

    def test_a_new_value_of_a_key_keeps_its_uses(self) -> None:
        """To be written is a use as well."""
        store = S3Fifo(10)
        store["a"] = entry()
        hit(store, "a")
        store["a"] = entry()
        assert store["a"].uses == 2
        for _ in range(5):
            store["a"] = entry()
        assert store["a"].uses == USES_MAX

    def test_an_interrupted_change_costs_no_more_than_its_place(self) -> None:
        """An exception of a signal handler may come between any two steps: queues and entries then differ."""
        store = S3Fifo(10)
        for number in range(10):
            store[str(number)] = entry()
        del store.entries["0"]  # gone, but still in its queue
        store._small.head()
        store._small.rotate()
        store._small.pop()  # the other way round: "1" is in no queue
        store._main.append("2")  # on its way from one queue to the other
        for number in range(100):
            store[f"scan:{number}"] = entry()
        assert len(store) == 10
        while store:
            store.popitem()


class Reader(threading.Thread):
    """Looks keys up as a hit does, without a lock, until it is stopped."""

    def __init__(self, store: Any, written: dict[str, Used]) -> None:
        super().__init__()
        self.store, self.written = store, written
        self.reads = 0
        self.wrong: list[object] = []
        self.stop = threading.Event()

    def run(self) -> None:
        """Note whatever is neither the entry nor a KeyError."""
        try:
            while not self.stop.is_set():
                for key in self.written:
                    self.look(key)
        except BaseException as error:
            self.wrong.append(error)

    def look(self, key: str) -> None:
        """One hit or miss."""
        try:
            found = self.store.entries[key]
            hit(self.store, key)
        except KeyError:
            return
        self.reads += 1
        if found is not self.written[key]:
            self.wrong.append(key)


@pytest.mark.usefixtures("eager_switches")
def test_readers_without_a_lock_see_a_key_error_and_nothing_worse(policy: Any) -> None:
    """Two readers against a writer that evicts at each step: the entry, or a KeyError; the writer never fails."""
    store = policy(50)
    written = {str(number): entry(number) for number in range(200)}
    readers = [Reader(store, written) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        rounds = 0
        while rounds < 500 or (min(reader.reads for reader in readers) < 500 and rounds < 2000):
            rounds += 1
            for key, one in written.items():
                store[key] = one
            store.popitem()
            store.pop(key, None)
    finally:
        for reader in readers:
            reader.stop.set()
            reader.join()
    assert not [reader.wrong for reader in readers if reader.wrong]
    assert min(reader.reads for reader in readers) > 0
    assert len(store) <= 50
    assert set(store) == set(store.entries)
