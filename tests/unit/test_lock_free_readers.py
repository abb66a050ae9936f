"""Readers take no lock: several threads hit while others write, evict, invalidate and clear at full rate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from nearcache import NearCache
from nearcache.settings import SettingsOptions

pytestmark = pytest.mark.usefixtures("eager_switches")
EVICTIONS = get_args(get_type_hints(SettingsOptions)["eviction"])
KEYS = [f"key:n{number}" for number in range(60)]
ROOM = 40
"""Fewer than there are keys: every round evicts."""


class Reader(threading.Thread):
    """Reads all keys again and again; each value names its key, and a number that only rises."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        super().__init__()
        self.read = read
        self.stop = threading.Event()
        self.reads = 0
        self.newest = dict.fromkeys(KEYS, 0)
        self.wrong: list[object] = []

    def run(self) -> None:
        """Note whatever is wrong."""
        try:
            while not self.stop.is_set():
                for key in KEYS:
                    self.check(key, self.read(key))
        except BaseException as error:
            self.wrong.append(error)

    def check(self, key: str, value: Any) -> None:
        """A miss, or this key's value, and none older than what was read before (G4)."""
        if value is None:
            return
        self.reads += 1
        name, number = value
        if name != key or number < self.newest[key]:
            self.wrong.append((key, value, self.newest[key]))
        self.newest[key] = number


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_readers_see_the_value_or_a_miss_and_nothing_worse(eviction: Any) -> None:
    """By `get`, `peek` and a decorated function; nobody raises, values never go back, and L1 stays in its bounds."""
    with NearCache.from_url("memory://", eviction=eviction, l1_max_entries=ROOM) as cache:

        @cache.cached("key:{name}")
        def missing(name: str) -> None:
            raise KeyError(name)

        def call(key: str) -> Any:
            try:
                return missing(key.removeprefix("key:"))
            except KeyError:
                return None

        readers = [Reader(read) for read in (cache.get, cache.peek, call)]
        for reader in readers:
            reader.start()
        try:
            number = rounds = 0
            while rounds < 60 or (min(reader.reads for reader in readers) < 500 and rounds < 2000):
                rounds += 1
                for key in KEYS:
                    number += 1
                    cache.set(key, (key, number), tags=["all", key])
                cache.delete(*KEYS[:5])
                cache.invalidate_tags(KEYS[10], KEYS[11])
                if rounds % 4 == 0:
                    cache.invalidate_tags("all")
                if rounds % 5 == 0:
                    cache.clear()
        finally:
            for reader in readers:
                reader.stop.set()
                reader.join()
        assert not [reader.wrong[:3] for reader in readers if reader.wrong]
        assert min(reader.reads for reader in readers) > 0
        stats = cache.stats()
        assert stats.l1_entries <= ROOM
        assert stats.evictions > 0
        assert stats.l1_hits > 0
