"""Settings from the environment: every one is a variable, and a text that cannot be read is told by its name."""

from __future__ import annotations

import re
import sys
from base64 import b64encode
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from nearcache import ConfigError, MsgpackCodec, NearCacheWarning, Settings
from nearcache.environment import from_env
from nearcache.settings import SETTINGS
from tests.support.cases import each
from tests.support.settings_page import env_example
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
        "l1_share": ("0.5", 0.5),
        "audit_fraction": ("0.01", 0.01),
        "announce": ("true", True),
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
        "buckets": ("4", 4),
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


@each(
    "url, texts, whole",
    [
        ("redis://cache:6379/0", {"PASSWORD": "p@s/s"}, "redis://:p%40s%2Fs@cache:6379/0"),
        ("redis://cache", {"USERNAME": "me"}, "redis://me@cache"),
        ("rediss://a:b@cache/0?db=1", {"USERNAME": "me", "PASSWORD": "new"}, "rediss://me:new@cache/0?db=1"),
        ("redis://a:b@cache", {"PASSWORD": "new"}, "redis://a:new@cache"),
        ("redis://a:b@cache", {"USERNAME": "me"}, "redis://me:b@cache"),
        ("redis://cache?password=old&db=1&username=a", {"PASSWORD": "new"}, "redis://:new@cache?db=1&username=a"),
        ("redis://cache?password=old", {"PASSWORD": "new"}, "redis://:new@cache"),
        ("unix:///run/redis.sock?db=2", {"PASSWORD": "new"}, "unix://:new@/run/redis.sock?db=2"),
        ("redis+sentinel://h1:1,h2:2/shop/0", {"PASSWORD": "new"}, "redis+sentinel://:new@h1:1,h2:2/shop/0"),
        ("redis://cache", {"PASSWORD": ""}, "redis://cache"),
        ("memory://", {"USERNAME": "me", "PASSWORD": "new"}, "memory://"),
        ("null://", {"PASSWORD": "new"}, "null://"),
        ("embedded://", {"PASSWORD": "new"}, "embedded://"),
        ("junk", {"PASSWORD": "new"}, "junk"),
    ],
)
def test_user_and_password_count_more_than_the_url_s(url: str, texts: dict[str, str], whole: str) -> None:
    """Quoted, in place of its own; a backend without users is chosen by the URL alone."""
    assert from_env({"NEARCACHE_URL": url, **{f"NEARCACHE_{name}": text for name, text in texts.items()}})[0] == whole


def test_user_and_password_may_be_in_files(tmp_path: Path) -> None:
    """As Kubernetes and Compose mount them; one of the two, not both."""
    for name, text in (("user", "me"), ("word", "s3cret\n"), ("url", "redis://cache")):
        (tmp_path / name).write_text(text)
    files = {
        "NEARCACHE_URL_FILE": str(tmp_path / "url"),
        "NEARCACHE_USERNAME_FILE": str(tmp_path / "user"),
        "NEARCACHE_PASSWORD_FILE": str(tmp_path / "word"),
    }
    assert from_env(files)[0] == "redis://me:s3cret@cache"
    with pytest.raises(ConfigError) as caught:
        from_env({**files, "NEARCACHE_PASSWORD": "s3cret"})
    assert str(caught.value) == "NEARCACHE_PASSWORD and NEARCACHE_PASSWORD_FILE are both set: set one of them"
    with pytest.raises(ConfigError, match=r"NEARCACHE_PASSWORD_FILE='.*none': the file cannot be read: FileNotFound"):
        from_env({**files, "NEARCACHE_PASSWORD_FILE": str(tmp_path / "none")})


