"""Types of every sort that can be registered, a codec that knows them, and values of them at random."""

from __future__ import annotations

import enum
import re
from collections import namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import msgspec
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, HttpUrl, PrivateAttr, RootModel

from nearcache.protocol.codec import MsgpackCodec
from tests.support.values import frozen, leaves

T = TypeVar("T")


class Color(enum.Enum):
    """Its values can't be cached; its members can."""

    RED = object()
    BLUE = iter(())


class Level(enum.IntEnum):
    """Members that are ints."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """Members that are strings."""

    A = "a"
    B = "b"


class Right(enum.Flag):
    """Bits."""

    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.IntFlag):
    """Bits, and more of them than have names."""

    X = 1
    W = 2


class Point(NamedTuple):
    """A typed one."""

    x: Any
    y: Any = 0


Pair = namedtuple("Pair", "left right")  # noqa: PYI024  # both sorts are tested


@dataclass(frozen=True, slots=True)
class Address:
    """Frozen and slotted."""

    street: Any
    color: Color = Color.RED


@dataclass
class Item:
    """As most are."""

    id: Any
    tags: Any = field(default_factory=list)


@dataclass(kw_only=True)
class Order:
    """Keywords, a field that is not given, a variable of __init__, and something that is no field."""

    items: Any
    rate: InitVar[int] = 2
    total: int = field(init=False, default=0)
    note: str = field(default="", compare=False, repr=False)

    def __post_init__(self, rate: int) -> None:
        self.total += rate
        self.seen = True


@dataclass(eq=False)
class Own:
    """An __init__ of its own, which takes something else."""

    value: Any

    def __init__(self, text: str) -> None:
        self.value = text

    def __eq__(self, other: object) -> bool:
        return type(other) is Own and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Box(Generic[T]):
    """A generic one."""

    content: T


@dataclass
class Empty:
    """Without fields."""


def _read_time(text: str) -> datetime:
    """Refuses a datetime."""
    return datetime.fromisoformat(text)


@attrs.define
class Car:
    """With slots, a private field, and a converter that refuses what it gives."""

    owner: Any
    _plate: str = ""
    built: Any = attrs.field(converter=_read_time, default="2024-01-01T00:00:00+00:00")


@attrs.frozen(cache_hash=True)
class Key:
    """Frozen."""

    id: Any
    kind: str = "k"


class Event(msgspec.Struct):
    """A plain one."""

    name: Any
    at: Any = None


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """Frozen, by keywords."""

    text: str
    weight: Any = 1


class User(BaseModel):
    """A model."""

    id: int
    name: str = "Ada"
    friends: list[User] = []
    extra: Any = None
    site: HttpUrl | None = None
    _secret: int = PrivateAttr(default=7)


class Open(BaseModel):
    """One that takes more than its fields."""

    model_config = ConfigDict(extra="allow")
    id: Any


class Fixed(BaseModel):
    """A frozen one."""

    model_config = ConfigDict(frozen=True)
    id: Any
    price: Decimal = Decimal(1)


class Users(RootModel[list[User]]):
    """A root model."""


class Page(BaseModel, Generic[T]):
    """A generic model."""

    content: list[T]


CLASSES: tuple[Any, ...] = (
    *(Color, Level, Word, Right, Mode, Point, Pair, Address, Item, Order, Own, Box, Empty, Car, Key, Event, Tag),
    *(User, Open, Fixed, Users, Page[int]),
)


def codec_of_all() -> MsgpackCodec:
    """A codec with all of them."""
    codec = MsgpackCodec()
    for cls in CLASSES:
        codec.register(cls, name=f"t.{cls.__qualname__}")
    codec.register(re.Pattern, encode=lambda found: found.pattern, decode=re.compile)
    return codec


TYPED = codec_of_all()
members = st.sampled_from(
    [*Color, *Level, *Word, Right(0), *Right, Right.READ | Right.WRITE, *Mode, Mode(0), Mode(64), Mode(3)]
)
keys = st.one_of(
    members,
    st.builds(Point, frozen, frozen),
    st.builds(Pair, frozen, members),
    st.builds(Address, frozen, st.sampled_from(Color)),
    st.builds(Key, frozen, st.text(max_size=3)),
    st.builds(Tag, text=st.text(max_size=3), weight=frozen),
    st.builds(Fixed, id=frozen),
)
"""Values that can be keys of dicts."""
ids = st.integers(-5, 2**40)


def model(id: int, friends: list[User], extra: object, site: str | None) -> User:  # noqa: A002  # the field's name
    """A model with fields that were not set."""
    made = User(id=id, friends=friends, extra=extra) if site is None else User(id=id, friends=friends, site=site)  # type: ignore[arg-type]  # it is made of it
    made._secret = id
    return made


def within(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values with these inside."""
    return st.one_of(
        st.lists(items, max_size=4),
        st.lists(items, max_size=3).map(tuple),
        st.dictionaries(frozen | keys, items, max_size=3),
        st.builds(Item, items, st.lists(items, max_size=2)),
        st.builds(Order, items=items, note=st.text(max_size=2)),
        st.builds(Own, items),
        st.builds(Box, items),
        st.builds(Point, items, items),
        st.builds(Pair, items, items),
        st.builds(Address, items),
        st.builds(Car, items, st.text(max_size=2)),
        st.builds(Event, items, items),
        st.builds(Key, items),
        st.builds(Open, id=items, more=items),
        st.builds(Fixed, id=items),
        st.builds(model, ids, st.just([]), items, st.none() | st.just("https://example.org/a")),
    )


registered = st.recursive(
    st.one_of(
        leaves,
        keys,
        st.builds(Empty),
        st.just(re.compile("[a-z]+")),
        st.lists(ids, max_size=3).map(lambda numbers: Page[int](content=numbers)),
        st.lists(st.builds(model, ids, st.just([]), frozen, st.none()), max_size=2).map(Users),
    ),
    within,
    max_leaves=10,
)
"""Values of all carried and all registered types, nested."""


ONE_OF_EACH_KIND: list[Any] = [
    *(Color.RED, Level.HIGH, Word.A, Right.READ | Right.WRITE, Mode(65)),
    *(Point(1, [2]), Pair("a", (1,)), Address("s", Color.BLUE), Item(7, ["a", b"b"]), Order(items=[1, {"a": 2}])),
    *(Own("x"), Box(Item(1)), Empty(), Car("Ada", "A1"), Key(1), Event("e", datetime(2024, 1, 1, tzinfo=UTC))),
    *(Tag(text="a", weight=(1, 2)), model(7, [model(8, [], None, None)], {"a": {1}}, None)),
    *(model(9, [], None, "https://example.org/a"), Open.model_validate({"id": 1, "more": [1, 2]})),
    *(Fixed(id=1, price=Decimal("1.50")), Users([model(1, [], None, None)]), Page[int](content=[1, 2])),
    *(re.compile("[a-z]"), User.model_validate_json('{"id": 1, "extra": null}')),
]


def shape(value: Any) -> Any:
    """A value's types at every depth, the sign of zeros, and what equality leaves out."""
    kind = TYPED.types.by_type.get(type(value))
    if isinstance(value, enum.Enum):
        return type(value), value.name, repr(value.value)
    if kind is not None and not isinstance(value, re.Pattern):
        more = getattr(value, "seen", None)
        return type(value), more, [shape(part) for part in kind.pack(value)]
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(shape(item)) for item in value)
    return type(value), hex(value) if type(value) is int else repr(value)
