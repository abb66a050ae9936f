"""Types of the application's own: what comes back, what is a miss, and what is refused at registration."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings

from nearcache.errors import CodecError, ConfigError, ValueTooLarge
from nearcache.protocol.codec import MsgpackCodec
from nearcache.protocol.registry import TYPES_MAX, UnknownType
from tests.support.cases import each
from tests.support.models import (
    CLASSES,
    ONE_OF_EACH_KIND,
    TYPED,
    Address,
    Car,
    Color,
    Fixed,
    Item,
    Key,
    Level,
    Mode,
    Order,
    Point,
    Right,
    Tag,
    User,
    codec_of_all,
    registered,
    shape,
)


@given(registered)
@settings(max_examples=150)
def test_a_value_of_registered_types_comes_back_equal_and_of_its_type(value: object) -> None:
    """At any depth, as a key, with what equality leaves out; and it may be encoded again."""
    before = shape(value)
    data = TYPED.encode(value)
    back = TYPED.decode(data)
    assert shape(back) == before == shape(value)
    assert len(TYPED.encode(back)) == len(data)  # sets may have another order


@each("value", ONE_OF_EACH_KIND)
def test_each_sort_comes_back(value: object) -> None:
    """Equal, and of its type, from a codec that has learnt of it anew, as in another process."""
    back = codec_of_all().decode(TYPED.encode([value, {"a": value}]))
    assert back == [value, {"a": value}]
    assert shape(back[0]) == shape(value)


def test_every_class_of_the_tests_is_among_the_values() -> None:
    """A sort that is added there is tested here."""
    assert set(CLASSES) <= {type(value) for value in ONE_OF_EACH_KIND}


def test_plain_values_keep_their_bytes() -> None:
    """The table of types is there only where there are some."""
    for value in ([1], {"a": (1, 2)}, None):
        assert TYPED.encode(value) == MsgpackCodec().encode(value)
    assert TYPED.encode([Level.LOW])[:1] == b"\xc5"


def test_members_of_enums_stay_members() -> None:
    """Identity counts for them, also where they are keys."""
    back = TYPED.decode(TYPED.encode({Color.RED: [Right.READ | Right.WRITE, Mode(64)]}))
    assert back[Color.RED][0] is Right.READ | Right.WRITE
    assert back[Color.RED][1] is Mode(64)


def test_a_model_keeps_what_was_not_set_and_what_is_private() -> None:
    """`exclude_unset` gives the same before and after."""
    user = User(id=1, name="Alan")
    user._secret = 9
    back = TYPED.decode(TYPED.encode(user))
    assert back.model_dump(exclude_unset=True) == {"id": 1, "name": "Alan"}
    assert back._secret == 9


def test_a_time_zone_that_pydantic_made_comes_back() -> None:
    """Datetimes that it reads from text have zones of a class of its own."""

    class Visit(pydantic.BaseModel):
        at: datetime

    codec = MsgpackCodec()
    codec.register(Visit)
    visit = Visit.model_validate_json('{"at": "2024-01-01T00:00:00+02:00"}')
    back = codec.decode(codec.encode(visit))
    assert back == visit
    assert type(back.at.tzinfo) is type(visit.at.tzinfo)
    assert codec.decode(codec.encode(visit.at)) == visit.at


class Moon(tzinfo):
    """A zone of the application's own."""

    def __init__(self, hours: int = 0) -> None:
        self.hours = hours

    def __eq__(self, other: object) -> bool:
        return type(other) is Moon and other.hours == self.hours

    def __hash__(self) -> int:
        return self.hours

    def utcoffset(self, _: datetime | None) -> timedelta:
        """Fixed."""
        return timedelta(hours=self.hours)

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        """Its name."""
        return "moon"


