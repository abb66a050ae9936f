"""Each Lua script on each kind of server: numbers, floors, leases, messages, refusals, and what hurt servers do."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial

import pytest

from nearcache.engine.ports import RemoteFailed, TooLate
from nearcache.protocol import records
from nearcache.protocol.answers import ABSENT, Fill, Granted, Held, Item, TagFloor
from nearcache.protocol.messages import CHANGED, CLEARED, STALE, TAGGED, Message
from nearcache.transport.client import TAG_LIFE_MARGIN_MS
from nearcache.transport.resp import ServerError
from tests.support.rig import FOREVER, LEASE, OTHER, TOKEN, TTL, Rig, greet


def test_the_first_number_is_the_servers_time(rig: Rig) -> None:
    """Above every number ever given out, so that a lost counter is seen as a gap; and all older values are cleared."""
    seconds, micros = rig.client.time()
    written = rig.set("k")
    assert abs(written.number - (seconds * 1_000_000 + micros)) < 60_000_000
    assert rig.counter() == (written.number, written.number - 1), "it began with the one before"
    assert written.number < 2**53


def test_every_write_takes_the_next_number(rig: Rig) -> None:
    """One for set, delete, clear and tags each, whatever the number of keys; none for lease, fill and abort."""
    first = rig.set("a").number
    grant = rig.granted("b")
    rig.fill("b", grant)
    rig.granted("c")
    rig.abort("c")
    assert rig.delete("a", "b").number == first + 1
    assert rig.clear().number == first + 2
    assert rig.tag("x", "y").number == first + 3
    assert (
        rig.do(
            rig.remote.set(
                [Item("a", records.pack_tail(b"x"), TTL), Item("b", records.pack_tail(b"y"), TTL)], (), FOREVER
            )
        ).number
        == first + 4
    )
    assert [message.number for message in rig.messages()] == [first + step for step in range(5)]


def test_a_value_is_kept_while_it_may_be_served_stale_and_its_tags_an_hour_longer(rig: Rig) -> None:
    """A longer life of a later value prolongs the floor's; what came too late leaves the floors alone."""

    def keep(ttl: int, stale_ms: int, deadline: int = FOREVER) -> None:
        item = Item("k", records.pack_tail(b"x"), ttl, stale_ms)
        rig.do(rig.remote.set([item], ["t"], deadline))

    (floor,) = rig.names.tags(["t"])
    for ttl, stale_ms in ((60_000, 0), (60_000, 300_000), (900_000, 0)):
        keep(ttl, stale_ms)
        whole = ttl + stale_ms
        assert whole - 30_000 < rig.client.pttl(rig.names.value("k")) <= whole
        assert whole - 30_000 < rig.client.pttl(floor) - TAG_LIFE_MARGIN_MS <= whole
    rig.client.delete(floor)
    with pytest.raises(TooLate):
        keep(60_000, 0, 1)
    assert not rig.client.exists(floor)


def test_a_greeting_creates_the_counter_and_leaves_one_that_is_there(rig: Rig) -> None:
    """Else the first lease would look like a gap."""
    first = greet(rig)
    assert first.number == first.floor
    assert first.identity
    assert rig.counter() == (first.number, first.floor)
    written = rig.set("k")
    assert written.number == first.number + 1
    again = greet(rig)
    assert (again.number, again.floor, again.identity) == (written.number, first.floor, first.identity)
    assert again.server_time > first.server_time


def test_a_greeting_by_another_server_passes_numbers_over_and_keeps_the_floor(rig: Rig) -> None:
    """After a restart, a copy or a failover to a replica that lags: values stay alive, numbers are given out once."""
    first, written = greet(rig), rig.set("k")
    rig.client.hset(rig.names.counters, "i", "another/0")
    adopted = greet(rig)
    assert adopted.adopted
    assert adopted.floor == first.floor <= written.number < adopted.number
    assert adopted.history == first.history
    assert rig.raw("k") is not None
    assert rig.set("k").number == adopted.number + 1


@pytest.mark.parametrize("lost", ["all", "s", "f"])
def test_a_lost_counter_begins_above_and_clears_what_is_older(rig: Rig, lost: str) -> None:
    """The hash is lost as one; half a hash counts as lost for a lease."""
    old = rig.set("old").number
    if lost == "all":
        rig.client.delete(rig.names.counters)
    else:
        rig.client.hdel(rig.names.counters, lost)
    grant = rig.granted("k")
    assert grant.number == grant.floor > old
    assert rig.counter() == (grant.number, grant.floor)


