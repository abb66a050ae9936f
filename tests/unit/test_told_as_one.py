"""Events of several buckets that are told as one, and what goes on behind the end of that."""

from __future__ import annotations

from contextvars import copy_context

from nearcache import Connected, Flushed, Journalled
from nearcache.engine.buckets import WholeCore
from nearcache.events import Event
from nearcache.local.effects import Cause
from nearcache.testing import FakeServer


def test_what_goes_on_behind_the_end_is_told_at_once() -> None:
    """A task that was begun within it, as one that replays the journal, has its context for as long as it runs."""
    events: list[Event] = []
    with FakeServer().cache(namespace="shop", buckets=4) as cache:
        core = cache._core
        assert isinstance(core, WholeCore)
        assert cache.wait_healthy(5)
        cache.on_event(events.append)
        first, second = core.parts[:2]
        with core.as_one():
            later = copy_context()
            core.emit_of(first, Flushed("lost", 2))
            core.emit_of(second, Flushed("lost", 3))
            assert core.is_first(first, Cause.GAP)
            assert not core.is_first(second, Cause.GAP)
            assert events == []
        assert events == [Flushed("primary fake:0, buckets 0 1: lost", 5)]
        later.run(core.emit_of, first, Journalled(1, "away"))
        assert events[1:] == [Journalled(1, "away")]
        assert later.run(core.is_first, second, Cause.GAP)


def test_a_flush_is_told_before_the_proof_behind_it() -> None:
    """As with one bucket: whoever hears of the proof knows by then that values were lost."""
    events: list[Event] = []
    with FakeServer().cache(namespace="shop", buckets=4) as cache:
        core = cache._core
        assert isinstance(core, WholeCore)
        assert cache.wait_healthy(5)
        cache.on_event(events.append)
        with core.as_one():
            core.emit_of(core.parts[0], Flushed("lost", 2))
            core.emit_of(core.parts[0], Connected(0))
        assert events == [Flushed("lost", 2), Connected(0)]
