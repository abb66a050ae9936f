"""Settings: checked once, frozen, the same from keywords and from the environment."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nearcache import ConfigError, Settings
from nearcache.checks import BUCKETS_MAX, FOREVER
from nearcache.clashes import CLASHES
from nearcache.local.snapshot import STRIPES
from nearcache.settings import SETTINGS, SettingsOptions
from tests.support.cases import each
from tests.support.settings_page import page

SECONDS = [
    "ttl",
    "l1_ttl",
    "negative_ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "stale_backoff",
    "loader_soft_timeout",
    "loader_hard_timeout",
    "lease",
    "wait_timeout",
    "outage_ttl",
    "max_staleness",
    "redis_timeout",
    "redis_connect_timeout",
    "breaker_reset",
    "reconnect_max",
]


OPTIONAL = [
    "l1_ttl",
    "negative_ttl",
    "wait_timeout",
    "l1_max_bytes",
    "early_refresh",
    "xfetch_beta",
    "loader_soft_timeout",
    "loader_hard_timeout",
    "outage_ttl",
    "compress",
    "encryption_keys",
    "buckets",
]


ZERO = ["negative_ttl", "stale_while_revalidate", "stale_if_error"]


WHOLE = [
    "l1_max_entries",
    "l1_max_bytes",
    "max_connections",
    "max_concurrent_loads",
    "breaker_failures",
    "journal_max",
    "max_key_bytes",
    "max_value_bytes",
    "compress_min_bytes",
]


WORDS = {
    "eviction": ["lru", "s3fifo"],
    "on_unavailable": ["degrade", "raise"],
    "copy": ["auto", "none", "serialized"],
    "on_reconnect": ["prove", "flush"],
}


OTHER = [
    "namespace",
    "announce",
    "l1_share",
    "audit_fraction",
    "jitter",
    "retries",
    "codec",
    "early_refresh",
    "xfetch_beta",
    "compress",
    "encryption_keys",
    "buckets",
]


NEEDED: dict[str, dict[str, Any]] = {
    "stale_backoff": {"stale_while_revalidate": 1},
    "loader_soft_timeout": {"stale_if_error": 1},
    "outage_ttl": {"max_staleness": FOREVER},
    "redis_timeout": {"max_staleness": FOREVER},
    "l1_ttl": {"ttl": FOREVER},
    "compress_min_bytes": {"compress": "zstd"},
}
"""Without which a setting makes no sense."""


def given(name: str, value: object) -> Settings:
    """Settings with one of them given, and what it needs."""
    options: Any = {name: value, **NEEDED.get(name, {})}
    return Settings(**options)


def test_the_lists_here_are_complete() -> None:
    """Every setting has a field, a typed keyword of its name, one line of help, and its place in the tests below."""
    names = set(SETTINGS)
    assert names == {field.name for field in dataclasses.fields(Settings)}
    assert names == typing.get_type_hints(SettingsOptions).keys()
    assert names == {*SECONDS, *WHOLE, *WORDS, *OTHER}
    for name, setting in SETTINGS.items():
        assert re.fullmatch(r"[^\n]{10,120}", setting.help), name
        assert f"{name}: {setting.help}" in (Settings.__doc__ or "")


def test_typed_keywords_are_all_optional() -> None:
    """SettingsOptions asks for none of them."""
    assert not SettingsOptions.__required_keys__


def test_each_default_is_a_value_that_may_be_given() -> None:
    """Giving every default at once changes nothing, and clashes with nothing."""
    options: Any = {name: setting.default for name, setting in SETTINGS.items()}
    assert Settings(**options) == Settings()


@each(
    "name, value",
    [
        ("namespace", "nearcache"),
        ("ttl", 300.0),
        ("l1_ttl", None),
        ("l1_max_entries", 10_000),
        ("l1_max_bytes", None),
        ("eviction", "lru"),
        ("l1_share", 1.0),
        ("audit_fraction", 0.0),
        ("jitter", 0.05),
        ("negative_ttl", None),
        ("lease", 10.0),
        ("wait_timeout", None),
        ("max_staleness", 2.0),
        ("redis_timeout", 0.25),
        ("redis_connect_timeout", 1.0),
        ("max_connections", 32),
        ("retries", 3),
        ("breaker_failures", 3),
        ("breaker_reset", 1.0),
        ("reconnect_max", 0.5),
        ("on_unavailable", "degrade"),
        ("copy", "auto"),
        ("compress", None),
        ("compress_min_bytes", 1024),
        ("encryption_keys", None),
        ("buckets", None),
        ("max_key_bytes", 1024),
        ("max_value_bytes", 8 * 1024 * 1024),
        ("announce", False),
        ("on_reconnect", "prove"),
    ],
)
def test_defaults_are_what_the_documentation_says(name: str, value: object) -> None:
    """A default is a promise too."""
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize("value", [0, -1, 3, 2048, 1.0, True, "16"])
def test_buckets_are_a_power_of_two(value: object) -> None:
    """A stripe of L1 lies in one bucket."""
    with pytest.raises(ConfigError, match=r"buckets=.*power of two from 1 to 1024"):
        given("buckets", value)
    assert STRIPES == BUCKETS_MAX
    assert [given("buckets", number).buckets for number in (1, 16, 1024)] == [1, 16, 1024]


def test_settings_are_frozen() -> None:
    """They can't be changed, nor can anything be added."""
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.ttl = 5.0  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        settings.other = 5  # type: ignore[attr-defined]


