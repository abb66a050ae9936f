"""The store beside plain models, by random steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nearcache.local.s3fifo import S3Fifo, Used
from nearcache.local.store import ENTRY_OVERHEAD, Lru, Store
from tests.unit.test_store import KEYS, entry, hit


class AgainstAList(RuleBasedStateMachine):
    """An Lru bounded by entries and bytes, beside a list that is kept in order by hand."""

    MAX_ENTRIES = 4
    MAX_BYTES = 4 * ENTRY_OVERHEAD + 60

    def __init__(self) -> None:
        super().__init__()
        self.store = Lru(self.MAX_ENTRIES, self.MAX_BYTES)
        self.model: list[tuple[str, Used]] = []

    def cost(self) -> int:
        """Bytes in the model."""
        return sum(one.size + ENTRY_OVERHEAD for _, one in self.model)

    def find(self, key: str) -> Used | None:
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
        assert self.store.evicted - evicted == left
        assert not (room and left)
        self.model = wanted[left:]

    @rule(key=st.sampled_from(KEYS))
    def touch(self, key: str) -> None:
        """A hit makes its key the last to leave."""
        one = self.find(key)
        if one is None:
            with pytest.raises(KeyError):
                self.store.entries.move_to_end(key)
            return
        hit(self.store, key)
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


class AgainstADict(RuleBasedStateMachine):
    """Any policy beside a dict that has its content: what leaves is told by what is left."""

    MAX_ENTRIES = 4
    MAX_BYTES = 4 * ENTRY_OVERHEAD + 60
    policy: Callable[..., Store[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).policy(self.MAX_ENTRIES, self.MAX_BYTES)
        self.model: dict[str, Used] = {}
        self.left = 0

    @rule(key=st.sampled_from(KEYS), size=st.integers(0, 40), tags=st.sets(st.sampled_from("xy")))
    def put(self, key: str, size: int, tags: set[str]) -> None:
        """It is there; others leave only for want of room, and no more of them than it takes."""
        one = entry(size, tuple(tags))
        before = {name: held for name, held in self.model.items() if name != key}
        self.store[key] = one
        after = dict(self.store.entries)
        assert after.pop(key) is one
        assert after.items() <= before.items()
        gone = [before[name] for name in before.keys() - after.keys()]
        if gone:
            cost = sum(held.size + ENTRY_OVERHEAD for held in (*after.values(), one))
            room = self.MAX_BYTES - cost
            assert len(after) + 1 >= self.MAX_ENTRIES or max(held.size for held in gone) + ENTRY_OVERHEAD > room
        self.left += len(gone)
        self.model = {**after, key: one}

    @rule(key=st.sampled_from(KEYS))
    def use(self, key: str) -> None:
        """A hit changes no content."""
        if key in self.model:
            hit(self.store, key)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        """A delete takes one away."""
        if self.model.pop(key, None) is not None:
            del self.store[key]

    @rule()
    def pop(self) -> None:
        """One leaves, and says which."""
        if self.model:
            key, one = self.store.popitem()
            assert self.model.pop(key) is one
            self.left += 1

    @rule()
    def clear(self) -> None:
        """All leave."""
        self.store.clear()
        self.model = {}

    @invariant()
    def same(self) -> None:
        """Content, sizes, tags and counts agree."""
        store, held = self.store, self.model
        assert dict(store.entries) == dict(store) == held
        assert store.evicted == self.left
        assert store.bytes == sum(one.size for one in held.values())
        assert store.currsize == store.bytes + ENTRY_OVERHEAD * len(held) <= store.maxsize
        assert len(held) <= self.MAX_ENTRIES
        wanted = {tag: {key for key, one in held.items() if tag in one.tags} for tag in "xy"}
        assert store.tagged == {tag: keys for tag, keys in wanted.items() if keys}
        assert not held or store.oldest() in held
        if isinstance(store, S3Fifo):
            main = {key for key, one in store.entries.items() if one.main}
            assert (store._main.count, store._small.count) == (len(main), len(held) - len(main))


class LruAgainstADict(AgainstADict):
    """The first."""

    policy = Lru


class S3FifoAgainstADict(AgainstADict):
    """The second."""

    policy = S3Fifo


STEPS = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestLruAgainstADict = LruAgainstADict.TestCase
TestLruAgainstADict.settings = STEPS
TestS3FifoAgainstADict = S3FifoAgainstADict.TestCase
TestS3FifoAgainstADict.settings = STEPS
TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = STEPS
