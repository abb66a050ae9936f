"""The contract of L1's eviction policies: each through the same tests, then against a model, then under threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cachetools import Cache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nearcache.local.eviction import ENTRY_OVERHEAD, Entry, Lru

POLICIES: list[Callable[..., Any]] = [Lru]
"""Each is made from max_entries and max_bytes."""

KEYS = [str(number) for number in range(8)]


def entry(size: int = 10) -> Entry:
    """An entry of this many encoded bytes."""
    return Entry("value", float("inf"), 1, (), size, float("inf"))


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


def test_touching_what_has_left_is_a_key_error(policy: Any) -> None:
    """A reader without a lock takes it for a miss; it must not bring the key back."""
    store = policy(2)
    with pytest.raises(KeyError):
        store.touch("a")
    assert not store.entries


def test_an_empty_store_has_nothing_to_evict(policy: Any) -> None:
    """As cachetools says it."""
    with pytest.raises(KeyError):
        policy(2).popitem()


def test_lru_evicts_what_was_used_longest_ago() -> None:
    """Putting, replacing and touching are uses."""
    store = Lru(3)
    for key in "abc":
        store[key] = entry()
    store.touch("a")
    store["b"] = entry()
    store["d"] = entry()
    assert set(store) == {"a", "b", "d"}
    assert [store.popitem()[0] for _ in range(3)] == ["a", "b", "d"]


class AgainstAList(RuleBasedStateMachine):
    """An Lru bounded by entries and bytes, beside a list that is kept in order by hand."""

    MAX_ENTRIES = 4
    MAX_BYTES = 4 * ENTRY_OVERHEAD + 60

    def __init__(self) -> None:
        super().__init__()
        self.store = Lru(self.MAX_ENTRIES, self.MAX_BYTES)
        self.model: list[tuple[str, Entry]] = []

    def cost(self) -> int:
        """Bytes in the model."""
        return sum(one.size + ENTRY_OVERHEAD for _, one in self.model)

    def find(self, key: str) -> Entry | None:
        """The model's entry of a key."""
        return next((one for name, one in self.model if name == key), None)

    @rule(key=st.sampled_from(KEYS), size=st.integers(0, 40))
    def put(self, key: str, size: int) -> None:
        """The newest is last. Who leaves is a first part of the order, and nobody while there is room."""
        one = entry(size)
        room = self.cost() + size + ENTRY_OVERHEAD <= self.MAX_BYTES
        room &= self.find(key) is not None or len(self.model) < self.MAX_ENTRIES
        evicted = self.store.evicted
        self.store[key] = one
        wanted = [*(pair for pair in self.model if pair[0] != key), (key, one)]
        left = len(wanted) - len(self.store)
        assert list(self.store.entries.items()) == wanted[left:]
        # A value that grows may have to leave itself to make room for its successor; it is counted too.
        assert left <= self.store.evicted - evicted <= left + 1
        assert not (room and left)
        self.model = wanted[left:]

    @rule(key=st.sampled_from(KEYS))
    def touch(self, key: str) -> None:
        """A hit makes its key the last to leave."""
        one = self.find(key)
        if one is None:
            with pytest.raises(KeyError):
                self.store.touch(key)
            return
        self.store.touch(key)
        self.model = [*(pair for pair in self.model if pair[0] != key), (key, one)]

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        """A delete takes one away."""
        if self.find(key) is not None:
            del self.store[key]
            self.model = [pair for pair in self.model if pair[0] != key]

    @invariant()
    def same(self) -> None:
        """Content, order and size agree."""
        assert list(self.store.entries.items()) == self.model
        assert dict(self.store) == dict(self.model)
        assert self.store.currsize == self.cost()
        assert len(self.model) <= self.MAX_ENTRIES
        assert self.cost() <= self.MAX_BYTES


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def _eager_switches() -> Iterator[None]:
    """Threads hand over at nearly every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Reader(threading.Thread):
    """Looks keys up as a hit does, without a lock, until it is stopped."""

    def __init__(self, store: Any, written: dict[str, Entry]) -> None:
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
            self.store.touch(key)
        except KeyError:
            return
        self.reads += 1
        if found is not self.written[key]:
            self.wrong.append(key)


@pytest.mark.usefixtures("_eager_switches")
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
            del store[key]
    finally:
        for reader in readers:
            reader.stop.set()
            reader.join()
    assert not [reader.wrong for reader in readers if reader.wrong]
    assert min(reader.reads for reader in readers) > 0
    assert len(store) <= 50
    assert set(store) == set(store.entries)