def test_a_registered_zone_may_be_a_datetime_s() -> None:
    """As pytz's and dateutil's may be registered."""
    codec = MsgpackCodec()
    codec.register(Moon, encode=lambda moon: moon.hours, decode=Moon)
    for value in (datetime(2024, 1, 1, tzinfo=Moon(3)), datetime(2024, 1, 1, tzinfo=Moon(3)).timetz()):
        back = codec.decode(codec.encode([value, Moon(3)]))
        assert back == [value, Moon(3)]
        assert type(back[0].tzinfo) is Moon


def test_what_post_init_makes_is_made_again_and_fields_stay_as_they_were() -> None:
    """It runs with the defaults of its variables, whatever it does to fields."""
    order = Order(items=[], rate=5)
    assert order.total == 5
    back = TYPED.decode(TYPED.encode(order))
    assert (back.total, back.seen) == (5, True)


def test_neither_converters_nor_validators_see_their_own_results() -> None:
    """They would refuse them here."""
    car = Car("Ada")
    assert TYPED.decode(TYPED.encode(car)) == car
    assert hash(TYPED.decode(TYPED.encode(Key(1)))) == hash(Key(1))


# ------------------------------------------------------------------------------------------------------------- misses


def changed(fields: list[Any]) -> MsgpackCodec:
    """A codec of another release, with other fields."""
    codec = MsgpackCodec()
    codec.register(make_dataclass("User", fields), name="shop.User")
    return codec


OLD = changed([("id", int), ("name", str)])
OLD_DATA = OLD.encode(next(iter(OLD.types.by_type))(1, "Ada"))


@each(
    "fields",
    [
        [("id", int)],
        [("id", int), ("name", str), ("age", int, 0)],
        [("name", str), ("id", int)],
        [("id", str), ("name", str)],
        [("id", int), ("nick", str)],
        [("id", int), ("name", "str | None")],
    ],
)
def test_a_class_with_other_fields_is_a_miss(fields: list[Any]) -> None:
    """More, fewer, renamed, of another type, in another order: the fingerprint tells."""
    with pytest.raises(UnknownType, match=r"of type shop\.User, which has other fields here") as caught:
        changed(fields).decode(OLD_DATA)
    assert caught.value.name == "shop.User"
    assert isinstance(caught.value, CodecError)


def test_the_same_fields_are_a_hit() -> None:
    """Another class of the same name and fields is the class of another release."""
    assert changed([("id", "int"), ("name", str)]).decode(OLD_DATA).name == "Ada"


def test_an_unknown_class_is_a_miss() -> None:
    """And its name is said; one that is no name is not."""
    with pytest.raises(UnknownType, match=r"of type shop\.User, which is not registered here"):
        MsgpackCodec().decode(OLD_DATA)
    with pytest.raises(UnknownType, match=r"of type a name that is none") as caught:
        MsgpackCodec().decode(OLD_DATA.replace(b"shop.User", b"shop\n\x00ser"))
    assert "\n" not in str(caught.value)


def test_members_that_are_gone_are_a_miss_and_new_ones_are_not() -> None:
    """So an Enum may grow while both releases run. Bits of a Flag must keep their meaning."""
    old, new = MsgpackCodec(), MsgpackCodec()
    one: Any
    two: Any
    one, two = enum.Enum("Color", "RED GREEN"), enum.Enum("Color", "BLUE RED")
    old.register(one, name="Color")
    new.register(two, name="Color")
    assert new.decode(old.encode(one["RED"])) is two["RED"]
    with pytest.raises(CodecError, match="Color raised KeyError"):
        new.decode(old.encode(one["GREEN"]))
    flags: Any = enum.Flag("Right", "R W")  # type: ignore[misc]  # not the variable's name
    others: Any = enum.Flag("Right", "W R")  # type: ignore[misc]  # as above
    old.register(flags, name="Right")
    new.register(others, name="Right")
    with pytest.raises(UnknownType, match="other fields"):
        new.decode(old.encode(flags["R"]))


