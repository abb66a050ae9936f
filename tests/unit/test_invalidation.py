"""The invalidation: numbers without a gap, what proves L1, and what flushes it."""

from __future__ import annotations

import struct

import pytest

from nearcache.local.deferred import STEP
from nearcache.local.effects import Cause
from nearcache.local.floors import TAG_FLOORS_MAX
from nearcache.local.invalidation import ANEW, FLUSHES_MAX, QUIET, Invalidation
from nearcache.local.store import Entry
from nearcache.local.tier import NEVER, Tier
from nearcache.protocol.answers import Beat, Greeting, Written
from nearcache.protocol.messages import pack_probe
from nearcache.protocol.records import pack_names
from nearcache.protocol.versions import version_of

STALENESS = 2.0
SECOND = 1_000_000


def message(kind: str, number: int, *names: str) -> bytes:
    """As the scripts make it."""
    return struct.pack(">BcQ", 1, kind.encode(), number) + pack_names(names)


def filled(*names: str) -> bytes:
    """A fill that somebody waited for."""
    return b"\x01F" + pack_names(names)


def hold(invalidation: Invalidation, *keys: str, number: int = 5, tags: tuple[str, ...] = ()) -> None:
    """Put entries into L1."""
    for key in keys:
        snapshot = invalidation._tier.snapshot(key)
        assert invalidation._tier.put(
            key, Entry("v", float("inf"), version_of(number, 1), tags, 1, float("inf")), snapshot
        )


def greeting(number: int, *, identity: str | None = "one", floor: int = 1) -> Greeting:
    """A server's."""
    return Greeting(identity, number, floor, 100 * SECOND)


def beat(number: int | None, floor: int | None = 1) -> Beat:
    """A master's."""
    return Beat(number, floor, 100 * SECOND, master=True)


@pytest.fixture
def invalidation() -> Invalidation:
    """A invalidation that is proven at number 5, at the time 10.0."""
    made = Invalidation(Tier(100), STALENESS)
    made.back(greeting(5), 10.0, prove=True)
    return made


def test_messages_in_order_drop_what_they_name(invalidation: Invalidation) -> None:
    """One number after the other: I drops keys, T what is tagged, C all."""
    hold(invalidation, "a", "b", "c")
    hold(invalidation, "t", tags=("users",))
    heard = invalidation.messages([message("I", 6, "a", "z"), message("I", 7, "b")])
    assert heard.keys == ["a", "z", "b"]
    assert not heard.flushes
    assert not heard.everything
    assert heard.received == 2
    assert list(invalidation._tier.entries) == ["c", "t"]
    assert invalidation.messages([message("T", 8, "users")]).everything
    assert list(invalidation._tier.entries) == ["c"]
    assert invalidation.messages([message("C", 9)]).everything
    assert not invalidation._tier.entries
    assert invalidation.last == 9


@pytest.mark.parametrize("number", [5, 4, 7, 100])
@pytest.mark.parametrize("kind", ["I", "C", "T"])
def test_a_number_that_is_not_the_next_flushes(invalidation: Invalidation, kind: str, number: int) -> None:
    """A gap, a repetition and a step back alike: something was missed, or the counter was lost."""
    hold(invalidation, "a")
    heard = invalidation.messages([message(kind, number, "b")])
    assert len(heard.flushes) == 1
    assert heard.flushes[0][2] == 1
    assert heard.everything
    assert not invalidation._tier.entries
    assert invalidation.last == number


@pytest.mark.parametrize("tail", [b"\xff\xfe", b"\0", b"k\0\x01"], ids=["utf-8", "longer", "cut"])
def test_a_message_of_one_key_that_does_not_parse_flushes(invalidation: Invalidation, tail: bytes) -> None:
    """Though it begins as nearly all do: with the next number, and the length of one key."""
    hold(invalidation, "a")
    heard = invalidation.messages([struct.pack(">BcQH", 1, b"I", 6, 2) + tail])
    assert "can't be read" in heard.flushes[0][1]
    assert (invalidation.last, heard.keys, len(invalidation._tier.entries)) == (5, [], 0)


