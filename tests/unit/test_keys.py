"""Keys: the same call has the same key, in every process; another call has another key, down to the types."""

from __future__ import annotations

import ast
import enum
import math
import os
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import ConfigError, UncacheableArgument
from nearcache.functions import canonical, make_key_function
from nearcache.functions.text import DEEPEST, NoText, _spell_deep
from tests.support.arguments import DISTINCT, HERE, WRAPS, Access, Colour, Point, User, Zone, anything, many, user
from tests.support.cases import each


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

    @given(st.data())
    def test_the_text_of_what_is_nested_deep_is_made_otherwise_but_the_same(self, data: st.DataObject) -> None:
        """From the inside out, since Python calls no functions so deep."""
        value = data.draw(VALUES)
        if type(value) in (list, tuple, dict, set, frozenset):
            assert _spell_deep(value) == canonical(value)

    @pytest.mark.parametrize("depth", [400, 1500, 5000])
    @pytest.mark.parametrize(
        ("wrap", "before", "behind"),
        [
            (lambda value: [value], "[", "]"),
            (lambda value: (value,), "(", ",)"),
            (lambda value: {"k": value}, "{'k': ", "}"),
            (lambda value: frozenset([value]), "frozenset({", "})"),
        ],
        ids=["list", "tuple", "dict", "frozenset"],
    )
    def test_no_depth_is_too_deep(self, wrap: Callable[[Any], Any], before: str, behind: str, depth: int) -> None:
        """What users send may be nested deeper than Python calls functions."""
        value: Any = 7
        for _ in range(depth):
            value = wrap(value)
        assert canonical(value) == before * depth + "7" + behind * depth

    def test_what_contains_itself_has_no_text(self) -> None:
        """Nor has what is nested so deep that its text would take seconds."""
        ring: list[Any] = []
        ring.append((ring, {"a": ring}))
        with pytest.raises(NoText, match="contains itself"):
            canonical(ring)
        deep: Any = 7
        for _ in range(DEEPEST + 2):
            deep = [deep]
        with pytest.raises(NoText, match="too deep"):
            canonical(deep)
        shared: list[Any] = [[1], [2]]
        assert _spell_deep([shared, shared, [shared]]) == canonical([shared, shared, [shared]])

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

        key = make_key_function(taken, "x:{a}:{b}:{c}:{d}")
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
                expected = ":".join(["x", *map(str, taken(*args, **kwargs).values())])
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
            "textwrap.dedent%h5a6ef29f8c3df7bc2c595d652720103eee9f75ba25b7c0f6a03985dba8d2772f\n"
        )


def make_local() -> enum.Enum:
    """A member of an Enum that nobody finds by its name: there may be more of this name."""
    return enum.Enum("Local", "RED").RED  # type: ignore[attr-defined,no-any-return]  # found at run time


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
            Path("a"),
            anything,
            make_local(),
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
        assert one.startswith(f"{HERE}.anything%h")
        assert one != other
        assert len(one) == len(f"{HERE}.anything%h") + 64

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
        assert make_key_function(anything)(name).encode().startswith(f"{HERE}.anything%h".encode())

    def test_no_room_for_a_digest_is_refused(self) -> None:
        """A bound under which no key could be told from another is refused at once."""
        for template in (None, "a:{value}"):
            with pytest.raises(ConfigError, match="max_key_bytes=31: keys of functions need at least 32"):
                make_key_function(anything, template, max_key_bytes=31)
            keys = {make_key_function(anything, template, max_key_bytes=32)("x" * size) for size in range(100, 110)}
            assert {len(key) for key in keys} <= {31, 32}
            assert len(keys) == 10