def test_a_set_stores_and_tells(rig: Rig) -> None:
    """Version, freshness, tags and payload; Redis keeps it for its ttl; everybody hears the key."""
    greet(rig)
    written = rig.set("k", records.pack_tail(b"payload", ["x"]), ("x",))
    record = rig.record("k")
    assert record.version == written.version
    assert record.fresh_until == written.created + TTL * 1000
    assert record.tags == ("x",)
    assert record.payload == b"payload"
    assert 0 < rig.client.pttl(rig.names.value("k")) <= TTL
    assert rig.messages() == [Message(CHANGED, written.number, ["k"])]


def test_many_values_share_one_number_and_one_message(rig: Rig) -> None:
    """Each with its own ttl."""
    items = [Item(f"k{number}", records.pack_tail(b"v"), 1000 * (number + 1)) for number in range(500)]
    written = rig.do(rig.remote.set(items, ("x",), FOREVER))
    assert {rig.record(item.key).version for item in items} == {written.version}
    assert rig.client.pttl(rig.names.value("k499")) > 400_000
    (message,) = rig.messages()
    assert message.names == [item.key for item in items]


@pytest.mark.parametrize("key", ["plain", "with spaces\r\nand lines", "ключ", "a:b:{c}", "x" * 1024])
def test_any_key_goes_through(rig: Rig, key: str) -> None:
    """Text is text, in names and messages."""
    rig.set(key)
    rig.delete(key)
    assert [message.names for message in rig.messages()] == [[key], [key]]
    assert rig.raw(key) is None


def test_binary_payloads_go_through(rig: Rig) -> None:
    """Every byte value, in records and answers."""
    payload = bytes(range(256)) * 4
    rig.set("k", records.pack_tail(payload))
    assert rig.record("k").payload == payload
    reading = rig.do(rig.remote.read(["k", "absent"], with_bounds=True))
    assert reading.records == [rig.raw("k"), None]
    assert reading.bounds == rig.counter()


def test_a_value_of_8_mib_goes_through(rig: Rig) -> None:
    """The default of max_value_bytes fits every script: set, read, fill."""
    payload = os.urandom(8 * 1024 * 1024)
    tail = records.pack_tail(payload)
    rig.set("k", tail)
    assert rig.record("k").payload == payload
    assert rig.do(rig.remote.read(["k"], with_bounds=False)).records[0] == rig.raw("k")
    grant = rig.granted("big")
    assert rig.do(rig.remote.fill([Fill(Item("big", tail, TTL), TOKEN, grant, ())]))
    assert rig.record("big").payload == payload


def test_a_set_voids_leases_and_leaves_holds(rig: Rig) -> None:
    """A loader that began before it may not fill; a hold outlives it."""
    grant = rig.granted("k")
    rig.client.set(rig.names.lease("held"), b"D", px=LEASE)
    rig.set("k")
    rig.set("held")
    assert rig.holder("k") is None
    assert rig.holder("held") == b"D"
    assert rig.fill("k", grant) is None
    assert rig.record("k").payload == b"new"


def test_a_set_gives_an_absent_tag_its_floor_and_leaves_one_that_is_there(rig: Rig) -> None:
    """Absent means miss, so a tagged write must create it; and it outlives the value."""
    first = rig.set("a", tags=("x",)).number
    assert rig.tag_floor("x") == first - 1, "as the counter stood: not above what was leased before"
    rig.set("b", tags=("x", "y"), ttl=500_000)
    assert rig.tag_floor("x") == first - 1
    assert rig.tag_floor("y") == first
    (name,) = rig.names.tags(["x"])
    assert rig.client.pttl(name) > 500_000 + TAG_LIFE_MARGIN_MS / 2
    before = rig.client.pttl(name)
    rig.set("c", tags=("x",), ttl=10)
    assert rig.client.pttl(name) > before - 60_000, "a shorter life does not shorten it"


def test_a_delete_deletes_and_tells_also_what_is_absent(rig: Rig) -> None:
    """Others may hold in L1 what L2 has lost."""
    rig.set("a")
    written = rig.delete("a", "b")
    assert rig.raw("a") is None
    assert rig.messages()[-1] == Message(CHANGED, written.number, ["a", "b"])


