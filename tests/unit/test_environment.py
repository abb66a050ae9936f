"""Settings from the environment: every one is a variable, and a text that cannot be read is told by its name."""

from __future__ import annotations

from base64 import b64encode
from itertools import cycle
from pathlib import Path

import pytest

from nearcache import ConfigError, MsgpackCodec, NearCacheWarning, Settings
from nearcache.settings import SETTINGS, from_env
from tests.support.cases import each
from tests.unit.test_settings import OPTIONAL


def variables(**texts: str) -> dict[str, str]:
    """An environment with a URL."""
    return {"NEARCACHE_URL": "redis://localhost", **texts}


def test_every_setting_is_a_variable() -> None:
    """But the codec, which no text can give, and keys, which a file has."""
    texts: dict[str, tuple[str, object]] = {
        "namespace": ("shop", "shop"),
        "ttl": ("60", 60.0),
        "l1_ttl": ("1.5", 1.5),
        "l1_max_entries": ("5", 5),
        "l1_max_bytes": ("5000", 5000),
        "eviction": ("s3fifo", "s3fifo"),
        "jitter": ("0.1", 0.1),
        "negative_ttl": ("0", 0.0),
        "lease": ("3", 3.0),
        "stale_while_revalidate": ("20", 20.0),
        "stale_if_error": ("3600", 3600.0),
        "stale_backoff": ("2", 2.0),
        "early_refresh": ("0.8", 0.8),
        "loader_soft_timeout": ("0.1", 0.1),
        "loader_hard_timeout": ("5", 5.0),
        "wait_timeout": ("4", 4.0),
        "max_concurrent_loads": ("8", 8),
        "outage_ttl": ("1", 1.0),
        "max_staleness": ("9", 9.0),
        "redis_timeout": ("0.5", 0.5),
        "redis_connect_timeout": ("2", 2.0),
        "max_connections": ("7", 7),
        "retries": ("0", 0),
        "breaker_failures": ("1", 1),
        "breaker_reset": ("1e1", 10.0),
        "reconnect_max": (".5", 0.5),
        "on_unavailable": ("raise", "raise"),
        "journal_max": ("77", 77),
        "copy": ("serialized", "serialized"),
        "compress": ("zstd", "zstd"),
        "compress_min_bytes": ("9", 9),
        "max_key_bytes": ("99", 99),
        "max_value_bytes": ("999", 999),
        "on_reconnect": ("flush", "flush"),
    }
    assert set(texts) == set(SETTINGS) - {"codec", "encryption_keys", "xfetch_beta"}
    assert from_env(variables(NEARCACHE_XFETCH_BETA="1"))[1].xfetch_beta == 1.0
    url, settings = from_env(variables(**{f"NEARCACHE_{name.upper()}": text for name, (text, _) in texts.items()}))
    assert url == "redis://localhost"
    for name, (_, value) in texts.items():
        assert getattr(settings, name) == value
        assert type(getattr(settings, name)) is type(value)


def test_none_can_be_said_in_the_environment() -> None:
    """`none`, or nothing, where None has a meaning."""
    texts = {
        f"NEARCACHE_{name.upper()}": text
        for name, text in zip(OPTIONAL, cycle(["none", "None", "", "NONE"]), strict=False)
        if name != "encryption_keys"
    }
    settings = from_env(variables(**texts))[1]
    assert {getattr(settings, name) for name in OPTIONAL} == {None}


def test_a_namespace_may_be_called_none() -> None:
    """A word is a word."""
    assert from_env(variables(NEARCACHE_NAMESPACE="none"))[1].namespace == "none"
    assert from_env(variables(NEARCACHE_COPY="none"))[1].copy == "none"


def test_other_variables_are_not_read() -> None:
    """Another prefix can be asked for."""
    assert from_env({"TTL": "x", "NEARCACHEX": "y", **variables()})[1] == Settings()
    assert from_env({"SHOP_URL": "memory://", "SHOP_TTL": "5"}, "SHOP_") == ("memory://", Settings(ttl=5))


def test_without_a_url_there_is_nothing() -> None:
    """The message says which variable to set, and to what."""
    for environ in ({}, {"NEARCACHE_URL": ""}, {"NEARCACHE_TTL": "5"}):
        with pytest.raises(ConfigError, match="NEARCACHE_URL is not set; set it to, for example, redis://"):
            from_env(environ)


