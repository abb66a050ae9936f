"""The codec keeps its promise: equal and of the same type, or refused; and it survives any bytes."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import enum
import gc
import io
import math
import random
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid1
from zoneinfo import TZPATH, ZoneInfo

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache.errors import CodecError
from nearcache.protocol import codec as module
from nearcache.protocol.codec import MsgpackCodec
from nearcache.protocol.types import EXTENSIONS, PACKS
from tests.support.cases import each

CODEC = MsgpackCodec()
BERLIN = ZoneInfo("Europe/Berlin")


def form(value: Any) -> Any:
    """The value's exact form: the types at every depth, the order of dicts, NaN, -0.0, fold, names of time zones."""
    kind = type(value)
    if kind in {list, tuple}:
        return kind, [form(item) for item in value]
    if kind in {set, frozenset}:
        return kind, sorted((form(item) for item in value), key=repr)
    if kind is dict:
        return kind, [(form(key), form(item)) for key, item in value.items()]
    return kind, hex(value) if kind is int else repr(value)


def through(value: object) -> Any:
    """The value after encoding and decoding, checked to have the same form."""
    back = CODEC.decode(CODEC.encode(value))
    assert form(back) == form(value)
    return back


def numbered(values: Iterable[object]) -> list[str]:
    """Names for the cases of a test."""
    return [f"{number}-{type(value).__name__}" for number, value in enumerate(values)]


# ---------------------------------------------------------------- round trips

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
    ),
    max_leaves=12,
)
wide = st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(
    st.none() | st.booleans() | wide | st.floats() | st.text() | st.binary(),
    lambda items: st.lists(items, max_size=6) | st.dictionaries(st.text() | wide, items, max_size=6),
    max_leaves=30,
)


@given(values)
@settings(max_examples=300, deadline=None)
def test_a_value_comes_back_equal_and_of_its_type(value: object) -> None:
    """Whatever is carried comes back the same: at any depth, as a key, with bytearrays among it."""
    through(value)


@given(plain)
@settings(deadline=None)
def test_plain_values_are_plain_msgpack_after_one_byte(value: object) -> None:
    """What msgpack carries itself is stored as msgpack writes it."""
    assert CODEC.encode(value)[:1] == b"\x91"
    assert CODEC.encode(value)[1:] == msgpack.packb(value)
    through(value)


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
]


@each("value, golden", ONE_OF_EACH)
def test_the_bytes_of_each_type_stay_as_they_are(value: object, golden: str | None) -> None:
    """The encoding of each type is a wire format, shared with older and newer releases."""
    data = CODEC.encode(value)
    assert golden is None or data.hex() == golden
    assert CODEC.decode(data) == value
    assert through(value) is not value or type(value) not in {list, dict, set, bytearray}


def test_the_codes_of_the_types_stay_as_they_are() -> None:
    """A code belongs to one type for ever, and every type has an example above."""
    names = [kind.type.__name__ for kind in EXTENSIONS]
    assert " ".join(names) == (
        "tuple set frozenset int bytearray complex Decimal Fraction range date time datetime timedelta timezone "
        "ZoneInfo UUID IPv4Address IPv4Network IPv4Interface IPv6Address IPv6Network IPv6Interface"
    )
    assert [kind.code for kind in EXTENSIONS] == list(range(1, 23))
    assert {kind.type for kind in EXTENSIONS} <= {type(value) for value, _ in ONE_OF_EACH}


