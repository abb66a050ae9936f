"""Keys by a template: two calls share a key only if the template says so, and a template that cannot is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import ConfigError, UncacheableArgument
from nearcache.functions import canonical, make_key_function, make_tags_function
from nearcache.functions.text import plain
from tests.support.arguments import DISTINCT, HERE, Colour, User, anything, page, user
from tests.support.cases import each


class Secret:
    """Shows nothing of what it holds."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__


@dataclass
class Half:
    """Shows one of its fields."""

    one: int
    other: int = field(repr=False)


TEMPLATES = ["q:{value}", "{value}", "a:b:{value}", "q:{value}:q", "q:{value:>9}", "q:{value!r}"]


def two(a: Any, b: Any) -> None:
    """Take two arguments."""


class TestForms:
    """How a key is written, and that what an argument says never looks like what a template says."""

    @each(
        "template, value, key",
        [
            ("user:{value}", 7, "user:7"),
            ("user:{value}", "ada@example.org", "user:ada@example.org"),
            ("user:{value}", "O'Brien (née Ó)", "user:O'Brien (née Ó)"),
            ("user:{value}", UUID(int=1), "user:00000000-0000-0000-0000-000000000001"),
            ("user:{value}", date(2024, 1, 2), "user:2024-01-02"),
            ("page/{value}", "a:b", "page/a:b"),
            ("user:{value}", 1.5, "user:1.5"),
            ("user:{value}", True, "user:True"),
            ("user:{value}", None, "user:None"),
            ("user:{value}", [1, "a"], "user:[1, 'a']"),
            ("of:{value}", Colour.RED, f"of:{HERE}.Colour['RED']"),
            ("of:{value.name}", Colour.RED, "of:RED"),
            ("of:{value.id}", User(7), "of:7"),
            ("of:{value[a][0]}", {"a": [7]}, "of:7"),
            ("of:{value:05d}", 7, "of:00007"),
            ("of:{value:%Y-%m}", date(2024, 1, 2), "of:2024-01"),
            ("of:{value!r}", "ada", "of:'ada'"),
            ("of:{value!s}", Decimal("1.50"), "of:Decimal('1.50')"),
            ("shop:user:{value}", 7, "shop:user:{7}"),
            ("user:{value}:email", "ada", "user:{ada}:email"),
            ("user-{value}", "ada", "user-{ada}"),
            ("{value}", "ada", "{ada}"),
            ("{{{value}}}", 7, "{{{7}}}"),
            ("größe:{value}", "x", "größe:x"),
        ],
    )
    def test_shows_a_value_as_one_would_write_it(self, template: str, value: Any, key: str) -> None:
        """A word and fields give a key that one writes by hand; in any other the braces of the fields stay."""
        assert make_key_function(anything, template)(value) == key

    @each(
        "template, key",
        [
            ("config", "config"),
            ("shop:config", "shop:config{}"),
            ("", "{}"),
            ("a{{b", "a{{b{}"),
            ("app.f()", "app.f((){}"),
            ("2@config", "2@@config{}"),
        ],
    )
    def test_a_template_without_fields(self, template: str, key: str) -> None:
        """A word is a key as it stands; all else must not look like a field's text."""

        def config() -> None: ...

        assert make_key_function(config, template)() == key
        assert make_key_function(anything, template, ignore=["value"])(object()) == key

    def test_what_a_field_says_is_never_what_a_template_says(self) -> None:
        """No two of these templates share a key, whatever they are called with, and no two calls of one of them."""
        texts = ["ada", "email", "ada:email", "", "user", "7", "a:b", ":", "{", "}", "{}", "%", "%3A", "a/b", "x{ada}"]
        templates = [
            "{a}",
            "{a}:{b}",
            "user:{a}",
            "user:{a}:{b}",
            "user:{a}:email",
            "user:ada:{a}",
            "user/{a}",
            "user-{a}",
        ]
        templates += ["user:{a}-{b}", "user:{{{a}}}", "user::{a}", "user:{a}:", ":{a}", "user:%3A{a}", "{a}:user"]
        templates += ["@{a}", "user", "ada", "user:ada", "user:ada:email", "user:{{ada}}", "", "{{}}", "{{ada}}:email"]
        seen: dict[str, tuple[str, str, str]] = {}
        for template in templates:
            ignore = [name for name in "ab" if f"{{{name}}}" not in template.replace("{{", "")]
            key = make_key_function(two, template, ignore=ignore)
            for a in texts if "a" not in ignore else [""]:
                for b in texts if "b" not in ignore else [""]:
                    assert seen.setdefault(key(a, b), (template, a, b)) == (template, a, b)

    def test_a_template_is_no_other_function_s_name(self) -> None:
        """A template that reads like the key of a function without one, or of a version, has keys of its own."""
        name = f"{HERE}.anything"
        ours = {
            make_key_function(anything, template, version=version)({7})
            for template in (f"{name}(value={{value}})", f"2@{name}(value={{value}})", "2@a:{value}", "a:{value}")
            for version in (None, "2", "3")
        }
        assert len(ours) == 12
        assert ours.isdisjoint(make_key_function(anything, version=version)({7}) for version in (None, "2"))

    def test_a_version_is_part_of_the_key(self) -> None:
        """It stands in front, with a template and without; what is none is refused."""
        assert make_key_function(anything, "user:{value}", version="2")(7) == "2@user:7"
        assert make_key_function(anything, version="1.0")(7) == f"1.0@{HERE}.anything(value=7)"
        for version in ("", "a@b", "a{b", 2, "x" * 65):
            with pytest.raises(ConfigError, match=r"version=.*must be 1 to 64 of .* as in version='2'"):
                make_key_function(anything, version=version)  # type: ignore[arg-type]

    @each("template", ["x:{value}", "{value}", "a:b:{value}", "x:{value:>5}", "x:{value!r}", "x:{value!s}"])
    def test_a_string_cannot_pass_for_another_value(self, template: str) -> None:
        """Who is called "None" does not meet what is cached for None, nor "7" what is for 7: such a text is quoted."""
        key = make_key_function(anything, template)
        texts = [key(value) for value in DISTINCT]
        if ">5" not in template:  # a format gives 1 and True one text
            assert len(set(texts)) == len(texts)
        shown = [str(value) for value in DISTINCT if value != 10**5000]  # which str() refuses
        strings = {key(value) for value in [*shown, *map(plain, DISTINCT), *map(canonical, DISTINCT)]}
        assert strings.isdisjoint(key(value) for value in DISTINCT if type(value) is not str)

    @given(st.text(), st.text(), st.sampled_from(["{value}", "x:{value}", "a:b:{value:>30}", "x:{value!r}"]))
    def test_strings_stay_apart(self, one: str, other: str, template: str) -> None:
        """Two strings have one key only if they are equal; a format specification pads no two to the same."""
        key = make_key_function(anything, template)
        assert (key(one) == key(other)) == (one == other)

    def test_the_separator_is_escaped(self) -> None:
        """("x:y", "z") and ("x", "y:z") are two pages; what cannot deceive stays readable."""
        key = make_key_function(page, "page:{tenant}:{path}")
        assert key("acme", "/a-b") == "page:acme:/a-b"
        assert key("x:y", "z") == "page:x%3Ay:z"
        assert key("x", "y:z") == "page:x:y%3Az"
        assert key("x%3Ay", "{z") == "page:x%253Ay:%7Bz"

    @given(
        st.tuples(st.text("a:-%32DA{}"), st.text("a:-%32DA{}")),
        st.tuples(st.text("a:-%32DA{}"), st.text("a:-%32DA{}")),
        st.sampled_from(["a:{tenant}:{path}", "{tenant}-{path}", "{tenant}x: {path}!", "<{tenant}>A{path!s}"]),
    )
    def test_two_fields_never_run_together(self, one: tuple[str, str], other: tuple[str, str], template: str) -> None:
        """Two pairs of strings have one key only if they are equal."""
        key = make_key_function(page, template)
        assert (key(*one) == key(*other)) == (one == other)

    @given(st.text("a:\ud800{}%é", min_size=1), st.integers(0, 3000), st.sampled_from(TEMPLATES), st.booleans())
    def test_no_input_makes_a_key_fail(self, text: str, times: int, template: str, surrogate: bool) -> None:
        """However long or odd a text is, there is a key, of few bytes and in UTF-8, and another for another text."""
        value = (text * times)[:3000] + ("\udcff" if surrogate else "")
        key = make_key_function(anything, template, max_key_bytes=200)
        made = key(value)
        assert 0 < len(made.encode()) <= 200
        assert made != key(value + "x")
        assert made == key(value)

    @pytest.mark.parametrize("template", TEMPLATES)
    def test_a_digest_is_no_text(self, template: str) -> None:
        """Who passes what a long text's key ends in has another key."""
        key = make_key_function(anything, template, max_key_bytes=100)
        made = key("x" * 200)
        for part in range(1, len(made)):
            assert key(made[part:]) != made