def test_a_constructor_that_raises_is_a_miss() -> None:
    """What it says is not quoted; and a decode function that gives something else is no better."""
    allowed = [True]

    @dataclass
    class Account:
        owner: str

        def __post_init__(self) -> None:
            if not allowed[0]:
                raise ValueError("my-secret " + self.owner)

    codec = MsgpackCodec()
    codec.register(Account, name="Account")
    data = codec.encode(Account("Ada"))
    allowed[0] = False
    with pytest.raises(CodecError, match="Account raised ValueError") as caught:
        codec.decode(data)
    assert "secret" not in str(caught.value)

    codec.register(Moon, name="Moon", encode=lambda moon: moon.hours, decode=str)  # type: ignore[arg-type]  # that is tested
    with pytest.raises(CodecError, match="Moon was decoded to a str"):
        codec.decode(codec.encode(Moon()))


def test_flags_that_python_would_keep_for_good_are_bounded() -> None:
    """Each combination that is decoded stays in memory."""
    codec = MsgpackCodec()
    make: Any = enum.IntFlag
    many, again = (make("Many", [f"B{bit}" for bit in range(20)]) for _ in range(2))
    codec.register(many, name="Many")
    data = codec.encode([many(bits) for bits in range(2, 20_000)])
    fresh = MsgpackCodec()
    fresh.register(again, name="Many")
    with pytest.raises(CodecError, match="Many raised Damaged"):
        fresh.decode(data)
    with pytest.raises(CodecError, match="over 1024 bits"):
        TYPED.encode(Mode(2**2000))


# ------------------------------------------------------------------------------------------------ refused when encoded


class Child(Item):
    """A subclass."""


def test_a_subclass_is_another_type() -> None:
    """It would come back as its base."""
    with pytest.raises(CodecError, match=r"value\[0\]\.id is a .*Child, which cannot be cached: register it"):
        TYPED.encode([Item(Child(1))])


def test_a_refusal_says_where_it_is() -> None:
    """In the fields of registered types, too; and what has no fields at all is told."""
    for value, words in (
        (Item([1, object()]), r"value\.id\[1\] is a object"),
        (User(id=1, extra={"a": memoryview(b"")}), r"value\.extra\['a'\] is a memoryview"),
        (Address("x", color=object()), r"value\.color is a object"),  # type: ignore[arg-type]  # that is tested
        ({Key(lambda: 0): 1}, r"the key .*\.id is a function"),
    ):
        with pytest.raises(CodecError, match=words):
            TYPED.encode(value)
    without = Item.__new__(Item)
    with pytest.raises(CodecError, match=r"value\[0\] can't be stored: t.Item gave no fields: AttributeError"):
        TYPED.encode([without])