EDGES = [
    *(sign * 2**bits + step for bits in (7, 8, 31, 32, 63, 64, 65, 4096) for sign in (1, -1) for step in (-1, 0, 1)),
    10**5000,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    complex(-0.0, math.nan),
    Decimal("-0"),
    Decimal("-0.000"),
    Decimal("1E+3"),
    Decimal("NaN123"),
    Decimal("-sNaN"),
    Decimal("-Infinity"),
    Decimal("9" * 5000),
    Decimal("1E+999999999999999999"),
    Decimal("1E-1999999999999999997"),
    "\x00",
    "\U0010ffff",
    b"",
    bytearray(),
    set(),
    frozenset(),
    {},
    [],
    [[], {}, (), set()],
    date.min,
    date.max,
    datetime.min,  # noqa: DTZ901 # naive ones are values too
    datetime.max,  # noqa: DTZ901
    timedelta.min,
    timedelta.max,
    timedelta.resolution,
    time.max,
    timezone.min,
    timezone.max,
    timezone(timedelta(0), "Zulu"),
    timezone(timedelta(microseconds=-1)),
    time(1, 2, tzinfo=BERLIN, fold=1),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    {(1, (2, frozenset({date.min}))): 1, 1: 2, "1": 3, b"1": 4, None: 5, math.nan: 6},
    [{"a": (bytearray(b"x"), [bytearray(b"y")])}, {1, (2, 3)}],
    {"type": "list", "last": [1, b"\xc7\x00\x01"]},
]


@each("value", EDGES)
def test_edges_come_back_as_they_were(value: object) -> None:
    """The ends of every range, signs of zero, NaN and its payload, exponents, empty containers, mixed keys."""
    through(value)


def test_True_and_1_and_1_0_stay_apart() -> None:  # noqa: N802 # they are the names
    """Equal values of different types are not confused, nested or as keys."""
    assert form(through([True, 1, 1.0, (True, 1, 1.0)])) == form([True, 1, 1.0, (True, 1, 1.0)])
    assert type(next(iter(through({1.0: "a"})))) is float
    assert type(next(iter(through({True: "a"})))) is bool
    assert through(Decimal("1.0")).as_tuple() != through(Decimal("1.00")).as_tuple()


def test_the_utc_object_and_zones_come_back_as_themselves() -> None:
    """timezone.utc and a ZoneInfo are the same objects again, so that comparisons in a fold still hold."""
    assert through(UTC) is UTC
    assert through(datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)).tzinfo is BERLIN
    assert through(timezone(timedelta(hours=1), "CET")).tzname(None) == "CET"


def test_a_uuid_with_a_safety_flag_comes_back_equal() -> None:
    """Where a UUID came from is not part of it."""
    value = uuid1()
    assert CODEC.decode(CODEC.encode(value)) == value


def test_a_decimal_does_not_depend_on_the_application_s_context() -> None:
    """Neither precision, nor traps, nor capitals of the current context change a Decimal on its way."""
    value = [Decimal("1.23456789E+40"), Decimal("sNaN"), Decimal("1E-500")]
    with localcontext(Context(prec=2, Emax=5, Emin=-5, capitals=0, traps=[])):
        data = CODEC.encode(value)
        back = CODEC.decode(data)
        with pytest.raises(CodecError, match="InvalidOperation"):
            CODEC.decode(b"\xc1\x92\xa4junk\xc7\x00\x07")
    assert form(back) == form(value)
    assert form(CODEC.decode(data)) == form(value)


def test_a_decoded_value_shares_nothing_mutable() -> None:
    """Each decode makes a new value."""
    data = CODEC.encode([[1], {"a": (bytearray(b"x"),)}])
    first, second = CODEC.decode(data), CODEC.decode(data)
    assert first == second
    assert first[0] is not second[0]
    assert first[1]["a"][0] is not second[1]["a"][0]


def test_a_memoryview_of_the_bytes_will_do() -> None:
    """A payload can be decoded where it lies in a larger buffer."""
    for value in ([1, "a"], (1, 2)):
        assert CODEC.decode(memoryview(b"--" + CODEC.encode(value))[2:]) == value  # type: ignore[arg-type]


def test_the_codec_is_a_small_immutable_value() -> None:
    """It can be a default, a key, and is shown as it is written."""
    assert repr(CODEC) == "MsgpackCodec()"
    assert MsgpackCodec() == CODEC
    assert hash(MsgpackCodec()) == hash(CODEC)
    with pytest.raises((AttributeError, TypeError)):
        CODEC.anything = 1  # type: ignore[attr-defined]


# ---------------------------------------------------------------- refusals