def test_a_set_after_its_deadline_is_a_delete(rig: Rig) -> None:
    """It is told so, under a number, and what stood there is gone: something newer may have been set meanwhile."""
    old = rig.set("k")
    rig.granted("other")
    with pytest.raises(TooLate):
        rig.do(
            rig.remote.set(
                [Item("k", records.pack_tail(b"late"), TTL), Item("other", records.pack_tail(b"late"), TTL)],
                ("x",),
                old.created,
            )
        )
    assert rig.raw("k") is None
    assert rig.raw("other") is None
    assert rig.holder("other") is None
    assert rig.messages()[-1] == Message(CHANGED, old.number + 1, ["k", "other"])


def test_a_server_s_clock_that_was_set_is_learnt(rig: Rig) -> None:
    """A set that comes too late by it tells the time; the next one has a deadline that holds."""
    rig.set("k")
    assert rig.remote._offset is not None
    rig.remote._offset -= 3600  # the server's clock was put forward since this connection was made
    with pytest.raises(TooLate):
        rig.do(rig.remote.set([Item("k", records.pack_tail(b"x"), TTL)], (), rig.remote.now() + 1_000_000))
    assert rig.do(rig.remote.set([Item("k", records.pack_tail(b"x"), TTL)], (), rig.remote.now() + 1_000_000)).stored


def test_a_delete_may_hold_its_keys(rig: Rig) -> None:
    """Nobody may fill for so long; the longer of two holds stays, and a delete without one ends none."""
    rig.granted("k")
    rig.delete("k", hold_ms=60_000)
    assert isinstance(rig.lease("k"), Held)
    rig.delete("k", hold_ms=1)
    rig.delete("k")
    assert 50_000 < rig.client.pttl(rig.names.lease("k")) <= 60_000
    rig.delete("k", hold_ms=90_000)
    assert rig.client.pttl(rig.names.lease("k")) > 80_000


@pytest.mark.parametrize("script", ["delete", "clear"])
def test_a_replay_that_comes_too_early_does_nothing(rig: Rig, script: str) -> None:
    """By the server's own clock; afterwards it does."""
    written = rig.set("k")
    replay = partial(rig.remote.delete, ["k"]) if script == "delete" else rig.remote.clear
    assert rig.do(replay(not_before=FOREVER)) is None
    assert rig.raw("k") is not None
    assert rig.counter()[0] == written.number
    done = rig.do(replay(not_before=written.created))
    assert done is not None
    assert done.number == written.number + 1


def test_a_value_is_marked_stale_in_place(rig: Rig) -> None:
    """Fresh until 0; version, payload and ttl stay, a lease is voided, a hold stays, and everybody hears of it."""
    written = rig.set("k", records.pack_tail(b"payload"))
    rig.client.set(rig.names.value("foreign"), "none of ours")
    rig.client.rpush(rig.names.value("list"), "none of ours")
    rig.granted("absent")
    rig.client.set(rig.names.lease("held"), b"D", px=LEASE)
    stale = rig.do(rig.remote.mark_stale(["k", "foreign", "list", "absent", "held"]))
    record = rig.record("k")
    assert (record.version, record.fresh_until, record.payload) == (written.version, 0, b"payload")
    assert 0 < rig.client.pttl(rig.names.value("k")) <= TTL
    assert [rig.client.exists(rig.names.value(key)) for key in ("foreign", "list", "absent")] == [0, 0, 0]
    assert (rig.holder("absent"), rig.holder("held")) == (None, b"D")
    assert rig.messages()[-1] == Message(CHANGED, stale.number, ["k", "foreign", "list", "absent", "held"])
    raw = rig.raw("k")
    assert raw is not None
    assert isinstance(rig.lease("k", OTHER, raw[: records.HEAD_BYTES]), Granted), "who judged it dead may load"


def test_a_delete_voids_leases_and_leaves_holds(rig: Rig) -> None:
    """The lease race: a loader read the old row, a delete was acknowledged, the fill comes late."""
    grant = rig.granted("k")
    rig.client.set(rig.names.lease("held"), b"D", px=LEASE)
    rig.delete("k", "held")
    assert rig.fill("k", grant) is None
    assert rig.raw("k") is None
    assert rig.holder("held") == b"D"