@each(
    "name, text, words",
    [
        ("TTL", "soon", "NEARCACHE_TTL='soon': must be a number"),
        ("RETRIES", "1.5", "NEARCACHE_RETRIES='1.5': must be a number"),
        ("L1_MAX_BYTES", "1.5", "l1_max_bytes=1.5: must be a whole number"),
        ("TTL", "-1", "must be more than 0 seconds"),
        ("TTL", "inf", "must be more than 0 seconds"),
        ("TTL", "nan", "must be more than 0 seconds"),
        ("TTL", "", "ttl=None: must be seconds"),
        ("COPY", "deep", "copy='deep': must be one of"),
        ("TTL", "²", "must be a number"),
        ("L1_TTL", "²", "must be a number"),
        ("TTL", "٣", "NEARCACHE_TTL='٣': must be a number"),
        ("TTL", "1_000", "NEARCACHE_TTL='1_000': must be a number"),
        ("RETRIES", "9" * 5000, "must be a number"),
        ("RETRIES", "1_0", "must be a number"),
        ("MAX_STALENESS", "-1", "(set by NEARCACHE_MAX_STALENESS)"),
        ("REDIS_TIMEOUT", "60", "(set by NEARCACHE_REDIS_TIMEOUT)"),
    ],
)
def test_a_variable_that_cannot_be_read(name: str, text: str, words: str) -> None:
    """The message names the variable or the setting, the text, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        from_env(variables(**{f"NEARCACHE_{name}": text}))
    assert words in str(caught.value)


@each(
    "name, words",
    [
        ("TLL", "no settings, so ignored: NEARCACHE_TLL; did you mean NEARCACHE_TTL?"),
        ("CODEC", "no settings, so ignored: NEARCACHE_CODEC"),
    ],
)
def test_an_unknown_variable_is_a_warning(name: str, words: str) -> None:
    """It is ignored, and its text, which may be a secret, is not shown."""
    with pytest.warns(NearCacheWarning) as seen:
        assert from_env(variables(**{f"NEARCACHE_{name}": "s3cret"}))[1] == Settings()
    assert str(seen.list[0].message) == words


def test_a_service_of_kubernetes_called_nearcache_stops_nobody() -> None:
    """It gives each container such variables; one warning names them all."""
    service = {
        "NEARCACHE_PORT": "tcp://10.0.0.1:6379",
        "NEARCACHE_PORT_6379_TCP": "tcp://10.0.0.1:6379",
        "NEARCACHE_PORT_6379_TCP_ADDR": "10.0.0.1",
        "NEARCACHE_SERVICE_HOST": "10.0.0.1",
        "NEARCACHE_SERVICE_PORT": "6379",
    }
    with pytest.warns(NearCacheWarning) as seen:
        assert from_env(variables(**service)) == ("redis://localhost", Settings())
    assert len(seen.list) == 1
    assert all(name in str(seen.list[0].message) for name in service)


def test_keywords_count_more_than_variables() -> None:
    """A variable that is not used is not read; codec is a keyword."""
    codec = MsgpackCodec()
    settings = from_env(variables(NEARCACHE_TTL="soon", NEARCACHE_L1_TTL="5"), ttl=7, codec=codec)[1]
    assert (settings.ttl, settings.l1_ttl, settings.codec) == (7.0, 5.0, codec)
    with pytest.raises(ConfigError, match=r"l1_ttl=9\.0, ttl=7\.0: .* \(set by NEARCACHE_L1_TTL\)"):
        from_env(variables(NEARCACHE_L1_TTL="9"), ttl=7)
    with pytest.raises(ConfigError, match="unknown setting 'tll'"):
        from_env(variables(), tll=5)  # type: ignore[call-arg]


def test_the_url_may_be_in_a_file(tmp_path: Path) -> None:
    """As a secret is mounted; its text is in no error."""
    file = tmp_path / "url"
    file.write_text("redis://:s3cret@cache:6379/0\n")
    assert from_env({"NEARCACHE_URL_FILE": str(file)})[0] == "redis://:s3cret@cache:6379/0"
    assert from_env({"SHOP_URL_FILE": str(file)}, "SHOP_")[0] == "redis://:s3cret@cache:6379/0"
    with pytest.raises(ConfigError, match="NEARCACHE_URL and NEARCACHE_URL_FILE are both set"):
        from_env(variables(NEARCACHE_URL_FILE=str(file)))
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"NEARCACHE_URL_FILE=.*: the file is empty"):
        from_env({"NEARCACHE_URL_FILE": str(file)})
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=r"NEARCACHE_URL_FILE=.*: the file cannot be read: \w+Error") as caught:
            from_env({"NEARCACHE_URL_FILE": str(missing)})
        assert caught.value.__context__ is None


def test_encryption_keys_are_in_a_file(tmp_path: Path) -> None:
    """Alone: a variable that has them is refused; no error repeats anything of them."""
    file = tmp_path / "keys"
    file.write_text(f"2026-02 {b64encode(b's3cret' * 4).decode()}\n")
    settings = from_env(variables(NEARCACHE_ENCRYPTION_KEYS_FILE=str(file)))[1]
    assert settings.encryption_keys is not None
    assert settings.encryption_keys.first == "2026-02"
    assert from_env(variables(NEARCACHE_ENCRYPTION_KEYS_FILE=str(file)), encryption_keys=None)[1] == Settings()
    with pytest.raises(ConfigError, match=r"KEYS is set: secrets come from a file, NEARCACHE_ENCRYPTION_KEYS_FILE$"):
        from_env(variables(NEARCACHE_ENCRYPTION_KEYS="2026-02 s3cret"))
    for text, problem in (("", "the file is empty"), ("a s3cret", "line 1: must be an id")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"^NEARCACHE_ENCRYPTION_KEYS_FILE.*: {problem}") as caught:
            from_env(variables(NEARCACHE_ENCRYPTION_KEYS_FILE=str(file)))
        assert "s3cret" not in str(caught.value)
        assert caught.value.__context__ is None