class Color(enum.Enum):
    """An Enum."""

    RED = 1


class Level(enum.IntEnum):
    """An int to isinstance."""

    LOW = 1


class Word(enum.StrEnum):
    """A str to isinstance."""

    A = "a"


class Flags(enum.IntFlag):
    """An int with names for its bits."""

    A = 1


class Point(NamedTuple):
    """A tuple to isinstance."""

    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class User:
    """A dataclass."""

    id: int


class Plain:
    """An instance of it says nothing about itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Lunar(tzinfo):
    """A time zone that is nobody's."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        """As the tides."""
        return timedelta(0)

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        """Never the same."""
        return "moon"


def subclass_of(base: type, *args: Any) -> Any:
    """An instance of a subclass that adds nothing."""
    return type(f"My{base.__name__}", (base,), {})(*args)


REFUSED = [
    (Color.RED, "Color, which cannot be cached: cache its .value"),
    (Level.LOW, "Level, which cannot be cached: cache its .value"),
    (Word.A, "Word, which cannot be cached: cache its .value"),
    (Flags.A, "Flags, which cannot be cached: cache its .value"),
    (Point(1, 2), "Point, which cannot be cached: cache its ._asdict(), or tuple(...) of it"),
    (User(1), "User, which cannot be cached: cache dataclasses.asdict(...) of it"),
    (Plain(), "Plain, which cannot be cached: cache a dict or tuple of its fields, or give Settings(codec=...)"),
    (subclass_of(str, "a"), "Mystr, which cannot be cached: cache a plain str"),
    (subclass_of(int, 1), "Myint, which cannot be cached: cache a plain int"),
    (subclass_of(float, 1.0), "Myfloat, which cannot be cached: cache a plain float"),
    (subclass_of(bytes, b"a"), "Mybytes, which cannot be cached: cache a plain bytes"),
    (subclass_of(tuple, (1,)), "Mytuple, which cannot be cached: cache a plain tuple"),
    (subclass_of(frozenset, {1}), "Myfrozenset, which cannot be cached: cache a plain frozenset"),
    (subclass_of(Decimal, "1"), "MyDecimal, which cannot be cached: cache a plain Decimal"),
    (subclass_of(datetime, 2024, 1, 1), "Mydatetime, which cannot be cached: cache a plain datetime"),
    (subclass_of(date, 2024, 1, 1), "Mydate, which cannot be cached: cache a plain date"),
    (subclass_of(timedelta, 1), "Mytimedelta, which cannot be cached: cache a plain timedelta"),
    (subclass_of(Fraction, 1), "MyFraction, which cannot be cached: cache a plain Fraction"),
    (memoryview(b"a"), "memoryview, which cannot be cached: cache bytes(...) of it"),
    (msgpack.ExtType(1, b""), "msgpack.ext.ExtType, which cannot be cached"),
    (msgpack.ExtType(1, b"x"), "msgpack.ext.ExtType, which cannot be cached"),
    (msgpack.Timestamp(1, 2), "msgpack.ext.Timestamp, which cannot be cached"),
    (Lunar(), "Lunar, which cannot be cached"),
    (int, "type, which cannot be cached"),
    (User, "type, which cannot be cached"),
    (..., "ellipsis, which cannot be cached"),
    (len, "builtin_function_or_method, which cannot be cached"),
    (iter([]), "list_iterator, which cannot be cached"),
]
UNHASHABLE_REFUSED = [
    (subclass_of(list), "Mylist, which cannot be cached: cache a plain list"),
    (subclass_of(dict), "Mydict, which cannot be cached: cache a plain dict"),
    (subclass_of(set), "Myset, which cannot be cached: cache a plain set"),
    (subclass_of(bytearray), "Mybytearray, which cannot be cached: cache a plain bytearray"),
    (collections.OrderedDict(a=1), "collections.OrderedDict, which cannot be cached: cache a plain dict"),
    (collections.defaultdict(list), "collections.defaultdict, which cannot be cached: cache a plain dict"),
    (collections.Counter("a"), "collections.Counter, which cannot be cached: cache a plain dict"),
    (collections.deque([1]), "collections.deque, which cannot be cached"),
    (array.array("i", [1]), "array.array, which cannot be cached: cache its .tolist()"),
    ({}.keys(), "dict_keys, which cannot be cached"),
]