def test_an_encode_that_raises_is_a_codec_error() -> None:
    """It says what it raised."""
    codec = MsgpackCodec()
    codec.register(Moon, name="Moon", encode=lambda moon: 1 // 0, decode=Moon)
    with pytest.raises(CodecError, match="Moon gave no fields: ZeroDivisionError"):
        codec.encode(Moon())


def test_values_that_contain_themselves_or_double_are_refused() -> None:
    """As plain ones are."""
    item = Item(1)
    item.tags.append(item)
    with pytest.raises(CodecError, match="contains itself"):
        TYPED.encode(item)
    double: Any = Item(1)
    for _ in range(40):
        double = Item(double, [double])
    with pytest.raises(ValueTooLarge):
        MsgpackCodec(1024 * 1024, TYPED.types).encode(double)


def test_too_many_types_in_one_value_are_refused() -> None:
    """There are so many marks."""
    codec = MsgpackCodec()
    values = []
    for number in range(TYPES_MAX + 1):
        cls = make_dataclass(f"C{number}", [("id", int)])
        codec.register(cls, name=cls.__name__)
        values.append(cls(number))
    assert codec.decode(codec.encode(values[1:])) == values[1:]
    with pytest.raises(CodecError, match="over 96 registered types"):
        codec.encode(values)


# -------------------------------------------------------------------------------------------------------- registration


class Lists(dict[str, int]):
    """No sort that is known."""


@dataclass
class Counted(dict[str, int]):
    """Fields, and items."""

    id: int


@dataclass
class Derived:
    """Made of something that is gone."""

    text: InitVar[str]
    length: int = field(init=False)

    def __post_init__(self, text: str) -> None:
        self.length = len(text)


REFUSED: list[tuple[Callable[[MsgpackCodec], object], str]] = [
    (lambda codec: codec.register(Lists), r"Lists'> is no dataclass, Enum.*register\(T, encode="),
    (lambda codec: codec.register(Counted), "Counted has a dict's content besides fields: give encode= and decode="),
    (lambda codec: codec.register(Derived), r"needs text \(InitVar\), which no value keeps"),
    (lambda codec: codec.register(int), r"register\(int\): it is carried as it is"),
    (lambda codec: codec.register(Item(1)), r"register\(Item\(id=1, tags=\[\]\)\): must be a class"),  # type: ignore[type-var,arg-type,unused-ignore]
    (lambda codec: codec.register(Item, name=""), "name='': must be a string of 1 to 255 bytes"),
    (lambda codec: codec.register(Item, name="ä" * 200), "must be a string of 1 to 255 bytes"),
    (lambda codec: codec.register(Item, encode=lambda item: item.id), "encode= and decode= belong together"),
    (lambda codec: codec.register(Item, encode=1, decode=2), "encode=1: must be a function of one value"),  # type: ignore[arg-type]
]


@each("register, words", REFUSED)
def test_what_can_not_be_registered_is_refused(register: Callable[[MsgpackCodec], object], words: str) -> None:
    """At once, with the way out."""
    with pytest.raises(ConfigError, match=words):
        register(MsgpackCodec())


def local(kind: bool) -> Any:
    """Two classes of one name."""

    @dataclass
    class User:
        id: int if kind else str  # type: ignore[valid-type]

    return User


def test_two_classes_of_one_name_are_refused() -> None:
    """Unless one of them is given another name."""
    codec = MsgpackCodec()
    one, two = local(True), local(False)
    codec.register(one)
    with pytest.raises(ConfigError, match=r"would both be .*local\.<locals>\.User.*register\(T, name='shop\.T'\)"):
        codec.register(two)
    codec.register(two, name="two.User")
    assert type(codec.decode(codec.encode([one(1), two("a")]))[1]) is two


def test_a_class_may_be_registered_again_but_not_otherwise() -> None:
    """An annotation's registration is only a default."""
    codec = MsgpackCodec()
    codec.types.add(Item, asked=False)
    codec.register(Item, name="shop.Item")
    assert codec.register(Item, name="shop.Item") is Item
    assert b"shop.Item" in codec.encode(Item(1))
    codec.types.add(Item, asked=False)
    with pytest.raises(ConfigError, match=r"is registered as 'shop\.Item' already"):
        codec.register(Item, name="other")


def test_a_class_that_is_defined_anew_takes_the_place_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a module that is reloaded does, or a cell of a notebook."""
    module = ModuleType("reloaded")
    monkeypatch.setitem(sys.modules, "reloaded", module)
    codec = MsgpackCodec()
    made = []
    for _ in range(2):
        cls = make_dataclass("User", [("id", int)], namespace={"__module__": "reloaded"})
        cls.__module__ = "reloaded"
        module.User = cls  # type: ignore[attr-defined]
        codec.register(cls)
        made.append(cls)
    assert type(codec.decode(codec.encode(made[1](1)))) is made[1]
    with pytest.raises(CodecError, match="which cannot be cached"):
        codec.encode(made[0](1))


class Part(NamedTuple):
    """Of a machine."""

    color: Color


@attrs.define
class Machine:
    """It says what it has in a text."""

    parts: dict[str, list[Part] | None]


def test_the_types_of_fields_are_registered_with_a_class() -> None:
    """In containers, in unions, and each other's."""
    codec = MsgpackCodec()
    codec.register(Machine)
    machine = Machine({"a": [Part(Color.RED)]})
    assert codec.decode(codec.encode(machine)) == machine


def test_register_is_a_decorator() -> None:
    """It returns the class."""
    codec = MsgpackCodec()

    @codec.register
    @dataclass
    class Thing:
        id: int

    assert codec.decode(codec.encode(Thing(1))) == Thing(1)


def test_a_generic_alias_registers_its_class() -> None:
    """The values are of that."""
    codec = MsgpackCodec()
    codec.register(local(True), name="x")
    from tests.support.models import Box

    codec.register(Box[int])
    assert codec.decode(codec.encode(Box(1))) == Box(1)


def test_a_codec_can_be_pickled_with_its_types() -> None:
    """As settings are for a child that multiprocessing spawns."""
    codec = MsgpackCodec()
    codec.register(Item)
    codec.register(Moon, encode=repr, decode=Moon)
    codec.types.add(Key, asked=False)
    again = pickle.loads(pickle.dumps(codec))
    assert set(again.types.by_type) == {Item, Moon, Key}
    assert again.decode(codec.encode(Item(1))) == Item(1)


def test_the_libraries_of_models_are_not_imported() -> None:
    """Only who uses them pays for them."""
    code = (
        "import sys, dataclasses, nearcache\n"
        "nearcache.MsgpackCodec().register(dataclasses.make_dataclass('A', [('id', int)]))\n"
        "assert not {'pydantic', 'pydantic_core', 'attr', 'attrs', 'msgspec'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_objects_of_an_orm_are_refused() -> None:
    """They belong to a session."""

    @dataclass
    class Row:
        id: int
        __mapper__ = object()

    with pytest.raises(ConfigError, match="belong to a session of SQLAlchemy"):
        MsgpackCodec().register(Row)


# -------------------------------------------------------------------------------------------------------- immutability

IMMUTABLE = [
    Color.RED,
    Level.LOW,
    Right.READ,
    Point(1, (2,)),
    Address("x"),
    Key((1, Color.RED)),
    Tag(text="a"),
    Fixed(id=1),
]
MUTABLE = [Point(1, []), Address({}), Item(1), Car(1), User(id=1), Key([]), Fixed(id=[]), Tag(text="a", weight=Item(1))]


@each("value", IMMUTABLE)
def test_what_is_declared_frozen_and_holds_nothing_mutable_is_immutable(value: object) -> None:
    """So all readers may share it."""
    assert TYPED.types.is_immutable(value)
    assert TYPED.types.is_immutable((value, frozenset({value}) if not isinstance(value, Fixed) else 1))


@each("value", MUTABLE)
def test_what_can_be_changed_is_not_immutable(value: object) -> None:
    """By declaration, or by what it holds."""
    assert not TYPED.types.is_immutable(value)
    assert not TYPED.types.is_immutable((1, value))


def test_the_fields_of_a_frozen_class_count_wherever_it_is() -> None:
    """Even shared many times."""
    value: Any = Key(1)
    for _ in range(60):
        value = Point(value, value)
    assert TYPED.types.is_immutable(value)
    assert dataclasses.is_dataclass(Address)
    assert msgspec.structs.fields(Tag)


def test_text_of_annotations() -> None:
    """The fingerprint does not depend on whether a name in quotes is known."""
    from nearcache.protocol.forms import text_of

    assert text_of(list[int | None]) == "list[int|None]"
    assert text_of("list[int | None]") == "list[int|None]"
    assert text_of(Callable[[int], str]) == "Callable[[int],str]"
    assert datetime(2024, 1, 1, tzinfo=UTC)
