"""The scripts of a load on each kind of server: who gets the lease, and whose fill is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nearcache.protocol import records
from nearcache.protocol.answers import Busy, Granted, Held, Present
from nearcache.protocol.messages import CHANGED, FILLED, Message
from nearcache.protocol.versions import NO_FLOOR
from tests.support.rig import LEASE, OTHER, TOKEN, Rig, greet


def test_a_lease_is_given_once(rig: Rig) -> None:
    """The second asker learns how long to wait, and is noted as waiting; the lease keeps its end."""
    grant = rig.granted("k")
    assert (grant.number, grant.floor) == rig.counter()
    assert rig.holder("k") == b"L" + TOKEN
    assert 0 < rig.client.pttl(rig.names.lease("k")) <= LEASE
    busy = rig.lease("k", OTHER)
    assert isinstance(busy, Busy)
    assert 0 < busy.remaining <= LEASE / 1000
    assert rig.holder("k") == b"W" + TOKEN
    assert 0 < rig.client.pttl(rig.names.lease("k")) <= LEASE
    assert isinstance(rig.lease("k", OTHER), Busy)
    assert rig.holder("k") == b"W" + TOKEN


def test_a_lease_tells_of_a_value_that_came_meanwhile(rig: Rig) -> None:
    """Not of the one the asker judged dead."""
    rig.set("k")
    raw = rig.raw("k")
    assert raw is not None
    assert rig.lease("k") == Present()
    assert rig.lease("k", dead=b"\xc2another head") == Present()
    assert isinstance(rig.lease("k", dead=raw[: records.HEAD_BYTES]), Granted)


@pytest.mark.parametrize("foreign", [b"", b"text", b"\xc1 of another version"])
def test_a_foreign_value_does_not_hinder_a_load(rig: Rig, foreign: bytes) -> None:
    """It is a miss, and the fill overwrites it."""
    rig.client.set(rig.names.value("k"), foreign)
    grant = rig.granted("k")
    assert rig.fill("k", grant)
    assert rig.record("k").payload == b"loaded"


def test_a_value_of_another_type_does_not_hinder_a_load(rig: Rig) -> None:
    """WRONGTYPE is a dead value: read as absent, leased, overwritten, deleted."""
    for key in ("k", "gone"):
        rig.client.rpush(rig.names.value(key), "x")
    assert rig.do(rig.remote.read(["k"], with_bounds=True)).records == [None]
    grant = rig.granted("k")
    assert rig.fill("k", grant)
    assert rig.record("k").payload == b"loaded"
    rig.delete("gone")
    assert not rig.client.exists(rig.names.value("gone"))


def test_a_hold_refuses_leases(rig: Rig) -> None:
    """Nobody fills until it ends; asking does not change it."""
    rig.client.set(rig.names.lease("k"), b"D", px=LEASE)
    assert rig.lease("k") == Held()
    assert rig.holder("k") == b"D"
    assert rig.fill("k", Granted(NO_FLOOR, NO_FLOOR, ())) is None
    rig.abort("k", b"")
    assert rig.holder("k") == b"D"


def test_a_lease_gives_a_fresh_tag_its_floor(rig: Rig) -> None:
    """Else a fresh tag could never be filled; and it says the floors under which the fill may come."""
    number = rig.set("a", tags=("old",)).number
    rig.set("b")
    grant = rig.granted("k", tags=("fresh", "old"))
    assert grant.tag_floors == (number + 1, number - 1)
    assert rig.tag_floor("fresh") == number + 1


def test_a_lease_in_a_fresh_namespace_creates_the_counter(rig: Rig) -> None:
    """Else it could never be filled."""
    grant = rig.granted("k")
    assert grant.number == grant.floor
    assert rig.fill("k", grant)


def test_a_fill_stores_under_the_number_as_it_stands_and_sends_nothing(rig: Rig) -> None:
    """Misses are far more frequent than writes; nobody is told unless somebody waits."""
    greet(rig)
    grant = rig.granted("k", tags=("x",))
    number = rig.set("another").number
    written = rig.fill("k", grant, tags=("x",))
    assert written is not None
    assert written.number == number
    assert rig.record("k").version == written.version
    assert rig.holder("k") is None
    assert rig.messages() == [Message(CHANGED, number, ["another"])]


def test_two_fills_under_one_number_differ_in_time(rig: Rig) -> None:
    """Hence a version is both (J)."""
    first = rig.fill("k", rig.granted("k"))
    raw = rig.raw("k")
    assert first is not None
    assert raw is not None
    lease = rig.lease("k", OTHER, dead=raw[: records.HEAD_BYTES])
    second = rig.fill("k", lease, OTHER)
    assert second is not None
    assert second.number == first.number
    assert second.version > first.version


CHANGES: dict[str, Callable[[Rig], object]] = {
    "delete": lambda rig: rig.delete("k"),
    "set": lambda rig: rig.set("k"),
    "clear": lambda rig: rig.clear(),
    "tag": lambda rig: rig.tag("x"),
    "stale tag": lambda rig: rig.tag("x", stale=True),
    "another's lease": lambda rig: rig.client.set(rig.names.lease("k"), b"L" + OTHER, px=LEASE),
    "end of the lease": lambda rig: rig.client.delete(rig.names.lease("k")),
    "hold": lambda rig: rig.client.set(rig.names.lease("k"), b"D", px=LEASE),
    "lost m": lambda rig: rig.client.delete(rig.names.counters),
    "lost and new m": lambda rig: (rig.client.delete(rig.names.counters), rig.set("another")),
    "lost floor": lambda rig: rig.client.hdel(rig.names.counters, "f"),
    "lost tag": lambda rig: rig.client.delete(*rig.names.tags(["x"])),
    "lost and new tag": lambda rig: (
        rig.tag("x"),
        rig.client.delete(*rig.names.tags(["x"])),
        rig.set("another", tags=("x",)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_fill_is_refused_when_its_lease_or_floors_changed(rig: Rig, change: str) -> None:
    """Whatever came after the loader began wins, and what can't be known counts as such (K)."""
    grant = rig.granted("k", tags=("x",))
    CHANGES[change](rig)
    before = rig.raw("k")
    assert rig.fill("k", grant, tags=("x",)) is None
    assert rig.raw("k") == before
    assert rig.holder("k") != b"L" + TOKEN


