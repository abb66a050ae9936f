"""Flights and waiters: who joins whom, and who is woken."""

from __future__ import annotations

import pytest

from nearcache.local.singleflight import Flight, Flights, Outcome, Purpose
from nearcache.local.snapshot import Snapshot
from nearcache.local.waiters import Waiters
from nearcache.runtime.latches import ThreadLatch

KEY = ("k", Purpose.VALUE)
OLD = Snapshot(epoch=1, stripe=7, stamp=0)


class Bell(ThreadLatch):
    """A Wake that can be looked at."""

    @property
    def rung(self) -> bool:
        """Whether it was set."""
        return self._is_set


def flight(snapshot: Snapshot = OLD, owner: object = "me") -> Flight:
    """A flight of somebody."""
    return Flight(snapshot, Bell(), (owner,))


def test_a_reader_joins_a_flight_under_the_same_token() -> None:
    """One load for both, and its outcome reaches the one that joined."""
    flights, leader, follower = Flights(), flight(), flight(owner="you")
    assert flights.enter(KEY, leader) is leader
    assert flights.enter(KEY, follower) is leader
    flights.end(KEY, leader, Outcome("value"))
    assert leader.outcome == Outcome("value")
    assert isinstance(leader.latch, Bell)
    assert leader.latch.rung
    assert not len(flights)


@pytest.mark.parametrize("snapshot", [OLD._replace(epoch=2), OLD._replace(stamp=9)], ids=["epoch", "stamp"])
def test_a_reader_after_a_write_begins_its_own_flight(snapshot: Snapshot) -> None:
    """A loader that has read the old row must not answer a reader that came after the delete (H)."""
    flights, old, new = Flights(), flight(), flight(snapshot, owner="you")
    flights.enter(KEY, old)
    assert flights.enter(KEY, new) is new
    flights.end(KEY, old, Outcome("old"))
    assert flights.enter(KEY, flight(snapshot, owner="they")) is new, "the old flight's end does not end the new one"


def test_a_flight_of_the_own_thread_is_told_whatever_its_token() -> None:
    """A loader that asks for its own key would otherwise wait for itself, or load again without end."""
    flights, outer = Flights(), flight()
    flights.enter(KEY, outer)
    assert flights.enter(KEY, flight(OLD._replace(epoch=5))) is outer


def test_a_refresh_is_no_read() -> None:
    """Who wants the value replaced does not take a load that may end with the present one."""
    flights, reader, refresher = Flights(), flight(), flight(owner="you")
    flights.enter(("k", Purpose.VALUE), reader)
    assert flights.enter(("k", Purpose.REPLACE), refresher) is refresher
    assert len(flights) == 2


def test_readers_whose_wait_is_over_share_one_flight() -> None:
    """They do not join what they were tired of waiting for, but each other."""
    flights, leader, first, second = Flights(), flight(), flight(owner="you"), flight(owner="they")
    flights.enter(("k", Purpose.VALUE), leader)
    assert flights.enter(("k", Purpose.AFTER_WAIT), first) is first
    assert flights.enter(("k", Purpose.AFTER_WAIT), second) is first


@pytest.mark.parametrize("other", Purpose)
def test_a_flight_of_the_own_thread_is_told_whatever_its_purpose(other: Purpose) -> None:
    """Its lease is ours."""
    flights, outer = Flights(), flight()
    flights.enter(KEY, outer)
    assert flights.enter(("k", other), flight()) is outer


def test_a_leader_that_gives_up_wakes_without_an_outcome() -> None:
    """Somebody else has to lead."""
    flights, leader = Flights(), flight()
    flights.enter(KEY, leader)
    flights.end(KEY, leader, None)
    assert leader.outcome is None
    assert flights.enter(KEY, mine := flight(owner="you")) is mine


def test_news_wake_those_who_wait_for_the_key() -> None:
    """All of them, and nobody else."""
    waiters, first, second, other = Waiters(), Bell(), Bell(), Bell()
    for key, bell in (("a", first), ("a", second), ("b", other)):
        waiters.add(key, bell)
    waiters.wake(["a", "c"])
    assert [bell.rung for bell in (first, second, other)] == [True, True, False]
    waiters.wake_all()
    assert other.rung


def test_nothing_is_left_when_all_have_stopped_waiting() -> None:
    """Each remove takes one away, and the key with the last."""
    waiters, first, second = Waiters(), Bell(), Bell()
    waiters.add("a", first)
    waiters.add("a", second)
    waiters.remove("a", first)
    assert len(waiters) == 1
    waiters.remove("a", second)
    assert not len(waiters)
    waiters.wake(["a"])
    assert not first.rung


def test_a_leader_that_vanished_is_followed_by_nobody() -> None:
    """Interrupted before it could end its flight, it takes it along."""
    flights = Flights()
    lost = flight()
    assert flights.enter(("a", Purpose.VALUE), lost) is lost
    del lost
    mine = flight(owner="you")
    assert flights.enter(("a", Purpose.VALUE), mine) is mine
