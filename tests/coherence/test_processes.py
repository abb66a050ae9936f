"""Four real processes, of threads and of asyncio, share a cache: every write reaches every other L1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nearcache.local.invalidation import Effects
from nearcache.protocol import messages
from nearcache.transport.embedded import EmbeddedServer
from tests.torture.scenarios.coherence import KEYS, run

# The two ways to break a cache are this module's own functions: another process finds them by name.


def lose_messages(cache: Any) -> None:
    """What the bus brings does not arrive."""
    cache._core.invalidation.messages = lambda batch: Effects()


def ignore_messages(cache: Any) -> None:
    """What the bus brings is counted, and not applied: no heartbeat notices."""
    feed = cache._core.invalidation

    def count(batch: Sequence[bytes]) -> Effects:
        for data in batch:
            feed.last = messages.unpack(data).number
        return Effects()

    feed.messages = count


def test_every_update_is_seen_by_all_others(server: EmbeddedServer, namespace: str) -> None:
    """Each of 400 updates is dropped from the three other L1s by its message, and no old value is served after it."""
    outcome = run(server.url, namespace, updates=400, pace=0.002)
    assert (outcome.updates, outcome.seen) == (400, 1200)
    assert (outcome.missed, outcome.stale) == (0, 0)
    assert outcome.coherent


def test_a_process_that_loses_messages_is_noticed_and_serves_nothing_old(
    server: EmbeddedServer, namespace: str
) -> None:
    """The run can fail: what one process did not hear is missed. Its heartbeat notices, so that nothing is stale."""
    outcome = run(server.url, namespace, updates=KEYS, pace=0.002, breaking={3: lose_messages})
    assert (outcome.missed, outcome.stale) == (KEYS * 3 // 4, 0)
    assert not outcome.coherent


def test_a_process_that_ignores_messages_is_found_stale(server: EmbeddedServer, namespace: str) -> None:
    """The run can fail otherwise: old values that one process serves are counted, after the round and at the end."""
    outcome = run(server.url, namespace, updates=KEYS, pace=0.002, breaking={0: ignore_messages})
    assert (outcome.missed, outcome.stale) == (KEYS * 3 // 4, 2 * KEYS * 3 // 4)
    assert not outcome.coherent