@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=["one key", "some"])
def test_a_change_raises_the_stamp_under_which_a_slow_reply_would_be_put(
    invalidation: Invalidation, names: tuple[str, ...]
) -> None:
    """However many keys it has: what was read before it is refused, and what it wrote itself is not."""
    snapshot = invalidation._tier.snapshot("a")
    assert invalidation.messages([message("I", 6, *names)]).keys == [*names]
    assert not invalidation._tier.put("a", Entry("v", float("inf"), version_of(5, 9), (), 1, float("inf")), snapshot)
    assert invalidation._tier.put("a", Entry("v", float("inf"), version_of(6, 9), (), 1, float("inf")), snapshot)


def test_an_own_write_survives_its_message(invalidation: Invalidation) -> None:
    """Its number is not below the message's; that of an older value is."""
    hold(invalidation, "a", number=6)
    hold(invalidation, "b", number=5)
    invalidation.messages([message("I", 6, "a"), message("I", 7, "b")])
    assert list(invalidation._tier.entries) == ["a"]


def test_a_change_behind_a_large_tag_drops_it() -> None:
    """An entry that has lost its proof must not get the new one when it is older than the message."""
    invalidation = Invalidation(Tier(2 * STEP), STALENESS)
    invalidation.back(greeting(5), 10.0, prove=True)
    hold(invalidation, *(str(number) for number in range(STEP + 1)), tags=("users",))
    hold(invalidation, "a", "b")
    invalidation.messages([message("T", 6, "users"), message("I", 7, "a")])
    assert "a" not in invalidation._tier.entries
    while invalidation._tier.free_some():
        pass
    assert list(invalidation._tier.entries) == ["b"]


