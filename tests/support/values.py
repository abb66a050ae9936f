"""Values of every type that the codec carries, one of each and at random."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from nearcache.protocol.codec import MsgpackCodec

CODEC = MsgpackCodec()


BERLIN = ZoneInfo("Europe/Berlin")


def form(value: Any) -> Any:
    """The value's exact form: the types at every depth, the order of dicts, NaN, -0.0, fold, names of time zones."""
    kind = type(value)
    if kind in {list, tuple}:
        return kind, [form(item) for item in value]
    if kind in {set, frozenset}:
        return kind, sorted((form(item) for item in value), key=repr)
    if kind is dict or kind is OrderedDict:
        return kind, [(form(key), form(item)) for key, item in value.items()]
    return kind, hex(value) if kind is int else repr(value)


def through(value: object) -> Any:
    """The value after encoding and decoding, checked to have the same form."""
    back = CODEC.decode(CODEC.encode(value))
    assert form(back) == form(value)
    return back


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.just(timedelta(hours=1)), st.text(max_size=5)),
    st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")]),
)


folds = st.sampled_from([0, 1])


hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.decimals().filter(lambda number: not number.is_snan()),  # Python itself cannot hash it
    st.fractions(),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.dates(),
    st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), zones, folds),
    st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, folds),
    st.timedeltas(),
    zones,
    st.uuids(),
    st.ip_addresses(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9).map(PurePosixPath),
)


frozen = st.recursive(
    hashables, lambda items: st.lists(items, max_size=4).map(tuple) | st.frozensets(items, max_size=4), max_leaves=6
)


leaves = st.one_of(hashables, st.binary().map(bytearray), st.sets(frozen, max_size=4), st.just(Decimal("sNaN1")))


values = st.recursive(
    leaves,
    lambda items: (
        st.lists(items, max_size=5)
        | st.lists(items, max_size=5).map(tuple)
        | st.dictionaries(frozen, items, max_size=5)
        | st.dictionaries(frozen, items, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


wide = st.integers(-(2**63), 2**64 - 1)


plain = st.recursive(
    st.none() | st.booleans() | wide | st.floats() | st.text() | st.binary(),
    lambda items: st.lists(items, max_size=6) | st.dictionaries(st.text() | wide, items, max_size=6),
    max_leaves=30,
)


ONE_OF_EACH = [
    (None, "91c0"),
    (True, "91c3"),
    (7, "9107"),
    (-(2**63), "91d38000000000000000"),
    (1.5, "91cb3ff8000000000000"),
    ("é", "91a2c3a9"),
    (b"\x00", "91c40100"),
    ([1, "a"], "919201a161"),
    ({"a": None, 1: 2}, "9182a161c00102"),
    ((1, 2), "c1930102c70001"),
    ((), "c191c70001"),
    ({3}, "c19203c70002"),
    (frozenset({3}), "c19203c70003"),
    (2**64, "c192c409010000000000000000c70004"),
    (-(2**63) - 1, "c192c409ff7fffffffffffffffc70004"),
    (bytearray(b"x"), "c192c40178c70005"),
    (1 - 2j, "c193cb3ff0000000000000cbc000000000000000c70006"),
    (Decimal("1.00"), "c192a4312e3030c70007"),
    (Fraction(1, 3), "c1930103c70008"),
    (range(0, 9, 2), "c194000902c70009"),
    (date(2024, 2, 29), "c194cd07e8021dc7000a"),
    (time(1, 2, 3, 4), "c1970102030400c0c7000b"),
    (datetime(2024, 2, 29, 1, 2, 3, 4, BERLIN, fold=1), None),
    (datetime(2024, 2, 29, 1, 2, 3, 4, UTC), "c19acd07e8021d01020304009300c0c7000ec7000c"),
    (timedelta(-1, 2, 3), "c194ff0203c7000d"),
    (timezone(timedelta(hours=1), "CET"), "c193ced693a400a3434554c7000e"),
    (BERLIN, "c192ad4575726f70652f4265726c696ec7000f"),
    (UUID(int=1), "c192c41000000000000000000000000000000001c70010"),
    (ip_address("192.0.2.1"), "c192a93139322e302e322e31c70011"),
    (ip_network("10.0.0.0/8"), "c192aa31302e302e302e302f38c70012"),
    (ip_interface("10.0.0.1/8"), "c192aa31302e302e302e312f38c70013"),
    (ip_address("fe80::1%eth0"), "c192ac666538303a3a312565746830c70014"),
    (ip_network("fe80::/64"), "c192a9666538303a3a2f3634c70015"),
    (ip_interface("fe80::1%2/64"), "c192ac666538303a3a3125322f3634c70016"),
    (OrderedDict(b=1, a=2), "c195a16201a16102c70017"),
    (PurePosixPath("/a"), "c192a22f61c70018"),
    (PureWindowsPath("c:/a"), "c192a4633a5c61c70019"),
    (Path("/a"), "c192a22f61c7001a"),
]