EVERYWHERE_REFUSED = REFUSED + UNHASHABLE_REFUSED


@each("value, words", EVERYWHERE_REFUSED)
def test_what_is_not_carried_is_refused_wherever_it_sits(value: object, words: str) -> None:
    """A type outside the table is refused at any place, with its name, where it sits and the way out."""
    places: list[tuple[object, str]] = [
        (value, "value is a"),
        ([1, value], "value[1] is a"),
        ({"a": {"b": [value]}}, "value['a']['b'][0] is a"),
        ((1, (value,)), "value[1][0] is a"),
        ([(1,), {"a": value}], "value[1]['a'] is a"),
        ([b"\xc4", bytearray(b"x"), value], "value[2] is a"),
        ({"text": "x" * 2000, "list": [{"a": 1}] * 100 + [value]}, "value['list'][100] is a"),
    ]
    for place, path in places:
        with pytest.raises(CodecError) as caught:
            CODEC.encode(place)
        assert str(caught.value).startswith(path)
        assert words in str(caught.value)


@each("value, words", REFUSED)
def test_what_is_not_carried_is_refused_as_a_key_and_as_a_member(value: Any, words: str) -> None:
    """A key, a part of a key and a member of a set are held to the same."""
    for place in ({value: 1}, {1: 1, (2, value): 1}, {value}, frozenset({(value,)}), [{"a": {value: 1}}]):
        with pytest.raises(CodecError) as caught:
            CODEC.encode(place)
        assert words in str(caught.value)
        assert "the key" in str(caught.value) or "the member" in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 8, 16, 300, 70_000])
def test_what_msgpack_itself_would_flatten_is_noticed_at_any_size(size: int) -> None:
    """A bytearray comes back as one, and a memoryview or ExtType is refused, whatever header msgpack gives it."""
    data = b"a" * size
    for among in ([], [None] * 4000):
        through([bytearray(data), *among])
        through({"a": (bytearray(data), data), "b": among})
        for value in (memoryview(data), msgpack.ExtType(100, data)):
            with pytest.raises(CodecError, match=r"value\[0\] is a"):
                CODEC.encode([value, *among])
    for seconds, nanoseconds in ((1, 0), (1, 1), (-1, 1)):
        with pytest.raises(CodecError, match="Timestamp"):
            CODEC.encode([msgpack.Timestamp(seconds, nanoseconds), *[None] * size])


def test_time_zones_that_a_key_does_not_bring_back_are_refused() -> None:
    """A ZoneInfo from a file or outside the cache has rules, or comparisons, that its key alone does not restore."""
    file = next(path for path in (Path(root, "Europe/Berlin") for root in TZPATH) if path.exists())
    for key in (None, "Europe/Paris", "No/Such", "../x", "Europe"):
        zone = ZoneInfo.from_file(io.BytesIO(file.read_bytes()), key=key)
        with pytest.raises(CodecError, match=r"value\['at'\]\.tzinfo is not what ZoneInfo\("):
            CODEC.encode({"at": datetime(2024, 1, 1, tzinfo=zone)})
    with pytest.raises(CodecError, match="make it by its key"):
        CODEC.encode(ZoneInfo.no_cache("Europe/Berlin"))
    with pytest.raises(CodecError, match=r"value\.tzinfo is a .*Lunar"):
        CODEC.encode(time(1, tzinfo=Lunar()))


def test_a_lone_surrogate_is_refused() -> None:
    """UTF-8 cannot say it, and a replacement would be another string."""
    with pytest.raises(CodecError, match=r"value\['a'\]\[1\] has a lone surrogate at 2: cache it as bytes"):
        CODEC.encode({"a": ["x", "ab\udc80"]})
    with pytest.raises(CodecError, match=r"the key .* has a lone surrogate at 0"):
        CODEC.encode({"\ud800": 1})


