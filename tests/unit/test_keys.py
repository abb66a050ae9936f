"""Keys: the same call has the same key, in every process; another call has another key, down to the types."""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import math
import os
import subprocess
import sys
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import ConfigError, UncacheableArgument
from nearcache.functions import canonical, make_key_function, make_tags_function
from tests.support.cases import each

HERE = __name__


class Colour(enum.Enum):
    """A plain enumeration, with an alias."""

    RED = 1
    GREEN = 2
    CRIMSON = 1  # noqa: PIE796  # an alias is what is tested


class Weight(enum.IntEnum):
    """Members are equal to ints."""

    ONE = 1


class Word(enum.StrEnum):
    """Members are equal to strs."""

    RED = "RED"


class Access(enum.Flag):
    """Members combine."""

    READ = 1
    WRITE = 2


class User:
    """Something with an id, and without a text of its own."""

    def __init__(self, id: Any) -> None:  # noqa: A002  # the name that people use
        self.id = id


class Zone(tzinfo):
    """A time zone of somebody's own."""

    def utcoffset(self, _when: datetime | None) -> timedelta:
        """Nothing."""
        return timedelta(0)

    def dst(self, _when: datetime | None) -> None:
        """Nothing is known."""

    def tzname(self, _when: datetime | None) -> None:
        """Nothing is known."""


Point = namedtuple("Point", "x y")  # noqa: PYI024  # a subclass of tuple is what is tested

NAIVE = datetime(2024, 1, 2)  # noqa: DTZ001  # naive is what is tested

# Each is another argument than every other, however alike or equal they are.
DISTINCT = [
    *(None, True, False, 1, 0, -1, 1.0, 0.0, -0.0, math.inf, math.nan, 10**5000),
    *("1", "True", "None", "", "'", "\\", "\\'", "a', 'b", "1.0", "é", "\ud800", "\n"),
    *(b"1", b"", b"'"),
    *(Decimal(1), Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("NaN")),
    *((), (1,), (True,), (1.0,), ((1,),), (1, 2), ("a', 'b",), ("a", "b"), ("a, b",)),
    *([], [1], [True], [[1]], [1, 2]),
    *(set(), frozenset(), {1}, {True}, {"1"}, frozenset({1}), frozenset({True}), {(1, 2)}),
    *({}, {1: 2}, {True: 2}, {1: True}, {"1": 2}, {"a": {"b": 1}}, {"a": {"b": True}}),
    *(range(3), range(1, 3), range(0, 3, 2)),
    *(Colour.RED, Colour.GREEN, Weight.ONE, Word.RED, "RED", Access.READ, Access.WRITE, Access.READ | Access.WRITE),
    *(UUID(int=1), str(UUID(int=1)), date(2024, 1, 2), "2024-01-02", timedelta(1), timedelta(0, 1)),
    *(NAIVE, NAIVE.replace(fold=1), NAIVE.replace(microsecond=1), NAIVE.replace(tzinfo=UTC)),
    *(
        NAIVE.replace(tzinfo=zone)
        for zone in (ZoneInfo("UTC"), timezone(timedelta(0), "Z"), timezone(timedelta(hours=1)))
    ),
    *(time(1, 2), time(1, 2, tzinfo=UTC), time(1, 2, fold=1), "01:02:00"),
]


WRAPS: list[Callable[[Any], Any]] = [lambda value: (value,), lambda value: [value], lambda value: {0: value}]


def anything(value: Any) -> None:
    """Take one argument."""


def user(id: Any, *, full: Any = False) -> None:  # noqa: A002  # as in the documentation
    """Take two arguments."""


def many(first: Any = 0, *rest: Any, **named: Any) -> None:
    """Take any arguments."""


def page(tenant: Any, path: Any) -> None:
    """Take the two parts of a key."""