def test_settings_are_compared_by_value() -> None:
    """Equal when every setting is."""
    assert Settings(ttl=5) == Settings(ttl=timedelta(seconds=5))
    assert Settings(ttl=5) != Settings(ttl=6)


@each("name", SECONDS)
@each("value", [0.001, 7, 7.5, timedelta(milliseconds=1), timedelta(days=1), FOREVER])
def test_durations_become_float_seconds(name: str, value: float | timedelta) -> None:
    """Whole numbers, floats and timedeltas."""
    if name == "max_staleness" and value in (0.001, timedelta(milliseconds=1)):
        return  # too short for a promise
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    got = getattr(given(name, value), name)
    assert got == seconds
    assert type(got) is float


@each("name", SECONDS)
@each(
    "value",
    [
        -1,
        -0.001,
        math.inf,
        -math.inf,
        math.nan,
        True,
        False,
        "60",
        b"60",
        [60],
        timedelta(seconds=-1),
        timedelta.max,
        FOREVER + 1,
        10**400,
        -(10**400),
        1j,
    ],
)
def test_what_is_no_duration_is_refused(name: str, value: object) -> None:
    """The message has the name and the value as given, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        given(name, value)
    assert str(caught.value).startswith(f"{name}={value!r}: must be ")
    assert "seconds" in str(caught.value)


@each("name", sorted({*SECONDS} - {*ZERO}))
@each("value", [0, 0.0, -0.0, timedelta(0)])
def test_zero_is_no_duration(name: str, value: object) -> None:
    """Of any but those where it means: not at all."""
    with pytest.raises(ConfigError, match="must be more than 0 seconds and at most 10 years"):
        given(name, value)


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("value", [0, 0.0])
def test_zero_is_none_of_it(name: str, value: float) -> None:
    """None is not cached; nothing stale is served."""
    assert getattr(given(name, value), name) == 0.0


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, math.nan, math.inf, True, "half", timedelta(seconds=1)])
def test_early_refresh_is_a_fraction_of_the_ttl(value: object) -> None:
    """More than nothing of it, and less than all."""
    with pytest.raises(ConfigError, match=r"early_refresh=.*: must be a fraction of the ttl"):
        given("early_refresh", value)
    assert given("early_refresh", 0.8).early_refresh == 0.8


@pytest.mark.parametrize("value", [0, -1, 101, math.nan, math.inf, True, "1"])
def test_xfetch_beta_is_a_factor(value: object) -> None:
    """1.0 is the paper's."""
    with pytest.raises(ConfigError, match=r"xfetch_beta=.*: must be more than 0 and at most 100"):
        given("xfetch_beta", value)
    assert given("xfetch_beta", 1).xfetch_beta == 1.0


def test_outage_life_is_at_most_max_staleness() -> None:
    """A default of the one never makes a promise of the other longer."""
    assert Settings().outage_life == 2.0
    assert Settings(max_staleness=1).outage_life == 1.0
    assert Settings(outage_ttl=0.5).outage_life == 0.5
    assert Settings(outage_ttl=5, max_staleness=9).outage_life == 5.0


