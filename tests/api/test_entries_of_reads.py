"""Entries of L1 that a read of several keys makes in its one pass are as those that the rules for one make."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from nearcache.engine.plain import AT_ONCE
from nearcache.engine.read import fetch_many
from nearcache.local.store import Entry
from nearcache.protocol import records
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FakeServer, ManualClock
from nearcache.transport.batching import TaskReads
from tests.support.cases import each

VALUES: dict[str, Any] = {
    "int": 1,
    "text": "x" * 50,
    "dict": {"a": [1]},
    "list": [1, 2],
    "set": {1, 2},
    "tuple": (1, 2),
    "tuple of a list": ([1], 2),
}
TIMES_AND_COPIES: list[dict[str, Any]] = [
    {},
    {"l1_ttl": 1.0},
    {"early_refresh": 0.5},
    {"copy": "none"},
    {"copy": "serialized"},
]


@each("options", TIMES_AND_COPIES)
def test_an_entry_is_the_same_by_either_way(options: dict[str, Any]) -> None:
    """Value, times, version, tags and size."""
    server = FakeServer()
    with ManualClock(), server.cache(jitter=0.0, **options) as cache:
        assert cache.set_many(VALUES)
        server.settle()  # a record above what the bus has brought goes the general way
        cache.clear_local()
        assert cache.get_many(VALUES) == VALUES
        core = cache._core
        for key, value in VALUES.items():
            (raw,) = run_sync(core.remote.read([key], with_bounds=False)).records
            assert raw is not None
            one = records.unpack(raw)
            made = core.entries.entry(
                key, value, one.payload, one.version, one.fresh_until, core.policy, (), one.load_ms
            )
            assert shown(core.tier.entries[key]) == shown(made), key


def test_an_entry_is_refreshed_by_chance_where_the_policy_says_so() -> None:
    """The draw of XFetch makes its own deadline before its end."""
    server = FakeServer()
    with ManualClock() as clock, server.cache(jitter=0.0, xfetch_beta=100.0, ttl=100.0) as cache:
        assert cache.set_many(VALUES)
        cache.get_or_set("loaded", partial(clock.advance, 0.5))
        server.settle()
        cache.clear_local()
        cache.get_many([*VALUES, "loaded"])
        entries = cache._core.tier.entries
        assert {key for key, one in entries.items() if one.deadline < one.expires} == {"loaded"}


async def test_what_a_cancelled_pass_has_judged_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not put, so nothing would keep a later read from an older value."""
    server = FakeServer()
    values = {f"key:{number}": "x" * AT_ONCE for number in range(3)}
    async with server.async_cache() as cache:
        assert await cache.set_many(values)
        await server.async_settle()
        cache.clear_local()
        core, turns = cache._core, []
        core.single = reads = TaskReads(core)  # the fake server's reads go one by one
        reads._crowded = True  # the first one waits for others

        async def cancelled() -> None:
            turns.append(core.tier.count)
            raise asyncio.CancelledError

        monkeypatch.setattr(core.runtime, "give_way", cancelled)
        assert await asyncio.gather(*map(cache.get, values)) == [None] * 3
        assert turns == [0]
        assert cache.stats().l2_hits == 0


def test_a_key_that_was_not_asked_for_has_not_failed() -> None:
    """Its own write is not proven yet, so that Redis is not asked: what happens to the others says nothing of it."""
    server = FakeServer()
    with server.cache() as cache:
        assert cache.wait_healthy(5)
        cache._core.tier.journal_keys(["journalled"], not_before=1 << 60)
        with server.away(only=["read"]):
            asked = run_sync(fetch_many(cache._core, ["journalled", "other"], cache._core.policy))
        assert [one.failure is None for one in asked] == [True, False]


def shown(entry: Entry) -> tuple[Any, ...]:
    """What counts of an entry."""
    return entry.value, entry.decode, entry.deadline, entry.expires, entry.version, entry.tags, entry.size