def test_half_a_change_flushes(invalidation: Invalidation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is taken and its key may still be there, so nothing is left that could be wrong."""
    hold(invalidation, "a")
    monkeypatch.setattr(Tier, "drop", property(lambda _: lambda key: 1 / len(key[1:])))
    heard = invalidation.messages([message("I", 6, "a")])
    assert "ZeroDivisionError" in heard.flushes[0][1]
    assert heard.everything
    assert invalidation.last == 6
    assert not invalidation._tier.entries


def test_last_survives_a_loss_so_that_a_gap_is_noticed_in_every_state(invalidation: Invalidation) -> None:
    """Delete 6 is lost with the bus, delete 7 arrives before the greeting's answer, which says 7 (A)."""
    hold(invalidation, "k0", "k1")
    invalidation.lost()
    heard = invalidation.messages([message("I", 7, "k1")])
    assert heard.flushes
    assert "k0" not in invalidation._tier.entries
    invalidation.back(greeting(7), 11.0, prove=True)
    assert "k0" not in invalidation._tier.entries


def test_a_fill_wakes_and_has_no_number(invalidation: Invalidation) -> None:
    """F is news of a key, and neither drops nor counts."""
    hold(invalidation, "a")
    heard = invalidation.messages([filled("a")])
    assert heard.keys == ["a"]
    assert not heard.flushes
    assert "a" in invalidation._tier.entries
    assert invalidation.last == 5


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x02I" + bytes(8), b"\x01X" + bytes(8)])
def test_a_message_that_does_not_parse_flushes(invalidation: Invalidation, data: bytes) -> None:
    """It may have been an invalidation; the numbers go on from where they were."""
    hold(invalidation, "a")
    assert invalidation.messages([data]).flushes
    assert not invalidation._tier.entries
    assert invalidation.last == 5


def test_after_a_gap_floors_are_unknown_until_a_heartbeat(invalidation: Invalidation) -> None:
    """The lost message may have been a clear (M)."""
    invalidation.messages([message("I", 8, "a")])
    known = [invalidation._tier.floors.known]
    invalidation.beat(beat(8, floor=7), 10.5, 10.6)
    known.append(invalidation._tier.floors.known)
    assert known == [False, True]
    assert invalidation._tier.floors.namespace == 7


def test_a_heartbeat_at_last_proves_from_the_time_it_was_asked(invalidation: Invalidation) -> None:
    """Not from when it was answered."""
    assert not invalidation.beat(beat(5), asked_at=20.0, now=21.0).flushes
    assert invalidation._tier.proof.until == 20.0 + STALENESS


def test_a_heartbeat_ahead_of_last_proves_nothing_and_waits(invalidation: Invalidation) -> None:
    """The messages may be on the way; a quarter of max_staleness later they are given up."""
    hold(invalidation, "a")
    until = invalidation._tier.proof.until
    assert not invalidation.beat(beat(7), 20.0, 20.1).flushes
    assert invalidation._tier.proof.until == until
    assert not invalidation.overdue(20.1 + STALENESS / 4).flushes
    assert "a" in invalidation._tier.entries
    assert invalidation.overdue(20.2 + STALENESS / 4).flushes
    assert not invalidation._tier.entries
    assert invalidation.last == 7
    assert not invalidation.overdue(99.0).flushes


def test_messages_that_catch_up_in_time_keep_l1(invalidation: Invalidation) -> None:
    """And a heartbeat still ahead does not move the limit that an earlier one set."""
    hold(invalidation, "a")
    invalidation.beat(beat(6), 20.0, 20.1)
    invalidation.beat(beat(7), 20.2, 20.3)
    assert [invalidation.ahead] == [(6, 20.1)]
    invalidation.messages([message("I", 6, "x")])
    assert not invalidation.overdue(30.0).flushes
    assert "a" in invalidation._tier.entries


@pytest.mark.parametrize("number", [None, 4, 0])
def test_a_counter_that_is_lost_or_went_back_flushes(invalidation: Invalidation, number: int | None) -> None:
    """The server's data are not those that L1 was made from."""
    hold(invalidation, "a")
    assert invalidation.beat(beat(number, None if number is None else 1), 20.0, 20.1).flushes
    assert not invalidation._tier.entries
    assert not invalidation._tier.floors.known


@pytest.mark.parametrize("lost", [False, True])
def test_the_greeting_behind_a_lost_counter_is_the_same_flush(invalidation: Invalidation, *, lost: bool) -> None:
    """One cause is told and counted once, and what came in between goes too; a loss between the two is another one."""
    assert invalidation.beat(beat(None), 20.0, 20.1).flushes
    hold(invalidation, "a", number=3)
    if lost:
        invalidation.lost()
    effects, kept = invalidation.back(greeting(9), 21.0, prove=True)
    assert kept == 0
    assert (len(effects.flushes), effects.untold) == (int(lost), [])
    assert effects.everything
    invalidation.lost()
    assert invalidation.back(greeting(12), 22.0, prove=True)[0].flushes


def test_an_own_write_that_the_bus_does_not_bring_flushes(invalidation: Invalidation) -> None:
    """Commands and messages are another server's each, or the server does not publish."""
    hold(invalidation, "a")
    invalidation.expect(Written(6, 0), 20.0)
    assert not invalidation.missing_own_write(20.0 + STALENESS / 2).flushes
    assert invalidation.missing_own_write(20.1 + STALENESS / 2).flushes
    assert not invalidation._tier.entries


def test_an_own_write_that_the_bus_brings_is_no_broken_promise(invalidation: Invalidation) -> None:
    """Nor one whose message came before its reply; each promise has its own time."""
    hold(invalidation, "a")
    invalidation.expect(Written(6, 0), 20.0)
    invalidation.expect(Written(7, 0), 20.5)
    invalidation.messages([message("I", 6, "k"), message("I", 7, "k")])
    invalidation.expect(Written(7, 0), 21.0)
    assert not invalidation.missing_own_write(100.0).flushes
    invalidation.expect(Written(8, 0), 101.0)
    assert not invalidation.missing_own_write(101.5).flushes
    assert invalidation._tier.entries


@pytest.mark.parametrize(
    ("number", "cause"), [(7, Cause.GAP), (5 + ANEW, Cause.GAP), (6 + ANEW, Cause.COUNTER), (3, Cause.GAP)]
)
def test_a_large_gap_is_a_counter_that_began_anew(invalidation: Invalidation, number: int, cause: Cause) -> None:
    """Where somebody writes at once after an eviction, the message tells of it before a heartbeat does."""
    assert [flush[0] for flush in invalidation.messages([message("I", number, "k")]).flushes] == [cause]


def test_an_own_write_is_timed_by_the_servers_clock(invalidation: Invalidation) -> None:
    """From its execution to its message: whichever of message and reply comes first."""
    at = 100 * SECOND  # the server's time at 20.0 here
    invalidation.beat(beat(5), 20.0, 20.1)
    invalidation.expect(Written(6, at + SECOND // 2), 20.6)
    invalidation.missing_own_write(20.7)
    invalidation.messages([message("I", 6, "k")])
    invalidation.missing_own_write(20.75)
    assert invalidation.propagation == pytest.approx(0.25)
    invalidation.messages([message("I", 7, "k")])
    invalidation.expect(Written(7, at + SECOND), 21.1)
    assert invalidation.propagation == pytest.approx(0.1)
    assert invalidation.propagations == 2
    assert invalidation.propagation_seconds == pytest.approx(0.35)


def test_commands_that_another_server_answers_flush(invalidation: Invalidation) -> None:
    """Its numbers say nothing about what L1 holds (I). Who does not say who it is, is not suspected."""
    hold(invalidation, "a")
    for identity in (invalidation.identity, None):
        assert not invalidation.check_identity(identity).flushes
    assert invalidation._tier.entries
    assert invalidation.check_identity("another").flushes
    assert not invalidation._tier.entries
    assert not invalidation._tier.synced
    assert not invalidation.check_identity("another").flushes, "once"


@pytest.mark.parametrize(("identity", "waits"), [("one", True), ("two", False), (None, True)])
def test_a_deadline_is_the_clock_of_one_server(
    invalidation: Invalidation, identity: str | None, *, waits: bool
) -> None:
    """What was sent to another server does not reach this one: its replay has to wait for nobody's clock."""
    invalidation._tier.journal_keys(["k"], not_before=1 << 60)
    invalidation.greeted(greeting(9, identity=identity))
    assert (invalidation._tier.journal.next(1) is None) == waits


def test_a_deadline_holds_for_a_server_that_commands_have_met(invalidation: Invalidation) -> None:
    """A set may be on its way to each of them, though the bus has not met it yet."""
    invalidation.check_identity("two")
    invalidation.check_identity("three")
    invalidation._tier.journal_keys(["k"], not_before=1 << 60)
    invalidation.greeted(greeting(9, identity="two"))
    assert invalidation._tier.journal.next(1) is None


def test_a_probe_that_comes_back(invalidation: Invalidation) -> None:
    """Other instances' probes are not ours."""
    invalidation.nonce = "mine"
    invalidation.messages([pack_probe("another's")])
    assert invalidation.nonce == "mine"
    invalidation.messages([pack_probe("mine")])
    assert invalidation.nonce is None


def test_a_loss_stops_puts_and_keeps_serving(invalidation: Invalidation) -> None:
    """L1 serves until its proof runs out: that is the promise, and a blip costs nothing."""
    hold(invalidation, "a")
    snapshot = invalidation._tier.snapshot("b")
    until = invalidation._tier.proof.until
    invalidation.lost()
    assert not invalidation._tier.put("b", Entry("v", 99.0, version_of(5, 1), (), 1, float("inf")), snapshot)
    assert "a" in invalidation._tier.entries
    assert invalidation._tier.proof.until == until


def test_back_at_the_same_number_keeps_l1(invalidation: Invalidation) -> None:
    """Same server, no write meanwhile: nothing was missed."""
    hold(invalidation, "a")
    invalidation.lost()
    heard, kept = invalidation.back(greeting(5), 11.0, prove=True)
    assert (kept, heard.flushes) == (1, [])
    assert invalidation._tier.synced
    assert invalidation._tier.proof.until == 11.0 + STALENESS


@pytest.mark.parametrize(
    ("answer", "prove"),
    [
        (greeting(6), True),
        (greeting(4), True),
        (greeting(5, identity="two"), True),
        (greeting(5, identity=None), True),
        (greeting(5), False),
    ],
    ids=["written", "went back", "another server", "nameless server", "on_reconnect=flush"],
)
def test_back_without_a_proof_flushes(invalidation: Invalidation, answer: Greeting, *, prove: bool) -> None:
    """A counter that stands at the same number after a failover hides lost writes; so the identity counts."""
    hold(invalidation, "a")
    invalidation.lost()
    heard, kept = invalidation.back(answer, 11.0, prove=prove)
    assert kept == 0
    assert len(heard.flushes) == 1
    assert invalidation.last == answer.number
    assert invalidation._tier.synced


def test_a_server_that_never_tells_its_name_flushes_at_each_return() -> None:
    """Two unknown servers are not the same server."""
    invalidation = Invalidation(Tier(100), STALENESS)
    invalidation.back(greeting(5, identity=None), 10.0, prove=True)
    hold(invalidation, "a")
    invalidation.lost()
    assert invalidation.back(greeting(5, identity=None), 11.0, prove=True)[0].flushes


def test_the_first_connection_is_no_flush() -> None:
    """There was nothing to lose; but puts that began before are refused."""
    invalidation = Invalidation(Tier(100), STALENESS)
    assert invalidation._tier.proof.until == NEVER
    snapshot = invalidation._tier.snapshot("k")
    heard, kept = invalidation.back(greeting(5), 10.0, prove=True)
    assert (heard.flushes, kept) == ([], 0)
    assert not invalidation._tier.put("k", Entry("v", 99.0, version_of(5, 1), (), 1, float("inf")), snapshot)


def test_a_greeting_does_not_lower_the_floor_of_an_own_clear(invalidation: Invalidation) -> None:
    """Counter and floor are read, an own clear is acknowledged, then the reply comes (L)."""
    invalidation.lost()
    with invalidation._tier.lock:
        invalidation._tier.apply_clear(6)
    invalidation.back(greeting(5, floor=1), 11.0, prove=True)
    assert invalidation._tier.floors.namespace == 6


def test_another_server_takes_its_own_floor(invalidation: Invalidation) -> None:
    """The old server's numbers say nothing there."""
    invalidation.beat(beat(5, floor=5), 10.5, 10.6)
    invalidation.lost()
    invalidation.back(greeting(3, identity="two", floor=2), 11.0, prove=True)
    assert invalidation._tier.floors.namespace == 2


def test_deadlines_err_to_the_early_side(invalidation: Invalidation) -> None:
    """Server time 100 s was told by an answer asked at 10.0: what is fresh until 103 s is so until 13.0 at most."""
    assert invalidation.deadline(103 * SECOND) == pytest.approx(13.0)


def test_tag_floors_are_bounded(invalidation: Invalidation) -> None:
    """Above the bound all are forgotten, and read again when needed."""
    tags = [str(number) for number in range(TAG_FLOORS_MAX + 1)]
    invalidation.messages([message("T", 6, *tags)])
    assert not invalidation._tier.floors.tags


def test_no_messages_need_no_lock(invalidation: Invalidation) -> None:
    """An empty batch is nothing."""
    with invalidation._tier.lock:
        assert invalidation.messages([]).received == 0


@pytest.mark.parametrize("kind", ["can't be read", "a gap"])
def test_any_number_of_bad_messages_is_told_once_and_flushes_few_times(invalidation: Invalidation, kind: str) -> None:
    """What is put into L1 between two of them is never served: each of them may have been an invalidation of it."""
    tier = invalidation._tier
    bad = [b"junk"] * 20_000
    if kind == "a gap":
        bad = [message("I", number, "other") for number in range(10, 40_010, 2)]
    told: list[str] = []
    untold = 0
    before = tier.snapshot("under way")
    for start in range(0, len(bad), 1000):
        hold(invalidation, "a")
        effects = invalidation.messages(bad[start : start + 1000])
        told += [reason for _, reason, _ in effects.flushes]
        untold += len(effects.untold)
        assert effects.everything
        assert tier.proof.until == NEVER
    assert len(told) == 1
    assert kind in told[0]
    assert untold == FLUSHES_MAX - 1
    assert not tier.put("under way", Entry("v", float("inf"), version_of(5, 1), (), 1, float("inf")), before)
    hold(invalidation, "a")
    effects = invalidation.beat(beat(invalidation.last), 20.0, 20.1)
    assert (effects.flushes, len(effects.untold)) == ([], 1)
    assert not tier.entries
    assert tier.proof.until == 20.0 + STALENESS
    hold(invalidation, "a")
    assert not invalidation.beat(beat(invalidation.last), 20.5, 20.6).everything
    assert tier.entry("a") is not None


def test_bad_messages_are_told_again_after_a_while_without(invalidation: Invalidation) -> None:
    """Each flushes all the same."""
    now, told = 20.0, []
    for pause in (0.5, 0.5, QUIET / 2, QUIET + 1, 0.5):
        hold(invalidation, "a")
        told.append(len(invalidation.messages([b"junk"]).flushes))
        assert not invalidation._tier.entries
        invalidation.beat(beat(5), now, now)
        now += pause
        invalidation.beat(beat(5), now, now)
    assert told == [1, 0, 0, 0, 1]


def test_a_connection_that_is_lost_amid_bad_messages_keeps_nothing(invalidation: Invalidation) -> None:
    """Though no number is missing."""
    invalidation.messages([b"junk"] * (FLUSHES_MAX + 1))
    hold(invalidation, "a")
    invalidation.lost()
    effects, kept = invalidation.back(greeting(5), 20.0, prove=True)
    assert (len(effects.flushes), kept) == (1, 0)
    assert not invalidation._tier.entries
