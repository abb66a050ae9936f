"""What the codec does not carry is refused wherever it sits, and a refusal leaves nothing behind."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import io
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import TZPATH, ZoneInfo

import msgpack  # type: ignore[import-untyped]
import pytest

from nearcache.errors import CodecError
from nearcache.protocol.types import PACKS
from tests.support.cases import each
from tests.support.values import CODEC, through


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


class Model:
    """As pydantic's."""

    def model_dump(self) -> dict[str, object]:
        """Its fields."""
        return {}


class Attrs:
    """As those of attrs."""

    __attrs_attrs__ = ()


class Struct:
    """As msgspec's."""

    __struct_fields__ = ()


class Number:
    """As numpy's scalars and arrays."""

    dtype = "int64"


def subclass_of(base: type, *args: Any) -> Any:
    """An instance of a subclass that adds nothing."""
    return type(f"My{base.__name__}", (base,), {})(*args)


REFUSED = [
    (Color.RED, "Color, which cannot be cached: register it, as in cache.codec.register(Color)"),
    (Level.LOW, "Level, which cannot be cached: register it, as in cache.codec.register(Level)"),
    (Word.A, "Word, which cannot be cached: register it, as in cache.codec.register(Word)"),
    (Flags.A, "Flags, which cannot be cached: register it, as in cache.codec.register(Flags)"),
    (Point(1, 2), "Point, which cannot be cached: register it, as in cache.codec.register(Point)"),
    (User(1), "User, which cannot be cached: register it, as in cache.codec.register(User)"),
    (Plain(), "Plain, which cannot be cached: cache a dict or tuple of its fields, or register it with encode= and"),
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
    (Lunar(), "Lunar, which cannot be cached: use zoneinfo.ZoneInfo(...) or a datetime.timezone, or register"),
    (Model(), "Model, which cannot be cached: register it, as in cache.codec.register(Model)"),
    (Attrs(), "Attrs, which cannot be cached: register it, as in cache.codec.register(Attrs)"),
    (Struct(), "Struct, which cannot be cached: register it, as in cache.codec.register(Struct)"),
    (Number(), "Number, which cannot be cached: cache its .item() or .tolist(), or register it with encode="),
    (int, "type, which cannot be cached"),
    (User, "type, which cannot be cached"),
    (..., "ellipsis, which cannot be cached"),
    (len, "builtin_function_or_method, which cannot be cached"),
    (iter([]), "list_iterator, which cannot be cached: what it yields can be had once: cache a list of it"),
    (ValueError("x"), "ValueError, which cannot be cached: cache a str or a dict of what it says"),
]


UNHASHABLE_REFUSED = [
    (subclass_of(list), "Mylist, which cannot be cached: cache a plain list"),
    (subclass_of(dict), "Mydict, which cannot be cached: cache a plain dict"),
    (subclass_of(set), "Myset, which cannot be cached: cache a plain set"),
    (subclass_of(bytearray), "Mybytearray, which cannot be cached: cache a plain bytearray"),
    (subclass_of(collections.OrderedDict), "MyOrderedDict, which cannot be cached: cache an OrderedDict"),
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
    four: list[Any] = [[number] for number in range(4100)]
    four.extend([four, four, [four]])
    yield four


@pytest.mark.parametrize("value", list(cycles()), ids=["list", "dict", "wide", "large"])
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