def test_a_change_elsewhere_does_not_refuse_a_fill(rig: Rig) -> None:
    """Other keys and other tags are not ours."""
    grant = rig.granted("k", tags=("x",))
    rig.delete("another")
    rig.set("a third", tags=("x", "y"))
    rig.tag("y")
    assert rig.fill("k", grant, tags=("x",))


@pytest.mark.parametrize("change", [None, "clear", "tag", "lost m", "lost floor", "lost tag"])
def test_a_fill_wakes_those_who_wait_stored_or_refused(rig: Rig, change: str | None) -> None:
    """A refused fill frees the key as well; who waits must look again (O)."""
    greet(rig)
    grant = rig.granted("k", tags=("x",))
    assert isinstance(rig.lease("k", OTHER, tags=("x",)), Busy)
    if change is not None:
        CHANGES[change](rig)
    assert (rig.fill("k", grant, tags=("x",)) is None) == (change is not None)
    assert rig.messages()[-1] == Message(FILLED, 0, ["k"])
    assert rig.holder("k") is None


ADDED = (0,)
"""The floor of a tag that the loader has added."""


@pytest.mark.parametrize(
    "change", ["set", "delete", "clear", "tag", "stale tag", "lost and new tag", "a write elsewhere"]
)
def test_a_fill_under_a_tag_that_the_loader_has_added(rig: Rig, change: str) -> None:
    """Its floor has to be there, and not above the number of the lease (BB)."""
    rig.set("another key", tags=("x",))
    grant = rig.granted("k")._replace(tag_floors=ADDED)
    elsewhere = change == "a write elsewhere"
    if elsewhere:
        rig.delete("another")
    else:
        CHANGES[change](rig)
    assert (rig.fill("k", grant, tags=("x",)) is None) == (not elsewhere)
    assert None not in rig.do(rig.remote.tag_floors(["x"]))


@pytest.mark.parametrize("writes", [0, 1])
def test_a_fill_under_a_new_tag_that_the_loader_has_added(rig: Rig, writes: int) -> None:
    """Its floor is created at the number as it stands: whatever was written since the lease refuses the fill (BB)."""
    grant = rig.granted("k")._replace(tag_floors=ADDED)
    for _ in range(writes):
        rig.delete("another")
    assert (rig.fill("k", grant, tags=("x",)) is None) == bool(writes)
    assert rig.tag_floor("x") == grant.number + writes
    if writes:  # and is there for the next load
        rig.delete("another")
        assert rig.fill("k", rig.granted("k")._replace(tag_floors=ADDED), tags=("x",))


def test_a_fill_leaves_anothers_lease_alone(rig: Rig) -> None:
    """It may be the new one, given after a delete."""
    rig.granted("k", OTHER)
    assert rig.fill("k", Granted(NO_FLOOR, NO_FLOOR, ())) is None
    assert rig.holder("k") == b"L" + OTHER
    rig.lease("k", TOKEN)
    assert rig.fill("k", Granted(NO_FLOOR, NO_FLOOR, ()), b"neither of both!") is None
    assert rig.holder("k") == b"W" + OTHER
    assert not rig.messages()


def test_an_abort_frees_the_key_and_wakes_who_waits(rig: Rig) -> None:
    """Only its own lease; nobody hears it unless somebody waits."""
    rig.granted("k")
    rig.abort("k", OTHER)
    assert rig.holder("k") == b"L" + TOKEN
    rig.abort("k")
    assert rig.holder("k") is None
    rig.abort("k")
    assert not rig.messages()
    rig.granted("k")
    rig.lease("k", OTHER)
    rig.abort("k")
    assert rig.holder("k") is None
    assert rig.messages() == [Message(FILLED, 0, ["k"])]