class TestFiles:
    """A .env file and a folder of secrets, by the extra."""

    @pytest.fixture(autouse=True)
    def _needs_the_extra(self) -> None:
        pytest.importorskip("pydantic_settings")

    def test_variables_count_more_than_a_file_and_that_more_than_secrets(self, tmp_path: Path) -> None:
        """Also where one has a URL, and the other names a file that has one."""
        env = tmp_path / ".env"
        env.write_text("# ours\nNEARCACHE_TTL=60\nexport NEARCACHE_COPY='none'\nNEARCACHE_L1_TTL=5\nTTL=x\n")
        (tmp_path / "NEARCACHE_URL").write_text("redis://cache\n")
        (tmp_path / "nearcache_password").write_text("s3cret\n")
        (tmp_path / "NEARCACHE_TTL").write_text("61")
        url, settings = from_env({"NEARCACHE_L1_TTL": "6"}, env_file=env, secrets_dir=tmp_path)
        assert url == "redis://:s3cret@cache"
        assert (settings.ttl, settings.copy, settings.l1_ttl) == (60.0, "none", 6.0)
        assert from_env({}, secrets_dir=str(tmp_path), ttl=9)[1] == Settings(ttl=9)
        missing = str(tmp_path / "none")
        assert (
            from_env({"NEARCACHE_URL": "memory://", "NEARCACHE_PASSWORD": ""}, secrets_dir=tmp_path)[0] == "memory://"
        )
        with pytest.raises(ConfigError, match=r"NEARCACHE_URL_FILE='.*': the file cannot be read"):
            from_env({"NEARCACHE_URL_FILE": missing}, env_file=env, secrets_dir=tmp_path)
        assert from_env(variables(), env_file=missing)[1] == Settings()

    def test_another_prefix(self, tmp_path: Path) -> None:
        """Of the variables in the file, too."""
        env = tmp_path / ".env"
        env.write_text("SHOP_CACHE_URL=memory://\nSHOP_CACHE_TTL=5\nNEARCACHE_TTL=6\n")
        assert from_env({}, "SHOP_CACHE_", env_file=env) == ("memory://", Settings(ttl=5))

    def test_errors_name_the_variable_and_its_file(self, tmp_path: Path) -> None:
        """And no secret."""
        env = tmp_path / ".env"
        for line, words in (
            ("NEARCACHE_TTL=soon", rf"NEARCACHE_TTL in {env}='soon': must be a number"),
            (
                "NEARCACHE_TTL=-1",
                rf"must be more than 0 seconds and at most 10 years \(set by NEARCACHE_TTL in {env}\)",
            ),
            (
                "NEARCACHE_ENCRYPTION_KEYS=s3cret",
                rf"KEYS in {env} is set: secrets come from a file, NEARCACHE_ENC\w+_FILE",
            ),
        ):
            env.write_text(line)
            with pytest.raises(ConfigError, match=words) as caught:
                from_env(variables(), env_file=env)
            assert "s3cret" not in str(caught.value)
        env.write_text("NEARCACHE_TLL=s3cret\n")
        with pytest.warns(NearCacheWarning, match=r"NEARCACHE_TLL; did you mean NEARCACHE_TTL\?$"):
            assert from_env(variables(), env_file=env)[1] == Settings()
        env.write_bytes(b"NEARCACHE_PASSWORD=s3cret\xff\n")
        with pytest.raises(ConfigError, match="cannot be read: UnicodeDecodeError") as caught:
            from_env(variables(), env_file=env)
        assert caught.value.__context__ is None

    def test_places_that_are_none(self, tmp_path: Path) -> None:
        """What is no path, or that of something else, is refused by the name of the argument; a missing folder told."""
        file = tmp_path / "file"
        file.touch()
        for given, words in (
            ({"env_file": 5}, "env_file=5: must be the path of a file of variables, such as .env"),
            ({"env_file": tmp_path}, "env_file=.*: must be the path of a file of variables"),
            ({"env_file": [".env"]}, r"env_file=\['.env'\]: must be the path of a file"),
            ({"secrets_dir": 5}, "secrets_dir=5: must be the path of a folder with a file for each variable"),
            ({"secrets_dir": file}, "secrets_dir=.*file'.*: must be the path of a folder"),
        ):
            with pytest.raises(ConfigError, match=words):
                from_env(variables(), **given)
        with pytest.warns(NearCacheWarning, match="secrets_dir='.*none': there is no such folder, so nothing is read"):
            assert from_env(variables(), secrets_dir=tmp_path / "none")[1] == Settings()
        assert from_env(variables(), env_file="", secrets_dir="")[1] == Settings()

    def test_encryption_keys_may_be_a_secret(self, tmp_path: Path) -> None:
        """Since that is a file."""
        secret = tmp_path / "NEARCACHE_ENCRYPTION_KEYS"
        secret.write_text(f"2026-02 {b64encode(bytes(32)).decode()}")
        keys = from_env(variables(), secrets_dir=tmp_path)[1].encryption_keys
        assert repr(keys) == "<KeyRing 2026-02>"
        secret.write_text("2026-02 s3cret")
        with pytest.raises(
            ConfigError, match=f"^NEARCACHE_ENCRYPTION_KEYS in {tmp_path}: line 1: must be an id"
        ) as caught:
            from_env(variables(), secrets_dir=tmp_path)
        assert "s3cret" not in str(caught.value)


@each("prefix", [5, None, b"NEARCACHE_"])
def test_a_prefix_is_a_string(prefix: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match=r"prefix=.*: must be a string, such as 'NEARCACHE_'"):
        from_env(variables(), prefix)


def test_without_the_extra_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables alone need nothing."""
    monkeypatch.setitem(sys.modules, "pydantic_settings", None)
    assert from_env(variables())[1] == Settings()
    for files in ({"env_file": ".env"}, {"secrets_dir": "/run/secrets"}):
        with pytest.raises(ConfigError, match=r"need .*pydantic-settings: pip install 'nearcache\[settings\]'"):
            from_env(variables(), **files)  # type: ignore[arg-type]


def test_the_example_has_every_setting_with_its_default() -> None:
    """.env.example is what `make settings` writes; with all lines in use it changes nothing."""
    text = (Path(__file__).parents[2] / ".env.example").read_text()
    assert text == env_example()
    lines = dict(line.removeprefix("#").split("=", 1) for line in text.splitlines() if re.match(r"#?NEARCACHE_", line))
    assert set(lines) >= {
        f"NEARCACHE_{name.upper()}" for name, setting in SETTINGS.items() if setting.env in {"", "text"}
    }
    files = [name for name in lines if name.endswith("_FILE") or name in {"NEARCACHE_USERNAME", "NEARCACHE_PASSWORD"}]
    assert set(files) == {
        "NEARCACHE_URL_FILE",
        "NEARCACHE_USERNAME",
        "NEARCACHE_USERNAME_FILE",
        "NEARCACHE_PASSWORD",
        "NEARCACHE_PASSWORD_FILE",
        "NEARCACHE_ENCRYPTION_KEYS_FILE",
    }
    for name in files:
        lines.pop(name)
    assert from_env(lines) == ("redis://localhost:6379/0", Settings())


def test_the_example_is_a_file_of_variables() -> None:
    """As it is, it gives the URL alone."""
    pytest.importorskip("pydantic_settings")
    assert from_env({}, env_file=Path(__file__).parents[2] / ".env.example") == ("redis://localhost:6379/0", Settings())