def cycles() -> Iterator[object]:
    """A value of each kind that contains itself."""
    one: list[Any] = []
    one.append(one)
    yield one
    two: dict[str, Any] = {"a": 1}
    two["b"] = ([two],)
    yield two
    three: list[Any] = [bytearray(b"x")]
    three.extend([three, three])
    yield three


@pytest.mark.parametrize("value", list(cycles()), ids=["list", "dict", "wide"])
def test_a_value_that_contains_itself_is_refused(value: object) -> None:
    """There is no end to it, and no RecursionError either."""
    with pytest.raises(CodecError, match="contains itself, or is nested over 1024 deep"):
        CODEC.encode(value)


def encoded(value: object) -> bytes | None:
    """The bytes, or None for a value that is refused."""
    try:
        return CODEC.encode(value)
    except CodecError:
        return None


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: frozenset({v})],
    ids=["list", "tuple", "dict", "frozenset"],
)
@pytest.mark.parametrize("core", [None, (), 2**70])
def test_what_is_accepted_can_be_decoded_whatever_its_depth(wrap: Callable[[Any], Any], core: object) -> None:
    """At the limit of depth, 511 or 1024 by msgpack's release, a value is refused when set, not unreadable when got."""
    value, deepest = core, 0
    for depth in range(1030):
        data = encoded(value) if depth in range(500, 515) or depth > 1015 else None
        if data:
            assert CODEC.encode(CODEC.decode(data)) == data
            deepest = depth
        value = wrap(value)
    assert 500 < deepest < 1025


def test_a_deep_value_with_a_bytearray_is_carried_or_refused() -> None:
    """The Python path that bytearrays take has its own limit, and it is a CodecError too."""
    value: object = bytearray(b"x")
    for _ in range(200):
        value = [value]
    assert CODEC.decode(CODEC.encode(value)) == value
    for _ in range(800):
        value = (value,)
    with pytest.raises(CodecError, match="cannot encode the value"):
        CODEC.encode(value)


def test_a_refusal_leaves_nothing_behind() -> None:
    """After a refused value the next one is encoded as ever."""
    for _ in range(3):
        with pytest.raises(CodecError):
            CODEC.encode([(1,), "x" * 100, object()])
        assert CODEC.encode([1]) == b"\x91\x91\x01"
        assert CODEC.encode((1,)) == b"\xc1\x92\x01\xc7\x00\x01"


def test_a_value_changed_by_another_thread_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dict that changes while it is encoded gives CodecError, not RuntimeError."""
    value: dict[str, Any] = {"a": 1j, "b": 2}

    def pack(number: complex) -> Any:
        value[str(len(value))] = number
        return (number.real, number.imag)

    monkeypatch.setitem(PACKS, complex, (pack, PACKS[complex][1]))
    with pytest.raises(CodecError, match="if another thread changes it, cache a copy"):
        CODEC.encode(value)


# ---------------------------------------------------------------- cost


def test_plain_values_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that msgpack alone carries costs no look at its items."""

    def walked(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "_is_flattened", walked)
    monkeypatch.setattr(module, "problem_in", walked)
    record = {"id": 7, "name": "Ada", "tags": ["a", "b"], "score": 1.5, "none": None, "flag": True}
    assert CODEC.decode(CODEC.encode(record)) == record
    assert CODEC.decode(CODEC.encode("\xe4" * 5000 + "\u0110")) == "\xe4" * 5000 + "\u0110"
    monkeypatch.undo()
    monkeypatch.setattr(gc, "get_referents", lambda *levels: [*levels[0]] if type(levels[0]) is list else walked())
    assert CODEC.decode(CODEC.encode([record] * 100)) == [record] * 100


def test_a_large_value_does_not_pin_its_buffer() -> None:
    """The packer of a large value is dropped, so that its buffer is freed."""
    module._idle.clear()
    CODEC.encode("x" * (module._KEPT_BYTES + 1))
    assert not module._idle
    CODEC.encode("x")
    assert len(module._idle) == 1


