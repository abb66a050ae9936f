"""What holds for both classes on real servers holds on nearcache.testing's fake one: the same tests, once more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api import test_counters, test_journal_and_holds, test_loading, test_reading_and_writing
from tests.support.twins import MakeCache

PROMISES = (
    test_counters.test_reads_are_counted_by_who_answers,
    test_counters.test_a_load_is_a_miss_and_a_load,
    test_counters.test_evictions_are_those_for_want_of_room,
    test_counters.test_invalidations_are_counted_on_both_sides,
    test_counters.test_a_refused_fill_is_counted,
    test_journal_and_holds.test_a_delete_that_holds,
    test_journal_and_holds.test_a_large_tag_is_dropped_by_the_bus_alone,
    test_journal_and_holds.test_commands_that_another_server_answers,
    test_loading.test_two_instances_share_one_load,
    test_loading.test_a_follower_does_not_wait_for_ever,
    test_loading.test_a_lease_ends_by_itself,
    test_loading.test_refresh_replaces_the_value_in_redis,
    test_loading.test_a_write_during_a_load_wins,
    test_reading_and_writing.test_clear_local_keeps_redis,
    test_reading_and_writing.test_peek_never_asks_redis,
    test_reading_and_writing.test_another_instance_reads_many,
)
"""Tests that ask for caches alone, and do not look at the server behind them."""


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__)
async def test_a_promise_holds(promise: Any, make_fake: MakeCache) -> None:
    """As on Valkey and Redis."""
    await promise(make_fake)