def test_a_clear_raises_the_floor_and_tells(rig: Rig) -> None:
    """Values stay, and are below it."""
    number = rig.set("k").number
    cleared = rig.clear()
    assert rig.counter() == (number + 1, number + 1)
    assert rig.raw("k") is not None
    assert rig.messages()[-1] == Message(CLEARED, cleared.number, [])


def test_a_tag_raises_its_floor_and_tells(rig: Rig) -> None:
    """The namespace's floor stays; a tag that nobody has used has nothing to clear, and gets no floor."""
    number = rig.set("k", tags=("x",)).number
    floor = rig.counter()[1]
    (name,) = rig.names.tags(["x"])
    life = rig.client.pttl(name)
    tagged = rig.tag("x", "unused")
    assert rig.counter() == (number + 1, floor)
    assert rig.tag_floor("x") == number + 1
    assert rig.tag_floor("unused") is None
    assert life - 60_000 < rig.client.pttl(name) <= life
    assert rig.messages()[-1] == Message(TAGGED, tagged.number, ["x", "unused"])


def test_a_tag_is_made_stale_by_a_second_floor(rig: Rig) -> None:
    """The one below which values are dead stays as long as there is no other invalidation; nothing else changes."""

    def floor() -> TagFloor | None:
        return rig.do(rig.remote.tag_floors(["x"]))[0]

    first = rig.set("k", tags=("x",)).number - 1
    (name,) = rig.names.tags(["x"])
    life = rig.client.pttl(name)
    for number in (first + 2, first + 3):
        assert rig.tag("x", "unused", stale=True).number == number
        assert floor() == TagFloor(number, first)
        assert rig.messages()[-1] == Message(STALE, number, ["x", "unused"])
    assert life - 60_000 < rig.client.pttl(name) <= life
    assert rig.tag_floor("unused") is None
    rig.set("k", tags=("x",))
    assert floor() == TagFloor(first + 3, first)
    rig.tag("x")
    rig.tag("x", stale=True)
    assert floor() == TagFloor(first + 6, first + 5)
    rig.client.set(name, f"{1 << 52} {first}")  # of another history
    rig.tag("x", stale=True)
    assert rig.tag_floor("x") == first + 7
    rig.client.set(name, "damaged")
    assert floor() is None


def test_a_read_without_a_counter_trusts_nothing(rig: Rig) -> None:
    """A lost m took every floor with it."""
    rig.set("k")
    rig.client.delete(rig.names.counters)
    assert rig.do(rig.remote.read(["k"], with_bounds=True)).bounds == ABSENT
    assert rig.do(rig.remote.read(["k"], with_bounds=False)).bounds is None


def test_scripts_that_the_server_forgot_are_sent_again(fresh_rig: Rig) -> None:
    """NOSCRIPT means that nothing was done; the number shows that the write ran once."""
    first = fresh_rig.set("k").number
    fresh_rig.client.script_flush()
    assert fresh_rig.set("k").number == first + 1
    grant = fresh_rig.granted("new")
    fresh_rig.client.script_flush()
    assert fresh_rig.fill("new", grant)
    for again in (fresh_rig.clear, lambda: fresh_rig.delete("k"), lambda: fresh_rig.tag("x")):
        fresh_rig.client.script_flush()
        again()
    assert fresh_rig.counter()[0] == first + 4


def test_a_counter_of_a_foreign_type_is_an_error_and_nothing_is_stored(rig: Rig) -> None:
    """Somebody else uses our names: told, never guessed at."""
    rig.client.set(rig.names.counters, "mine")
    for call in (lambda: rig.set("k"), lambda: rig.delete("k"), rig.clear, lambda: rig.lease("k")):
        with pytest.raises(ServerError, match="WRONGTYPE"):
            call()
    assert rig.raw("k") is None