class TestCanonical:
    """The text of a value."""

    def test_tells_all_values_apart(self) -> None:
        """Values that differ, or differ in type, have different texts, however equal they are to Python."""
        texts = [canonical(value) for value in DISTINCT]
        assert len(set(texts)) == len(texts)

    def test_tells_all_values_apart_inside_others(self) -> None:
        """What holds in the open holds inside a tuple, a list, a dict and a set."""
        texts = [canonical(outer(value)) for outer in WRAPS for value in DISTINCT]
        assert len(set(texts)) == len(texts)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ({1: {"a": 1, "b": 2}}, {1: {"b": 2, "a": 1}}),
            ({"x", "y", "z"}, {"z", "y", "x"}),
            (frozenset({8, 16, 0}), frozenset({0, 16, 8})),
            (Colour.RED, Colour.CRIMSON),
            (math.nan, float("nan")),
        ],
        ids=["dict", "nested dict", "set", "frozenset", "alias", "nan"],
    )
    def test_order_does_not_show(self, one: Any, other: Any) -> None:
        """Equal dicts and sets have one text, in whatever order they were filled; so have an alias and its member."""
        assert canonical(one) == canonical(other)

    def test_reads_like_python(self) -> None:
        """A person can read it."""
        value = ["a", b"b", {"d": 1.5, "c": (1,)}, {2, 1}, set(), Colour.RED, Access.READ, range(3)]
        assert canonical(value) == (
            f"['a', b'b', {{'c': (1,), 'd': 1.5}}, {{1, 2}}, set(), {HERE}.Colour['RED'], {HERE}.Access[1], "
            "range(0, 3, 1)]"
        )
        assert canonical(datetime(2024, 1, 2, 3, tzinfo=UTC)) == (
            "datetime('2024-01-02T03:00:00', timezone(timedelta(0, 0, 0), 'UTC'))"
        )

    @given(st.data())
    def test_two_values_have_one_text_only_if_they_are_the_same(self, data: st.DataObject) -> None:
        """No two values that differ anywhere, in type or in value, share a text."""
        one, other = data.draw(VALUES), data.draw(VALUES)
        assert (canonical(one) == canonical(other)) == same(one, other)

    @given(st.lists(st.text("a', \\")))
    def test_strings_cannot_imitate_the_text_around_them(self, value: list[str]) -> None:
        """Quotes, commas and backslashes inside a string do not look like those between: the text can be read back."""
        assert ast.literal_eval(canonical(value)) == value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, 0.5])
    | st.text("1'\\,", max_size=2)
    | st.binary(max_size=1)
)
HASHABLE = st.recursive(
    SCALARS, lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner), max_leaves=3
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(HASHABLE, inner, max_size=2) | st.sets(HASHABLE, max_size=2)
    ),
    max_leaves=4,
)


