"""Keys by a template: two calls share a key only if the template says so, and a template that cannot is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import UncacheableArgument
from nearcache.functions import canonical, make_key_function, make_tags_function
from tests.support.arguments import DISTINCT, HERE, Colour, User, anything, page, user
from tests.support.cases import each


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
