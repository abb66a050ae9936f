"""What a call may say: a policy over the settings, checked names, and how long a value lives."""

from __future__ import annotations

import random
import typing
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache import ConfigError, InvalidKey, NearCache, Settings
from nearcache.policy import (
    TAGS_MAX,
    CachedOptions,
    LoadOptions,
    Policy,
    WriteOptions,
    check_key,
    check_tags,
)
from nearcache.settings import SETTINGS
from tests.support.cases import each

POLICY = Policy.of(Settings(ttl=100, jitter=0))


def over(**options: Any) -> Policy:
    """A policy with a call's options."""
    return POLICY.over(options)  # type: ignore[arg-type]


def test_a_policy_begins_as_the_settings_say() -> None:
    """Each field of the same name has the setting's value."""
    settings = Settings(ttl=9, l1_ttl=8, negative_ttl=7, lease=6, wait_timeout=5, jitter=0.4, max_key_bytes=30)
    policy = Policy.of(settings)
    for name in {field.name for field in fields(Policy) if field.init} - {"tags", "condition"}:
        assert getattr(policy, name) == getattr(settings, name)
    assert policy.tags == ()
    assert policy.condition is None


def test_without_options_nothing_is_made() -> None:
    """The same object, as most calls say nothing."""
    assert POLICY.over({}) is POLICY


def test_options_that_are_settings_have_their_types() -> None:
    """An option of a call that is a setting too takes what the setting takes, or None."""
    known = {**typing.get_type_hints(WriteOptions), **typing.get_type_hints(LoadOptions)}
    assert set(known) - set(SETTINGS) == {"tags", "condition"}
    stored = {name for name, setting in SETTINGS.items() if setting.calls == "store"}
    assert set(typing.get_type_hints(WriteOptions)) == stored | {"tags", "condition"}
    assert set(known) == {name for name, setting in SETTINGS.items() if setting.calls} | {"tags", "condition"}
    assert set(typing.get_type_hints(CachedOptions)) - set(known) == {"ignore", "version", "grouped"}
    assert not CachedOptions.__required_keys__
    factors = {"early_refresh": 0.5, "xfetch_beta": 2.0}
    for name, factor in factors.items():
        assert getattr(over(**{name: factor}), name) == factor
    for name in (set(known) & set(SETTINGS)) - set(factors):
        if name == "loader_soft_timeout":
            continue  # alone it makes no sense
        if name == "copy":
            assert over(copy="none").copy == "none"
            continue
        assert getattr(over(**{name: 3}), name) == 3.0
        assert getattr(over(**{name: timedelta(seconds=3)}), name) == 3.0
        assert getattr(over(**{name: None}), name) == getattr(POLICY, name)


@each("name", ["ttl", "l1_ttl", "negative_ttl", "lease", "wait_timeout"])
@each("value", [-1, float("inf"), float("nan"), True, "5"])
def test_durations_are_checked(name: str, value: object) -> None:
    """As those of the settings."""
    with pytest.raises(ConfigError, match=f"{name}=.*: must be "):
        over(**{name: value})


def test_an_option_that_is_not_known_is_told() -> None:
    """With its neighbour or with the list."""
    with pytest.raises(ConfigError, match="unknown option 'tag'; did you mean 'tags'"):
        over(tag=["a"])
    with pytest.raises(ConfigError, match=r"known are: condition, copy, early_refresh, .*, wait_timeout, xfetch_beta"):
        over(zzz=1)


def test_a_soft_timeout_needs_something_stale_to_serve() -> None:
    """Alone it makes no sense."""
    with pytest.raises(ConfigError, match=r"loader_soft_timeout=0.1: .* give stale_if_error too"):
        over(loader_soft_timeout=0.1)
    assert over(loader_soft_timeout=0.1, stale_if_error=60).loader_soft_timeout == 0.1


def test_patience_outlives_a_lease() -> None:
    """By default two of them, so that one of those who wait can take over from one who died; or as it is given."""
    assert Policy.of(Settings(lease=3)).patience == 6
    assert over(lease=5).patience == 10
    assert over(lease=5, wait_timeout=1).patience == 1


def test_a_call_says_how_its_value_is_refreshed_early() -> None:
    """One way, in place of the settings'."""
    assert Policy.of(Settings(xfetch_beta=1)).over({"early_refresh": 0.5}).xfetch_beta is None
    with pytest.raises(ConfigError, match="early_refresh and xfetch_beta"):
        over(early_refresh=0.5, xfetch_beta=1)


def test_when_a_value_may_be_refreshed() -> None:
    """After a part of its life, or ten times beta and load time before its end."""
    assert POLICY.refresh_at(100.0, 160.0, 2.0) == 160.0
    assert over(early_refresh=0.75).refresh_at(100.0, 160.0, 2.0) == 145.0
    assert over(xfetch_beta=2).refresh_at(100.0, 160.0, 2.0) == 120.0


def test_redis_keeps_a_value_for_the_longest_stale_window() -> None:
    """In whole milliseconds."""
    assert POLICY.stale_ms == 0
    assert over(stale_while_revalidate=1.5, stale_if_error=60).stale_ms == 60_000


def test_ttl_is_in_whole_milliseconds_and_never_none() -> None:
    """The shortest life is one millisecond."""
    assert over(ttl=1.5).ttl_ms("x") == 1500
    assert over(ttl=1e-9).ttl_ms("x") == 1
    assert over(ttl=len).ttl_ms("abc") == 3000
    assert over(ttl=lambda _: timedelta(minutes=1)).ttl_ms("x") == 60_000