def same(one: Any, other: Any) -> bool:
    """Equality that looks at types, all the way down; by search, so that it shares no idea with the code."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, dict):
        return len(one) == len(other) and all(any(same(a, b) for b in other.items()) for a in one.items())
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


class TestKey:
    """Keys without a template."""

    def test_begins_with_module_and_qualified_name(self) -> None:
        """The key says which function it is of, and which call."""
        assert make_key_function(user)(7) == f"{HERE}.user(id=7, full=False)"

    def test_how_arguments_are_passed_does_not_matter(self) -> None:
        """By position, by name, in any order: it is one call."""
        key = make_key_function(user)
        assert key(1, full=2) == key(id=1, full=2) == key(full=2, id=1) == f"{HERE}.user(id=1, full=2)"

    def test_a_default_is_an_argument(self) -> None:
        """Leaving an argument out is passing its default."""
        key = make_key_function(user)
        assert key(1) == key(1, full=False) != key(1, full=0)

    def test_any_number_of_arguments(self) -> None:
        """``*args`` keep their order, ``**kwargs`` have none."""
        key = make_key_function(many)
        assert (
            key(1, 2, b=3, a=4) == key(1, 2, a=4, b=3) == f"{HERE}.many(first=1, rest=(2,), named={{'a': 4, 'b': 3}})"
        )
        assert key(1, (2,)) != key(1, 2)
        assert key(1, first_=2) != key(1, 2)

    def test_every_kind_of_parameter_is_taken_as_python_takes_it(self) -> None:
        """What a function refuses its key refuses, with the function's name; else both have the same arguments."""

        def taken(a: Any, /, b: Any = 2, *, c: Any, d: Any = 4) -> Any:
            return {"a": a, "b": b, "c": c, "d": d}

        key = make_key_function(taken, "{a},{b},{c},{d}")
        calls: list[tuple[tuple[int, ...], dict[str, int]]] = [
            ((1,), {"c": 3}),
            ((1, 5), {"c": 3, "d": 6}),
            ((1,), {"d": 6, "c": 3, "b": 5}),
            ((), {"a": 1, "c": 3}),
            ((1,), {}),
            ((1, 2), {"b": 2, "c": 3}),
            ((1, 2, 3), {"c": 3}),
            ((1,), {"c": 3, "e": 5}),
        ]
        for args, kwargs in calls:
            try:
                expected = ",".join(str(value) for value in taken(*args, **kwargs).values())
            except TypeError:
                for way in (key, key.build):
                    with pytest.raises(TypeError, match=r"taken\(\): "):
                        way(*args, **kwargs)
            else:
                assert key(*args, **kwargs) == key.build(*args, **kwargs) == expected

    def test_arguments_of_any_name(self) -> None:
        """A function may call its parameters as the machinery calls its own."""

        def odd(fn: int, args: int, key: int) -> None: ...

        assert make_key_function(odd)(fn=1, args=2, key=3).endswith("(fn=1, args=2, key=3)")

    def test_ignored_parameters_do_not_count(self) -> None:
        """``ignore`` leaves a parameter out, whatever it is."""
        key = make_key_function(user, ignore=["full"])
        assert key(1, full=object()) == key(1) == f"{HERE}.user(id=1)"

    @pytest.mark.parametrize("seed", ["0", "1"])
    def test_the_same_in_another_process(self, seed: str) -> None:
        """The key does not depend on hashing, which differs from process to process."""
        code = (
            "import textwrap; from nearcache.functions import make_key_function as make\n"
            "print(make(textwrap.dedent)({'a', 'b', 'c', ('d', 1.5)}), make(textwrap.dedent)('x' * 2000))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == (
            "textwrap.dedent(text={'a', 'b', 'c', ('d', 1.5)}) "
            "textwrap.dedent:5a6ef29f8c3df7bc2c595d652720103eee9f75ba25b7c0f6a03985dba8d2772f\n"
        )


class TestUncacheable:
    """Arguments that have no text."""

    @each(
        "value",
        [
            object(),
            User(1),
            type("Str", (str,), {})("a"),
            type("Int", (int,), {})(1),
            type("List", (list,), {})(),
            Point(1, 2),
            OrderedDict(a=1),
            bytearray(b"a"),
            1j,
            anything,
            int,
            iter([1]),
            datetime(2024, 1, 2, tzinfo=Zone()),
            time(1, tzinfo=Zone()),
        ],
    )
    @each("wrap", [lambda v: v, lambda v: {"a": [(1, v)]}])
    def test_is_refused_with_its_name_its_type_and_the_ways_out(self, value: Any, wrap: Callable[[Any], Any]) -> None:
        """What has no exact text is refused, in the open or inside: no subclass is taken for its base."""
        with pytest.raises(UncacheableArgument) as caught:
            make_key_function(anything)(wrap(value))
        kind = type(value) if getattr(value, "tzinfo", None) is None else Zone
        message = str(caught.value)
        for part in (
            f"{HERE}.anything",
            "argument 'value'",
            kind.__qualname__,
            "ignore=('value',)",
            "cached('name:{value.id}')",
        ):
            assert part in message

    def test_what_contains_itself_is_refused(self) -> None:
        """A list inside itself has no end, and is no crash."""
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(UncacheableArgument, match="contains itself"):
            make_key_function(anything)(endless)