# ---------------------------------------------------------------- threads


def test_encoding_in_the_middle_of_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or signal handler that encodes, in a thread that is encoding, disturbs nothing."""
    inner: list[bytes] = []

    def pack(number: complex) -> Any:
        inner.append(CODEC.encode([number.real, "inner"]))
        return (number.real, number.imag)

    monkeypatch.setitem(PACKS, complex, (pack, PACKS[complex][1]))
    value = ["a", 1j, ("b", 2j), [1, 2]]
    assert CODEC.decode(CODEC.encode(value)) == value
    assert [CODEC.decode(data) for data in inner] == [[0.0, "inner"]] * 2


def test_many_threads_share_a_codec() -> None:
    """Threads that encode and decode at once, plain values, marked ones and refused ones, get their own."""
    wrong: list[object] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        start.wait()
        for turn in range(300):
            value = [number, turn, *[(number, {"a": date.min}), bytearray(b"x")][: turn % 3]]
            if CODEC.decode(CODEC.encode(value)) != value:
                wrong.append(value)
            with contextlib.suppress(CodecError):
                wrong.append(CODEC.encode([(number,), object()]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


# ---------------------------------------------------------------- damaged and foreign bytes

MARK = b"\xc7\x00"


def marked(code: int, *fields: object) -> bytes:
    """The bytes of a marked array with any fields."""
    packed = b"".join(CODEC.encode(field)[1:] for field in fields)
    return b"\xc1" + bytes([0x90 + len(fields) + 1]) + packed + MARK + bytes([code])


DAMAGED = [
    (b"", "0 bytes"),
    (b"\x91", "incomplete"),
    (b"\xc1", "incomplete"),
    (b"\x01", "begins with 0x01"),
    (b"\x80\x04K\x01.", "begins with 0x80"),
    (b'{"a": 1}', "begins with 0x7b"),
    (b"\x91\x01\x01", "ExtraData"),
    (b"\xc1\x01\x01", "ExtraData"),
    (b"\x91\xc1", "FormatError"),
    (b"\x91\xa1\xff", "UnicodeDecodeError"),
    (b"\x91\xdd\xff\xff\xff\xff", "max_array_len"),
    (b"\x91\xc6\xff\xff\xff\xff", "ValueError"),
    (b"\x91" + b"\x91" * 2000 + b"\xc0", "StackError"),
    (b"\x91\x81\x90\x01", "unhashable"),
    (b"\x91\x92\x01" + MARK + b"\x01", "extension 1 where there should be none"),
    (b"\x91\xd6\xff\x00\x00\x00\x01", "max_ext_len"),
    (b"\xc1\xd6\xff\x00\x00\x00\x01", "max_ext_len"),
    (b"\xc1\xc7\x0c\xff" + bytes(12), "max_ext_len"),
    (b"\xc1\xc7\x00\xff", "ValueError"),
    (b"\xc1\xd4\x01\x00", "max_ext_len"),
    (b"\xc1" + MARK + b"\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + (MARK + b"\x01") * 2, "a mark outside the end of an array"),
    (b"\xc1\x81" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x81\x01" + MARK + b"\x01", "a mark outside the end of an array"),
    (marked(0), "only a newer release may know"),
    (marked(23), "only a newer release may know"),
    (marked(127, 1), "only a newer release may know"),
    (marked(2, []), "unhashable"),
    (marked(3, {}), "unhashable"),
    (marked(4, "1"), "TypeError"),
    (marked(4), "0 fields for a int"),
    (marked(5, 10**12), "TypeError"),
    (marked(5, "a"), "TypeError"),
    (marked(6, "1"), "1 fields for a complex"),
    (marked(6, "1", 1), "TypeError"),
    (marked(7, "junk"), "InvalidOperation"),
    (marked(8, 1, 0), "ZeroDivisionError"),
    (marked(8, "1/3"), "1 fields for a Fraction"),
    (marked(9, 0, 1, 0), "ValueError"),
    (marked(10, 2024, 13, 1), "month must be in 1..12"),
    (marked(10, b"\x07\xe8\x01\xff"), "1 fields for a date"),
    (marked(11, b"\xff\xff\xff\x00\x00\x00"), "1 fields for a time"),
    (marked(11, 25, 0, 0, 0, 0, None), "hour must be in 0..23"),
    (marked(11, 1, 0, 0, 0, 0, "UTC"), "tzinfo"),
    (marked(12, b"\x07\xe8\x01\x01\xff\xff\xff\x00\x00\x00"), "1 fields for a datetime"),
    (marked(12, 2024, 2, 30, 0, 0, 0, 0, 0, None), "day is out of range for month"),
    (marked(12, 2024, 2, 1, 0, 0, 0, 0, 2, None), "fold"),
    (marked(13, 10**10, 0, 0), "OverflowError"),
    (marked(14, 86400 * 10**6, None), "timedelta"),
    (marked(14, 0, b"x"), "TypeError"),
    (marked(15, "No/Such"), "ZoneInfoNotFoundError"),
    (marked(15, "../../../etc/passwd"), "ValueError"),
    (marked(15, "/etc/passwd"), "ValueError"),
    (marked(15, "Europe"), "Error"),
    (marked(15, 1), "Error"),
    (marked(16, b"short"), "16-char"),
    (marked(16, "x" * 16), "Error"),
    (marked(17, "999.1.1.1"), "AddressValueError"),
    (marked(18, "10.0.0.1/8"), "has host bits set"),
    (marked(22, "::/129"), "NetmaskValueError"),
]


@each("data, words", DAMAGED)
def test_damaged_and_foreign_bytes_are_refused(data: bytes, words: str) -> None:
    """Every way in which bytes can be wrong is a CodecError that says how."""
    with pytest.raises(CodecError) as caught:
        CODEC.decode(data)
    assert words in str(caught.value)
    assert "not a value of this codec, or damaged" in str(caught.value)


def decode_or_refuse(data: bytes) -> None:
    """A value that can be encoded again, or CodecError; never anything else."""
    try:
        value = CODEC.decode(data)
    except CodecError:
        return
    CODEC.encode(value)


@given(st.sampled_from([b"", b"\x91", b"\xc1"]), st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_random_bytes_give_a_value_or_a_refusal(start: bytes, rest: bytes) -> None:
    """No bytes make decode raise anything but CodecError, or give a value that is not one of ours."""
    decode_or_refuse(start + rest)


def test_every_truncation_is_refused() -> None:
    """A value cut short is never taken for a shorter value."""
    for value, _ in ONE_OF_EACH:
        data = CODEC.encode([value, (value, "x")])
        for size in range(len(data)):
            with pytest.raises(CodecError):
                CODEC.decode(data[:size])


def test_flipped_bits_give_a_value_or_a_refusal() -> None:
    """Each single flipped bit, and random heavier damage, gives a value or CodecError."""
    dice = random.Random(7)
    whole = CODEC.encode([value for value, _ in ONE_OF_EACH])
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        decode_or_refuse(bytes(data))
        for _ in range(3):
            data[dice.randrange(len(data))] = dice.choice([dice.randrange(256), 0xC7, 0xC1, 0x91, 0xDC])
        decode_or_refuse(bytes(data))


@given(st.integers(0, 30), st.lists(values, max_size=9))
@settings(max_examples=150, deadline=None)
def test_marks_with_wrong_fields_give_a_value_or_a_refusal(code: int, fields: list[object]) -> None:
    """Fields of any type and number under any mark give a value of ours or CodecError."""
    decode_or_refuse(marked(code, *fields))


def test_a_header_that_promises_too_much_allocates_nothing() -> None:
    """Lengths beyond the data are refused before memory is taken for them."""
    for header in (b"\xdb", b"\xc6", b"\xc9", b"\xdd", b"\xdf"):
        with pytest.raises(CodecError):
            CODEC.decode(b"\x91" + header + struct.pack(">I", 2**32 - 1) + b"\x00" * 8)