@each("name", sorted(SETTINGS))
def test_none_is_taken_where_it_has_a_meaning(name: str) -> None:
    """And refused elsewhere."""
    if name in OPTIONAL:
        assert getattr(given(name, None), name) is None
    else:
        with pytest.raises(ConfigError, match=f"^{name}=None: must "):
            given(name, None)


@each("name", [*WHOLE, "retries"])
@each("value", [-1, 1.5, True, "5", math.inf, 1 << 50])
def test_what_is_no_whole_number_is_refused(name: str, value: object) -> None:
    """The message has name, value and range."""
    with pytest.raises(ConfigError) as caught:
        given(name, value)
    assert f"{name}={value!r}: must be a whole number from " in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_no_bound(name: str) -> None:
    """0 entries, bytes or connections is refused; 1 is the least."""
    with pytest.raises(ConfigError, match=f"{name}=0"):
        given(name, 0)
    assert getattr(given(name, 1), name) == 1


def test_retries_may_be_zero() -> None:
    """None at all."""
    assert Settings(retries=0).retries == 0


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_words_are_those_of_the_list(name: str, words: list[str]) -> None:
    """Each of them is taken, any other is told with the list."""
    for word in words:
        assert getattr(given(name, word), name) == word
    wrongs: list[object] = ["", words[0].upper(), 1, [], None]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match=f"{name}=.*: must be one of {words[0]!r}"):
            given(name, wrong)


@pytest.mark.parametrize("value", [0, 0.0, 0.05, 0.999])
def test_jitter_is_a_fraction(value: float) -> None:
    """From 0 to less than 1."""
    assert Settings(jitter=value).jitter == value


@each("value", [1, 1.0, -0.1, 5, math.nan, math.inf, True, "0.1", None, 10**400])
def test_what_is_no_fraction_is_refused(value: object) -> None:
    """All of the ttl, or more, can't be taken off."""
    with pytest.raises(ConfigError, match=r"jitter=.*: must be a fraction, from 0 to less than 1"):
        given("jitter", value)


@pytest.mark.parametrize("value", ["a", "shop", "Shop_1.x-2", "x" * 64])
def test_namespaces(value: str) -> None:
    """Letters, digits and three signs."""
    assert Settings(namespace=value).namespace == value


@pytest.mark.parametrize("value", ["", "a b", "a:b", "{a}", "ä", "x" * 65, "a\n", 7, None, b"a", "a*"])
def test_other_namespaces_are_refused(value: object) -> None:
    """What would be a pattern or a hash tag in Redis is no name."""
    with pytest.raises(ConfigError, match=r"namespace=.*: must be 1 to 64 of the characters A-Z a-z 0-9 _"):
        given("namespace", value)


@pytest.mark.parametrize("value", [None, "json", object(), type("Half", (), {"encode": len})()])
def test_a_codec_has_two_functions(value: object) -> None:
    """What can't encode and decode is refused."""
    with pytest.raises(ConfigError, match=r"codec=.*: must have encode\(value\) -> bytes and decode"):
        given("codec", value)


def test_a_ttl_may_be_a_function() -> None:
    """It is kept as it is."""
    assert Settings(ttl=len).ttl is len


def test_an_unknown_setting_is_told_with_its_neighbour() -> None:
    """Or with the whole list."""
    with pytest.raises(ConfigError, match=r"^unknown setting 'namespce'; did you mean 'namespace'\?$"):
        given("namespce", "x")
    with pytest.raises(ConfigError, match=r"known are: announce, audit_fraction, .*, xfetch_beta"):
        given("qqq", "x")