class TestLength:
    """Keys longer than max_key_bytes."""

    def test_a_long_key_ends_in_a_digest(self) -> None:
        """A key that would be too long keeps the name, and is short; another call still has another."""
        key = make_key_function(anything, max_key_bytes=200)
        one, other = key("x" * 200 + "a"), key("x" * 200 + "b")
        assert one.startswith(f"{HERE}.anything:")
        assert one != other
        assert len(one) == len(f"{HERE}.anything:") + 64

    @each("length", range(60, 110))
    def test_never_longer_in_bytes(self, length: int) -> None:
        """The length is that of the UTF-8, and the longest key that fits is left as it is."""
        key = make_key_function(anything, max_key_bytes=150)
        made = key("é" * length)
        plain = f"{HERE}.anything(value='{'é' * length}')"
        assert len(made.encode()) <= 150
        assert (made == plain) == (len(plain.encode()) <= 150)

    def test_a_long_name_is_cut(self) -> None:
        """Two functions whose long names begin alike have different keys all the same."""
        keys = []
        for name in ("é" * 100 + "a", "é" * 100 + "b"):
            fn = types.FunctionType(anything.__code__, globals(), name)
            fn.__qualname__ = name
            keys.append(make_key_function(fn, max_key_bytes=80)(1))
        assert keys[0] != keys[1]
        assert all(len(key.encode()) <= 80 for key in keys)

    def test_what_is_no_utf8_is_digested(self) -> None:
        """A file name that is no UTF-8 arrives as a str that Redis would not take."""
        name = os.fsdecode(b"\xff")
        assert make_key_function(anything)(name).encode().startswith(f"{HERE}.anything:".encode())

    def test_no_room_for_a_digest_is_refused(self) -> None:
        """A bound under which no key could be told from another is refused at once."""
        with pytest.raises(ConfigError, match="max_key_bytes=64: keys of functions need at least 65"):
            make_key_function(anything, max_key_bytes=64)
        assert make_key_function(anything, "{value}", max_key_bytes=64)(1) == "1"