class TestTemplate:
    """What may stand in a template."""

    def test_every_parameter_counts(self) -> None:
        """One that the template leaves out is refused, unless ignore says so; self and cls may be left out."""
        message = r"'user:\{id\}' leaves out 'full', .*'user:\{id\}:\{full\}'.*ignore=\('full',\)"
        with pytest.raises(TypeError, match=message):
            make_key_function(user, "user:{id}")
        assert make_key_function(user, "user:{id}", ignore=["full"])(7, full=object()) == "user:7"

        def method(self: Any, id: int) -> None: ...  # noqa: A002  # as in the documentation

        def of_class(cls: Any, *, self: int = 0) -> None: ...

        assert make_key_function(method, "user:{id}")(object(), 7) == "user:7"
        with pytest.raises(TypeError, match="leaves out 'self'"):
            make_key_function(of_class, "user")

    @each("template", ["x:{value!s}", "x:{value!r}", "x:{value:>9}", "x:{value}"])
    @each("value", [object(), [object()], Secret("a"), Half(1, 2)])
    def test_a_text_that_is_not_unique_is_no_key(self, template: str, value: object) -> None:
        """str() and repr() of a type that is unknown here may hide what makes the difference."""
        with pytest.raises(UncacheableArgument, match=r"what tells two of them apart, as in \{value.id\}") as caught:
            make_key_function(anything, template)(value)
        assert "!s" not in str(caught.value).partition("cannot become")[2]

    def test_a_format_is_for_numbers_and_times(self) -> None:
        """What it does not take is written in full."""
        key = make_key_function(anything, "x:{value:05d}")
        assert (key(7), key("7"), key("ada"), key(1.5), key(True)) == ("x:00007", "x:'7'", "x:'ada'", "x:1.5", "x:True")
        assert key(10**5000) == f"x:{hex(10**5000)}" or key(10**5000).startswith("x:%h")
        assert make_key_function(anything, "x:{value:%%}")(date(2024, 1, 2)) == "x:%25"
        amount = make_key_function(anything, "x:{value:.2f}")
        assert amount(Decimal("1.5")) == amount(1.5) == "x:1.50"
        for huge in (Decimal("1e999999999"), Decimal("-1e-999999999")):
            assert amount(huge) == f"x:Decimal('{huge}')"

    @pytest.mark.parametrize(
        ("fn", "template", "message"),
        [
            (user, "user", "leaves out 'id'.* 'user:{id}'"),
            (user, "user:{uid}", "{uid} in the template 'user:{uid}' is not a parameter; parameters are: id, full"),
            (user, "user:{}", "{} in the template 'user:{}' is positional; parameters are: id, full"),
            (user, "user:{0}", "{0} in the template 'user:{0}' is positional"),
            (user, "user:{id:{full}}", "{id:{full}} in the template .*no other field"),
            (user, "user:{id", "'user:{id' cannot be read"),
            (user, "user:{id!x}", "'user:{id!x}' cannot be read"),
            (page, "{tenant}{path}", "{tenant} would run into"),
            (page, "doc:{tenant!s}{path!s}", "{tenant!s} would run into"),
            (page, "{tenant:x}{path:x}", "{tenant:x} would run into"),
        ],
    )
    def test_a_template_that_cannot_work_is_refused(self, fn: Callable[..., Any], template: str, message: str) -> None:
        """A mistake shows when the function is decorated, with the function, the template and what is wrong."""
        pattern = message.replace("{", r"\{").replace("}", r"\}")
        with pytest.raises(TypeError, match=pattern) as caught:
            make_key_function(fn, template)
        assert f"{HERE}.{fn.__name__}: " in str(caught.value)

    @each("default", [object(), print, Path(), [object()]])
    def test_a_default_that_is_no_argument_is_told_at_once(self, default: object) -> None:
        """With a template and without, and not if ignore leaves it out, or only a part of it is shown."""

        def search(q: str, limit: Any = default) -> None: ...

        for template in (None, "s:{q}:{limit}"):
            with pytest.raises(UncacheableArgument, match=r"the default of 'limit'|\{limit\} of the template"):
                make_key_function(search, template)
        with pytest.raises(UncacheableArgument, match=r"\{limit\} of the template"):
            make_tags_function(search, ["s:{limit}"])
        assert make_key_function(search, "s:{q}", ignore=["limit"])("a") == "s:a"
        assert make_key_function(search, "s:{q}:{limit.id}")("a", User(7)) == "s:a:7"

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
            ("{value}", User(7), "holds a .*User.*{value.id}"),
            ("{value.id}", User(User(7)), "holds a .*User"),
        ],
    )
    def test_a_template_that_cannot_be_filled_says_why(self, template: str, value: Any, reason: str) -> None:
        """The error names the function, the field, the template and the reason."""
        with pytest.raises(UncacheableArgument, match=reason) as caught:
            make_key_function(anything, template)(value)
        assert f"{HERE}.anything: {template} of the template {template!r}" in str(caught.value)

    def test_tags(self) -> None:
        """A tag is what an f-string makes of it, for it is named by hand; one without fields is a tag as it stands."""
        tags = make_tags_function(user, ["users", "user:{id}", "{{}}", "of:{full}:users"])
        assert callable(tags)
        assert tags(id=7) == ("users", "user:7", "{}", "of:False:users")
        assert tags(id="7", full="a:b{") == ("users", "user:7", "{}", "of:a:b{:users")
        assert make_tags_function(user, ("users", "{{}}")) == ("users", "{}")
        with pytest.raises(TypeError, match="uid"):
            make_tags_function(user, ["user:{uid}"])

    @each("value", ["x" * 2000, "\u4e16" * 400, "\ud800", ""])
    def test_no_input_makes_a_tag_fail(self, value: str) -> None:
        """A tag that would be none is digested."""
        tags = make_tags_function(anything, ["{value}", "user:{value}"], max_key_bytes=200)
        assert callable(tags)
        made = tags(value)
        assert all(0 < len(tag.encode()) <= 200 for tag in made)
        assert made == tags(value) != tags(value + "x")

    @pytest.mark.parametrize("given", ["users", [7], [None], 5, None])
    def test_names_come_in_a_sequence(self, given: Any) -> None:
        """A lone string is not taken for its letters."""
        with pytest.raises(ConfigError, match=r"tags=.*must be a sequence of strings"):
            make_tags_function(user, given)
        with pytest.raises(ConfigError, match=r"ignore=.*must be a sequence of strings"):
            make_key_function(user, ignore=given)