CLASHING: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, Any]]] = {
    ("l1_ttl", "ttl"): ({"l1_ttl": 61, "ttl": 60}, {"l1_ttl": 60, "ttl": 60}),
    ("redis_timeout", "max_staleness"): (
        {"redis_timeout": 3, "max_staleness": 2},
        {"redis_timeout": 2, "max_staleness": 2},
    ),
    ("outage_ttl", "max_staleness"): ({"outage_ttl": 3, "max_staleness": 2}, {"outage_ttl": 2, "max_staleness": 2}),
    ("early_refresh", "xfetch_beta"): ({"early_refresh": 0.8, "xfetch_beta": 1}, {"early_refresh": 0.8}),
    ("stale_backoff",): ({"stale_backoff": 1}, {"stale_backoff": 1, "early_refresh": 0.8}),
    ("loader_soft_timeout",): ({"loader_soft_timeout": 1}, {"loader_soft_timeout": 1, "stale_if_error": 9}),
    ("loader_soft_timeout", "loader_hard_timeout"): (
        {"loader_soft_timeout": 2, "loader_hard_timeout": 1, "stale_if_error": 9},
        {"loader_soft_timeout": 1, "loader_hard_timeout": 1, "stale_if_error": 9},
    ),
    ("compress_min_bytes",): ({"compress_min_bytes": 1}, {"compress_min_bytes": 1, "compress": "zstd"}),
    ("compress_min_bytes", "max_value_bytes"): (
        {"compress": "zstd", "compress_min_bytes": 3, "max_value_bytes": 2},
        {"compress": "zstd", "compress_min_bytes": 2, "max_value_bytes": 2},
    ),
}


def test_each_clash_has_an_example() -> None:
    """A row of the table without a test would be found."""
    assert set(CLASHING) == {clash.names for clash in CLASHES}


@pytest.mark.parametrize("names", CLASHING)
def test_settings_that_contradict_each_other(names: tuple[str, ...]) -> None:
    """Both are named with their values; the edge is allowed."""
    bad, good = CLASHING[names]
    with pytest.raises(ConfigError) as caught:
        Settings(**bad)
    assert all(f"{name}={bad[name] if name in WHOLE else float(bad[name])!r}" in str(caught.value) for name in names)
    assert "must be" in str(caught.value) or "give " in str(caught.value)
    Settings(**good)


@each(
    "alone, words",
    [
        ({"redis_timeout": 60}, "redis_timeout=60.0, max_staleness=2.0 (the default): a read would wait"),
        ({"outage_ttl": 5}, "outage_ttl=5.0, max_staleness=2.0 (the default): "),
        ({"l1_ttl": 600}, "l1_ttl=600.0, ttl=300.0 (the default): "),
    ],
)
def test_a_setting_that_contradicts_the_default_of_another(alone: Any, words: str) -> None:
    """It is refused, and both are named: no promise changes unseen."""
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}"):
        Settings(**alone)


def test_a_default_follows_where_it_can() -> None:
    """A tighter promise takes the waiting time along, and the repr shows it; what was given never changes."""
    settings = Settings(max_staleness=0.1)
    assert settings.redis_timeout == 0.1
    assert "redis_timeout=0.1" in repr(settings)
    with pytest.raises(ConfigError, match=r"redis_timeout=0\.25, max_staleness=0\.1:"):
        Settings(max_staleness=0.1, redis_timeout=0.25)


@each(
    "name, value",
    [
        ("max_staleness", 1e-6),
        ("max_staleness", 0.09),
        ("reconnect_max", 1e-9),
        ("lease", 1e-9),
        ("redis_timeout", 1e-4),
        ("redis_connect_timeout", 1e-4),
    ],
)
def test_durations_that_nothing_can_keep_are_refused(name: str, value: float) -> None:
    """A proof every microsecond would be thirty thousand commands a second."""
    with pytest.raises(ConfigError, match=f"{name}={value!r}: must be at least "):
        given(name, value)


@each("value", [10**5000, "x" * 10_000_000, ["x" * 1000] * 100_000, type("Odd", (), {"__repr__": lambda _: 1 / 0})()])
@each("name", sorted(SETTINGS))
def test_a_message_is_short(name: str, value: object) -> None:
    """Whatever was given, and whatever its repr does."""
    with pytest.raises(ConfigError) as caught:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert len(str(caught.value)) < 2000


def test_a_function_as_ttl_clashes_with_nothing() -> None:
    """Its values are not known."""
    assert Settings(ttl=len, l1_ttl=1000).l1_ttl == 1000


def test_the_page_is_made_from_the_table() -> None:
    """docs/settings.md is what `make settings` writes."""
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text() == page()