class TestTemplate:
    """Keys and tags from templates."""

    @each(
        "template, value, key",
        [
            ("user:{value}", 7, "user:7"),
            ("of:{value}", "7", "of:7"),
            ("user:{value}", "O'Brien (née Ó:x)", "user:O'Brien (née Ó:x)"),
            ("{value}", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            ("{value}", date(2024, 1, 2), "2024-01-02"),
            ("{value}", 1.5, "1.5"),
            ("{value}", True, "True"),
            ("{value}", None, "None"),
            ("{value}", [1, "a"], "[1, 'a']"),
            ("{value}", Colour.RED, f"{HERE}.Colour['RED']"),
            ("{value.name}", Colour.RED, "RED"),
            ("{value.id}", User(7), "7"),
            ("{value[a][0]}", {"a": [7]}, "7"),
            ("{value:05d}", 7, "00007"),
            ("{value:%Y-%m}", date(2024, 1, 2), "2024-01"),
            ("{value!r}", "7", "'7'"),
            ("{value!s}", Decimal("1.50"), "1.50"),
            ("{{{value}}}", 7, "{7}"),
            ("a{{b}}c{value}d", 7, "a{b}c7d"),
        ],
    )
    def test_shows_a_value_as_one_would_write_it(self, template: str, value: Any, key: str) -> None:
        """str, numbers, dates and UUIDs show as they are, others by canonical text, formatted ones by str.format."""
        assert make_key_function(anything, template)(value) == key

    def test_parameters_that_are_not_shown_do_not_count(self) -> None:
        """The template alone says what makes the key."""
        assert make_key_function(user, "user:{id}")(7, full=object()) == "user:7"

    def test_a_string_cannot_pass_for_another_value(self) -> None:
        """Who is called "None" does not meet what is cached for None: such a string is quoted."""
        key = make_key_function(anything, "user:{value}")
        for value in DISTINCT:
            if type(value) not in {str, int, float, date, UUID}:
                assert key(canonical(value)) != key(value)
        assert key("None") == "user:'None'"
        assert key("'None'") not in {key("None"), key(None)}

    def test_values_that_are_no_strings_stay_apart(self) -> None:
        """1, 1.0 and True, and all their like, have different keys in a template too."""
        key = make_key_function(anything, "{value}")
        texts = [key(value) for value in DISTINCT if not isinstance(value, str)]
        assert len(set(texts)) == len(texts)

    @given(st.text(), st.text())
    def test_strings_stay_apart(self, one: str, other: str) -> None:
        """Two strings have one key only if they are equal."""
        key = make_key_function(anything, "{value}")
        assert (key(one) == key(other)) == (one == other)

    def test_the_separator_is_escaped_where_it_would_deceive(self) -> None:
        """("x:y", "z") and ("x", "y:z") are two pages; what cannot deceive stays readable."""
        key = make_key_function(page, "page:{tenant}:{path}")
        assert key("acme", "a:b%") == "page:acme:a:b%"
        assert key("x:y", "z") == "page:x%3Ay:z"
        assert key("x%3Ay", "z") == "page:x%253Ay:z"

    @given(
        st.tuples(st.text("a:-%32DA"), st.text("a:-%32DA")),
        st.tuples(st.text("a:-%32DA"), st.text("a:-%32DA")),
        st.sampled_from(["{tenant}:{path}", "{tenant}-{path}", "{tenant}x: {path}!", "<{tenant}>A-{path}"]),
    )
    def test_two_fields_never_run_together(self, one: tuple[str, str], other: tuple[str, str], template: str) -> None:
        """Two pairs of strings have one key only if they are equal."""
        key = make_key_function(page, template)
        assert (key(*one) == key(*other)) == (one == other)

    def test_a_formatted_field_is_the_templates_affair(self) -> None:
        """A conversion or a format specification asks for str.format's text, and gets it, separators escaped."""
        assert make_key_function(page, "{tenant!s}:{path}")("x:y", "z") == "x%3Ay:z"
        assert make_key_function(page, "{tenant:03d}{path:03d}")(1, 2) == "001002"
        assert make_key_function(page, "{tenant:{path}}")(1, 3) == "  1"

    @pytest.mark.parametrize("template", ["{tenant!s}", "{tenant!r}", "{tenant!s}:{path}"])
    @pytest.mark.parametrize("value", [object(), [object()]], ids=["object", "list"])
    def test_a_place_in_memory_is_no_key(self, template: str, value: object) -> None:
        """The next object at the same address would be given this one's value."""
        with pytest.raises(UncacheableArgument, match="where the object lies in memory"):
            make_key_function(page, template)(value, 1)

    @pytest.mark.parametrize(
        ("fn", "template", "message"),
        [
            (user, "user", "names no parameter.* 'user:{id}'"),
            (user, "user:{uid}", "{uid} in the template 'user:{uid}' is not a parameter; parameters are: id, full"),
            (user, "user:{}", "{} in the template 'user:{}' is positional; parameters are: id, full"),
            (user, "user:{0}", "{0} in the template 'user:{0}' is positional"),
            (user, "user:{id:{width}}", "{width} in the template"),
            (user, "user:{id", "'user:{id' cannot be read"),
            (user, "user:{id!x}", "'user:{id!x}' cannot be read"),
            (page, "{tenant}{path}", "{tenant} would run into"),
            (page, "{tenant}and{path}", "{tenant} would run into"),
        ],
    )
    def test_a_template_that_cannot_work_is_refused(self, fn: Callable[..., Any], template: str, message: str) -> None:
        """A mistake shows when the function is decorated, with the function, the template and what is wrong."""
        pattern = message.replace("{", r"\{").replace("}", r"\}")
        with pytest.raises(TypeError, match=pattern) as caught:
            make_key_function(fn, template)
        assert f"{HERE}.{fn.__name__}: " in str(caught.value)

    def test_a_constant_key_for_a_constant_call(self) -> None:
        """A function without parameters, or with none that count, may have a template without fields."""

        def config() -> None: ...

        assert make_key_function(config, "config")() == "config"
        assert make_key_function(anything, "it", ignore=["value"])(object()) == "it"

    def test_a_template_and_ignore_may_not_contradict_each_other(self) -> None:
        """A parameter is shown or left out."""
        with pytest.raises(TypeError, match=r"'user:\{id\}' shows 'id', which ignore leaves out"):
            make_key_function(user, "user:{id}", ignore=["id"])

    @pytest.mark.parametrize(
        ("template", "value", "reason"),
        [
            ("{value.id}", None, "'NoneType' object has no attribute 'id'"),
            ("{value[a]}", {}, "'a'"),
            ("{value[0]}", 7, "not subscriptable"),
            ("{value:d}", "a", "Unknown format code 'd'"),
            ("{value}", User(7), "holds a .*User.*{value.id}.*{value!s}"),
            ("{value.id}", User(User(7)), "holds a .*User"),
        ],
    )
    def test_a_template_that_cannot_be_filled_says_why(self, template: str, value: Any, reason: str) -> None:
        """The error names the function, the field, the template and the reason."""
        with pytest.raises(UncacheableArgument, match=reason) as caught:
            make_key_function(anything, template)(value)
        assert f"{HERE}.anything: {template} of the template {template!r}" in str(caught.value)

    def test_tags(self) -> None:
        """Tags are templates too, with the arguments of the call; one without fields is a tag as it stands."""
        assert make_tags_function(user, ["users", "user:{id}", "{{}}"])(id=7) == ("users", "user:7", "{}")
        assert make_tags_function(user, ("users",))(7) == ("users",)
        with pytest.raises(TypeError, match="uid"):
            make_tags_function(user, ["user:{uid}"])

    @pytest.mark.parametrize("given", ["users", [7], [None]])
    def test_names_come_in_a_sequence(self, given: Any) -> None:
        """A lone string is not taken for its letters."""
        with pytest.raises(TypeError, match=r"tags=.*must be a sequence of strings"):
            make_tags_function(user, given)
        with pytest.raises(TypeError, match=r"ignore=.*must be a sequence of strings"):
            make_key_function(user, ignore=given)


def _closure() -> Callable[[int], int]:
    offset = 1

    def shifted(number: int) -> int:
        return number + offset

    return shifted


def _wrapped_closure() -> Callable[[int], int]:
    # functools.cache has no __closure__ of its own.
    return functools.cache(_closure())


class Repository:
    """Methods of all kinds."""

    def load(self, id: int) -> type:  # noqa: A002  # as in the documentation
        """Capture nothing but what super() needs."""
        super().__init__()
        return __class__  # type: ignore[name-defined,no-any-return]  # the compiler provides it

    def make(cls, id: int) -> None:  # noqa: A002, N805  # classmethod comes above @cached
        """Make one."""


class Callee:
    """Something that can be called."""

    def __call__(self, id: int) -> None:  # noqa: A002  # as above
        """Do nothing."""


class TestFunctions:
    """Which functions have keys."""

    @pytest.mark.parametrize(
        ("fn", "reason"),
        [
            (Repository.load, r"it is a method; ignore=\('self',\)"),
            (Repository.make, r"it is a method; ignore=\('cls',\)"),
            (Repository().load, "bound to an object"),
            (_closure(), r"captures variables \(offset\)"),
            (_wrapped_closure(), r"it captures variables \(offset\)"),
            (lambda id: id, "lambda"),  # noqa: A006  # as above
            (functools.partial(user, full=True), "no name of its own"),
            (Callee(), "no name of its own"),
        ],
    )
    def test_without_a_template_the_name_must_tell_the_function(self, fn: Callable[..., Any], reason: str) -> None:
        """What module, name and arguments do not tell apart needs a template, and the error says so and why."""
        with pytest.raises(TypeError, match=f"needs a key template, as in cached.*{reason}"):
            make_key_function(fn)
        parameter = next(iter(reversed(inspect.signature(fn).parameters)))
        assert make_key_function(fn, "x:{" + ("id" if parameter == "full" else parameter) + "}")

    def test_a_method_without_its_object(self) -> None:
        """With ignore=("self",) all objects share the values; ``__class__`` for super() is no captured variable."""
        key = make_key_function(Repository.load, ignore=("self",))
        assert key(Repository(), 7) == key(Repository(), id=7) == f"{HERE}.Repository.load(id=7)"

    def test_a_default_is_no_captured_variable(self) -> None:
        """What a function took as a default is an argument, and is in the key."""
        keys = [make_key_function(_with_default(n)) for n in (1, 2)]
        assert keys[0](5) != keys[1](5)

    def test_without_a_signature_a_template_does_not_help(self) -> None:
        """A builtin that does not tell its parameters needs a def around it."""
        with pytest.raises(TypeError, match=r"builtins.max cannot be cached: .*wrap it in a function made by def"):
            make_key_function(max, "max:{x}")

    def test_ignore_must_name_parameters(self) -> None:
        """A misspelt name in ignore is refused, with the names there are."""
        with pytest.raises(TypeError, match="ignore names 'ful', which is not a parameter; parameters are: id, full"):
            make_key_function(user, ignore=["ful"])

    def test_main_is_warned_about(self) -> None:
        """Every script's module is __main__: their keys would be the same. A template has no such trouble."""
        fn = types.FunctionType(user.__code__, globals(), "user")
        fn.__module__ = "__main__"
        with pytest.warns(UserWarning, match=r"__main__.user: .*any other script.*a key template") as caught:
            make_key_function(fn)
        assert (caught[0].filename, caught[0].lineno) == (__file__, user.__code__.co_firstlineno)
        make_key_function(fn, "user:{full}")


def _with_default(number: int) -> Callable[..., int]:
    def shifted(value: int, number: int = number) -> int:
        return value + number

    return shifted


class Counted:
    """Counts how often it is rendered."""

    def __init__(self) -> None:
        self.shown = 0

    def __str__(self) -> str:
        self.shown += 1
        return str(self.shown)


class Unhashable:
    """Fails to hash, and not by the usual error."""

    id = 7

    def __hash__(self) -> int:
        raise RuntimeError("no hash outside of a request")


class TestMemo:
    """The memo of keys by raw arguments never shows, but in time."""

    def test_a_call_seen_before_is_not_built_again(self) -> None:
        """Small arguments of plain types are looked up."""
        key = make_key_function(user)
        first = key(7, full="x")
        assert key.memo(7, full="x") is first
        assert key(7, full="x") is first

    @pytest.mark.parametrize(
        "value", [1.0, (1,), Decimal(1), Colour.RED, "x" * 257, b"x" * 257, 1 << 4096, UUID(int=1)]
    )
    def test_other_arguments_are_not_kept(self, value: Any) -> None:
        """What the memo would confuse, or keep alive at length, is built in full each time."""
        key = make_key_function(anything)
        assert key(value) == key(value)
        for args, kwargs in [((value,), {}), ((), {"value": value})]:
            with pytest.raises(Exception):  # noqa: B017  # any will do
                key.memo(*args, **kwargs)

    def test_many_arguments_are_not_kept(self) -> None:
        """Nor are many small ones, nor long names."""
        key = make_key_function(many)
        for args, kwargs in [((0,) * 17, {}), ((), {"x" * 257: 0})]:
            assert key(*args, **kwargs) == key.build(*args, **kwargs)
            with pytest.raises(Exception):  # noqa: B017  # any will do
                key.memo(*args, **kwargs)

    def test_equal_arguments_of_other_types_do_not_meet_in_it(self) -> None:
        """Whatever was asked first, a call's key is the one that is built in full."""
        for make in (make_key_function(anything), make_key_function(anything, "{value}")):
            for _ in range(2):
                assert [make(value) for value in DISTINCT] == [make.build(value) for value in DISTINCT]
                assert [make(value=value) for value in reversed(DISTINCT)] == [
                    make.build(value=value) for value in reversed(DISTINCT)
                ]

    def test_a_subclass_does_not_meet_its_base_in_it(self) -> None:
        """A str subclass is refused though its equal str is known."""
        key = make_key_function(anything)
        key("a")
        with pytest.raises(UncacheableArgument):
            key(type("Str", (str,), {})("a"))

    def test_a_changed_argument_has_another_key(self) -> None:
        """Objects that change are looked at anew each time."""
        key, listed = make_key_function(anything, "{value.id}"), make_key_function(anything)
        someone, values = User(1), [1]
        assert (key(someone), listed(values)) == ("1", f"{HERE}.anything(value=[1])")
        someone.id = 2
        values.append(2)
        assert (key(someone), listed(values)) == ("2", f"{HERE}.anything(value=[1, 2])")

    def test_a_changed_default_has_another_key(self) -> None:
        """A default that can change is looked at anew each time; one that cannot is not."""
        default = [1]

        def changing(value: Any = default) -> None: ...

        def fixed(a: Any = (1, 1.5, Colour.RED), b: Any = None) -> None: ...

        key = make_key_function(changing, "{value}")
        assert key() == "[1]"
        default.append(2)
        assert key() == "[1, 2]"
        still = make_key_function(fixed, "{a}:{b}")
        assert still.memo() is still()

    def test_a_formatted_object_is_formatted_each_time(self) -> None:
        """The memo does not stand between an object and its str()."""
        key = make_key_function(anything, "{value!s}")
        counted = Counted()
        assert [key(counted), key(counted)] == ["1", "2"]

    def test_an_argument_that_cannot_be_hashed(self) -> None:
        """Hashing is the memo's wish; if it fails, in whatever way, the key is built."""
        assert make_key_function(anything, "{value.id}")(Unhashable()) == "7"
        assert make_key_function(user, ignore=["full"])(7, full=Unhashable()) == f"{HERE}.user(id=7)"

    def test_leading_parameters_that_do_not_count_do_not_keep_calls_out(self) -> None:
        """A method's calls are memoised for all objects at once."""
        key = make_key_function(Repository.load, "user:{id}")
        assert key.memo(Repository(), 7) is key.memo(object(), 7)
        assert key(self=Repository(), id=7) == "user:7"

    @pytest.mark.parametrize(("args", "kwargs"), [((), {"id": 7}), ((), {}), ((1,), {}), ((1, 7), {"self": 1})])
    def test_a_call_that_python_refuses_is_refused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The memo knows the key, and the call has no object, or two: still it is no call."""
        key = make_key_function(Repository.load, "user:{id}")
        key(Repository(), 7)
        key(Repository(), id=7)
        with pytest.raises(TypeError, match=r"Repository.load\(\): "):
            key(*args, **kwargs)

    def test_named_arguments_cannot_hide_one_given_twice(self) -> None:
        """With ``**kwargs`` a leading argument given by position and by name is refused too."""

        def taking(session: Any, **named: Any) -> None: ...

        key = make_key_function(taking, "{named}")
        assert key(object(), a=1) == "{'a': 1}"
        with pytest.raises(TypeError, match="multiple values"):
            key(object(), session=1)

    def test_an_error_carries_no_trace_of_it(self) -> None:
        """What the user sees is what is wrong with the call alone."""
        with pytest.raises(UncacheableArgument) as caught:
            make_key_function(anything)(object())
        assert caught.value.__context__ is None