@given(st.floats(0, 1, exclude_max=True), st.floats(0.001, 1e8), st.integers())
def test_jitter_takes_off_at_most_its_fraction(jitter: float, ttl: float, seed: int) -> None:
    """Never more, and never adds."""
    random.seed(seed)
    milliseconds = Policy.of(Settings(ttl=ttl, jitter=jitter)).ttl_ms("x")
    assert milliseconds is not None
    assert ttl * 1000 * (1 - jitter) - 1.001 <= milliseconds <= max(1, ttl * 1000)


def test_none_has_a_ttl_of_its_own() -> None:
    """negative_ttl; 0 turns it down, None means as any other value. Other false values are values."""
    assert over(negative_ttl=2).ttl_ms(None) == 2000
    assert over(negative_ttl=0).ttl_ms(None) is None
    assert POLICY.ttl_ms(None) == 100_000
    values: list[object] = [0, "", False, [], 0.0]
    for value in values:
        assert over(negative_ttl=0).ttl_ms(value) == 100_000


def test_a_condition_turns_down_what_it_does_not_like() -> None:
    """Before the ttl is asked for."""
    asked: list[object] = []

    def ttl(value: object) -> float:
        asked.append(value)
        return 5.0

    policy = over(condition=bool, ttl=ttl)
    assert policy.ttl_ms(0) is None
    assert asked == []
    assert policy.ttl_ms(1) == 5000


@pytest.mark.parametrize("answer", [0, -1, None, "5", float("nan")])
def test_a_function_s_ttl_is_checked(answer: object) -> None:
    """When the value comes."""
    with pytest.raises(ConfigError, match="ttl="):
        over(ttl=lambda _: answer).ttl_ms("x")


# --------------------------------------------------------------------------------------------- keys and tags


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_a_key_up_to_its_bytes(key: str) -> None:
    """The bound is on UTF-8 bytes; the key comes back as it is."""
    size = len(key.encode())
    assert check_key(key, size) is key
    if size > 1:
        with pytest.raises(InvalidKey, match=f"has {size} bytes: at most max_key_bytes={size - 1}"):
            check_key(key, size - 1)


@pytest.mark.parametrize("key", ["\ud800", "a\udfffb", "\ud83e\udd9c"])
def test_a_lone_surrogate_is_no_key(key: str) -> None:
    """UTF-8 can't carry it."""
    with pytest.raises(InvalidKey, match="lone surrogate") as caught:
        check_key(key, 100)
    str(caught.value).encode()  # the message can be printed


@pytest.mark.parametrize("key", [None, 1, 1.0, True, b"a", object(), str])
def test_what_is_no_string_is_no_key(key: object) -> None:
    """The message has the value and its type."""
    with pytest.raises(InvalidKey) as caught:
        check_key(key, 100)
    assert repr(key) in str(caught.value)
    assert f"is of type {type(key).__name__}: must be a string" in str(caught.value)


@pytest.mark.parametrize("key", [("a",), ["a"], {"a"}, frozenset("a")])
def test_several_keys_are_no_key(key: object) -> None:
    """The way out is another one than for a number."""
    with pytest.raises(InvalidKey) as caught:
        check_key(key, 100)
    assert f"key {key!r}: several are given one by one, as in delete('a', 'b')" in str(caught.value)
    assert "get_many(['a', 'b']) reads several" in str(caught.value)
    with pytest.raises(InvalidKey, match=r"one by one, as in invalidate_tags\('a', 'b'\)"):
        check_tags([key], 100)


def test_a_string_of_another_class_becomes_a_plain_one() -> None:
    """Its own equality and hash would make it a key that no message ever finds."""

    class Shouted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Shouted) and super().__eq__(other)

        __hash__ = str.__hash__

        def __str__(self) -> str:
            return self.upper()

    key = check_key(Shouted("a"), 10)
    assert type(key) is str
    assert key == "a"


def test_a_long_key_is_shown_in_part() -> None:
    """A message is no place for a thousand characters."""
    with pytest.raises(InvalidKey) as caught:
        check_key("x" * 100_000, 1024)
    assert len(str(caught.value)) < 200


def test_tags_are_sorted_and_each_once() -> None:
    """From a list, a tuple or a set."""
    for tags in (["b", "a", "b"], ("b", "a"), {"b", "a"}, frozenset("ba")):
        assert check_tags(tags, 10) == ("a", "b")
    assert check_tags([], 10) == ()


@pytest.mark.parametrize("tags", ["users", b"users", 7, None, {"a": 1}, iter(["a"])], ids=range(6))
def test_what_is_no_sequence_is_no_tags(tags: object) -> None:
    """Above all a lone string, whose letters would be tags."""
    with pytest.raises((ConfigError, InvalidKey)):
        check_tags(tags, 10)


def test_there_is_a_most_of_tags() -> None:
    """One byte counts them in the record."""
    assert len(check_tags([f"t{number}" for number in range(TAGS_MAX)], 10)) == 255
    with pytest.raises(ConfigError, match="256 tags of one value: at most 255 are allowed"):
        check_tags([f"t{number}" for number in range(TAGS_MAX + 1)], 10)


@each("name", sorted(LoadOptions.__annotations__))
@each("method", ["get_or_set", "cached"])
def test_docstrings_name_every_option(method: str, name: str) -> None:
    """Whoever reads the help of a call learns of all that it takes."""
    assert f"``{name}``" in (getattr(NearCache, method).__doc__ or "")


@pytest.mark.parametrize("ttl", [100, lambda _: 100], ids=["a number", "a function"])
def test_jitter_takes_off_each_time_another_part(ttl: object) -> None:
    """So that what was stored at one time does not end at one time."""
    policy = replace(Policy.of(Settings(jitter=0.5)), ttl=ttl)  # type: ignore[arg-type]  # it is either
    given = [policy.ttl_ms("x") or 0 for _ in range(200)]
    assert len(set(given)) > 100
    assert min(given) < 60_000
    assert max(given) > 90_000