@pytest.mark.parametrize("damage", ["fraction", "text", "negative", "too large", "largest", "no floor"])
@pytest.mark.parametrize("script", ["set", "delete", "mark_stale", "clear", "lease", "greet"])
def test_a_damaged_counter_begins_anew_above_all_numbers_seen(rig: Rig, damage: str, script: str) -> None:
    """It never heals by itself; what is older counts as cleared."""
    old = rig.set("old").number
    rig.remote.seen = lambda: old + 10**12
    m = rig.names.counters
    changes: dict[str, Callable[[], object]] = {
        "fraction": lambda: rig.client.hset(m, "s", "3.5"),
        "text": lambda: rig.client.hset(m, "s", "x"),
        "negative": lambda: rig.client.hset(m, "s", "-5"),
        "too large": lambda: rig.client.hset(m, "s", str(1 << 60)),
        "largest": lambda: rig.client.hset(m, "s", str((1 << 63) - 1)),
        "no floor": lambda: rig.client.hset(m, "f", "x"),
    }
    changes[damage]()
    calls: dict[str, Callable[[], object]] = {
        "set": lambda: rig.set("k"),
        "delete": lambda: rig.delete("k"),
        "mark_stale": lambda: rig.do(rig.remote.mark_stale(["k"])),
        "clear": rig.clear,
        "lease": lambda: rig.granted("k"),
        "greet": lambda: rig.do(rig.remote.greet()),
    }
    calls[script]()
    if damage == "no floor" and script not in ("lease", "greet", "clear"):
        return  # writes do not read it; readers take it for absent, and the next lease begins anew
    number, floor = rig.counter()
    assert floor > old
    assert number > old + (10**12 if script != "clear" or damage != "no floor" else 0)


def test_a_counter_that_is_absent_begins_at_the_servers_time(rig: Rig) -> None:
    """Also for a client that has seen no number: a floor of its own, above whatever was counted before."""
    rig.remote.seen = lambda: 0
    calls: list[Callable[[], object]] = [lambda: rig.set("k"), lambda: rig.delete("k"), rig.clear, lambda: rig.tag("x")]
    for call in calls:
        rig.client.delete(rig.names.counters)
        seconds, micros = rig.client.time()
        call()
        number, floor = rig.counter()
        assert number >= floor >= seconds * 1_000_000 + micros


def test_with_memory_full_values_are_refused_and_removals_pass(fresh_rig: Rig) -> None:
    """Lease and fill are refused; delete, clear and tags go through, since stale data would be the alternative."""
    rig = fresh_rig
    number = rig.set("k", tags=("x",)).number
    grant = rig.granted("load")
    greet(rig)
    rig.messages()
    rig.client.config_set("maxmemory-policy", "noeviction")
    rig.client.config_set("maxmemory", "1mb" if rig.client.info("memory")["used_memory"] > 1 << 20 else "1kb")
    with pytest.raises(ServerError, match="OOM"):
        rig.lease("other")
    with pytest.raises(ServerError, match="OOM"):
        rig.fill("load", grant)
    assert rig.raw("load") is None
    assert rig.counter()[0] == number
    assert rig.tag("x").number == number + 1
    assert rig.tag_floor("x") == number + 1
    assert rig.clear().number == number + 2
    assert rig.counter() == (number + 2, number + 2)
    assert rig.delete("k", "absent").number == number + 3
    assert rig.raw("k") is None
    assert [message.kind for message in rig.messages()] == [TAGGED, CLEARED, CHANGED]


def test_with_memory_full_a_set_becomes_a_delete(fresh_rig: Rig) -> None:
    """Nobody keeps the old value; the answer says that the new one was not stored, and takes one number in all."""
    rig = fresh_rig
    number = rig.set("k").number
    rig.client.config_set("maxmemory", "1mb" if rig.client.info("memory")["used_memory"] > 1 << 20 else "1kb")
    written = rig.set("k", records.pack_tail(b"newer"))
    assert not written.stored
    assert written.number == number + 1
    assert rig.raw("k") is None
    assert rig.messages()[-1] == Message(CHANGED, number + 1, ["k"])


def test_an_error_reply_is_an_error_and_shows_no_value(rig: Rig) -> None:
    """Its code alone is kept: the text may quote keys and values."""
    with pytest.raises(RemoteFailed) as caught:
        rig.do(rig.remote.set([Item("secret-key", b"\0secret-value", -1)], (), FOREVER))
    assert "secret" not in str(caught.value)


def test_records_agree_with_what_scripts_write() -> None:
    """The head that Lua packs is the head that Python unpacks: sizes and order of bytes."""
    assert struct.calcsize(">BQQQI") == records.HEAD_BYTES
