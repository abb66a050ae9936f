"""The URL and the settings that the environment gives: variables, and by the extra `settings` .env files and secrets.

All are read as texts first, each with the name by which an error tells of it; no error repeats a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, Unpack, cast
from urllib.parse import quote

from nearcache.checks import shown, similar
from nearcache.errors import ConfigError, warn
from nearcache.protocol.filters import keys_of
from nearcache.settings import SETTINGS, Settings, SettingsOptions

FILE = "_file"
SECRETS = ("url", "username", "password", *(name for name, setting in SETTINGS.items() if setting.env == "file"))
"""What a file may have that another variable names."""
KNOWN = {name for name, setting in SETTINGS.items() if setting.env in {"", "text"}}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
NUMBER_MAX = 100
"""Characters of a number."""
SERVERLESS = {"memory", "null", "embedded"}
"""Schemes of backends that have no users."""


class Text(NamedTuple):
    """What stands for one name."""

    text: str
    where: str
    """The variable, and the file that it stands in."""
    secret: bool = False
    """Whether the text is a file's, and not a variable's."""


Texts: TypeAlias = dict[str, Text]
"""By the name behind the prefix, in small letters."""


def from_env(
    environ: Mapping[str, str],
    prefix: str = "NEARCACHE_",
    *,
    env_file: str | Path | None = None,
    secrets_dir: str | Path | None = None,
    **given: Unpack[SettingsOptions],
) -> tuple[str, Settings]:
    """The URL and the settings that the environment gives: the name of a setting in capitals, behind the prefix.

    A variable of another name is a NearCacheWarning, since a Kubernetes Service called ``nearcache`` makes some.

    Args:
        environ: usually ``os.environ``. ``NEARCACHE_USERNAME`` and ``NEARCACHE_PASSWORD`` count more than those of the
            URL. Each of the three may be in a file, which ``NEARCACHE_URL_FILE`` and so on name.
        prefix: what the names of the variables begin with.
        env_file: a file such as ``.env``, which need not exist; the variables of ``environ`` count more.
        secrets_dir: a folder with a file for each secret, such as ``/run/secrets``; the variables count more.
        **given: settings that count more than all of them.

    Raises:
        ConfigError: there is no URL, or a variable cannot be read.

    >>> from_env({"NEARCACHE_URL": "redis://cache:6379/0", "NEARCACHE_TTL": "60"})[1].ttl
    60.0
    """
    if not isinstance(prefix, str):
        raise ConfigError(f"prefix={shown(prefix)}: must be a string, such as 'NEARCACHE_'")
    _check_place("env_file", env_file, Path.is_dir, "a file of variables, such as .env")
    _check_place("secrets_dir", secrets_dir, Path.is_file, "a folder with a file for each variable, as /run/secrets is")
    texts = _under(_of_files(prefix, env_file, secrets_dir), _of_variables(prefix, environ))
    secrets = {name: text for name in SECRETS if (text := _secret(texts, name, prefix)) is not None}
    if "url" not in secrets:
        raise ConfigError(f"{prefix}URL is not set; set it to, for example, redis://localhost:6379/0")
    _warn_of_unknown(prefix, texts)
    read = {name: text for name, text in texts.items() if name in KNOWN and name not in given}
    chosen = {name: _read(name, text) for name, text in read.items()}
    for name in SECRETS[3:]:
        if name in secrets and name not in given:
            chosen[name] = keys_of(secrets[name].where, secrets[name].text)
    url = _with_credentials(secrets["url"].text, *(secrets.get(name) for name in ("username", "password")))
    try:
        return url, Settings(**cast("SettingsOptions", {**chosen, **given}))
    except ConfigError as error:
        problem = str(error)
    variables = ", ".join(text.where for name, text in read.items() if f"{name}=" in problem)
    raise ConfigError(f"{problem} (set by {variables})" if variables else problem)


# --------------------------------------------------------------------------------------------------------- the sources


def _of_variables(prefix: str, environ: Mapping[str, str]) -> Texts:
    return {name[len(prefix) :].lower(): Text(text, name) for name, text in environ.items() if name.startswith(prefix)}


def _check_place(name: str, place: object, wrong: Callable[[Path], bool], wanted: str) -> None:
    """Refuse what is no path, or that of something else."""
    if place not in (None, "") and (not isinstance(place, str | Path) or wrong(Path(place))):
        raise ConfigError(f"{name}={shown(place)}: must be the path of {wanted}")


def _of_files(prefix: str, env_file: str | Path | None, secrets_dir: str | Path | None) -> Texts:
    """What pydantic-settings finds there."""
    if not env_file and not secrets_dir:
        return {}
    try:
        from pydantic import Field, create_model  # noqa: PLC0415  # an extra
        from pydantic_settings import (  # noqa: PLC0415  # the same
            BaseSettings,
            DotEnvSettingsSource,
            SecretsSettingsSource,
        )
    except ImportError:
        missing = "env_file and secrets_dir need the package pydantic-settings: pip install 'nearcache[settings]'"
        raise ConfigError(missing) from None
    names = [*KNOWN, *SECRETS, *(name + FILE for name in SECRETS)]
    fields: dict[str, Any] = {
        f"of_{name}": (str | None, Field(None, validation_alias=prefix + name.upper())) for name in names
    }
    model = create_model("Texts", __base__=BaseSettings, **fields)
    found: Texts = {}
    for what, place, source, secret in (
        ("secrets_dir", secrets_dir, lambda: SecretsSettingsSource(model, secrets_dir=secrets_dir), True),
        ("env_file", env_file, lambda: DotEnvSettingsSource(model, env_file=env_file), False),
    ):
        if not place:
            continue
        if secret and not Path(place).exists():  # pydantic-settings warns as well, and names no argument
            warn(f"secrets_dir={shown(str(place))}: there is no such folder, so nothing is read from it")
            continue
        problem, texts = "", {}
        try:
            texts = source()()
        except (OSError, ValueError) as error:  # SettingsError is a ValueError
            problem = type(error).__name__
        if problem:  # raised here: the error of before would be its context
            raise ConfigError(f"{what}={shown(str(place))} cannot be read: {problem}")
        over = {
            name[len(prefix) :].lower(): Text(text, f"{name.upper()} in {place}", secret)
            for name, text in texts.items()
            if name.upper().startswith(prefix.upper()) and isinstance(text, str)
        }
        found = _under(found, over)
    return found


def _under(under: Texts, over: Texts) -> Texts:
    """Both, of which ``over`` counts more: a URL there also more than a URL's file here."""
    names = {name.removesuffix(FILE) for name in over}
    return {name: text for name, text in under.items() if name.removesuffix(FILE) not in names} | over


# ----------------------------------------------------------------------------------------------------------- the texts


def _secret(texts: Texts, name: str, prefix: str) -> Text | None:
    """What a variable or the file that another one names has; taken out of the texts."""
    text, file = texts.pop(name, None), texts.pop(name + FILE, None)
    text, file = (text if text and text.text else None), (file if file and file.text else None)
    if text and file:
        raise ConfigError(f"{text.where} and {file.where} are both set: set one of them")
    if text and not text.secret and name not in SECRETS[:3]:
        raise ConfigError(f"{text.where} is set: secrets come from a file, {prefix}{name.upper()}_FILE")
    return Text(_content(file), file.where) if file else text


def _content(file: Text) -> str:
    """The text of the file that a variable names."""
    text, problem = "", "is empty"
    try:
        text = Path(file.text).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {type(error).__name__}"
    if not text:  # raised here, as above
        raise ConfigError(f"{file.where}={shown(file.text)}: the file {problem}")
    return text


def _with_credentials(url: str, username: Text | None, password: Text | None) -> str:
    """The URL with these in place of its own; without them as it is, and so is one of a backend without users.

    >>> _with_credentials("redis://me:old@host/0?password=old&db=1", None, Text("p@ss", ""))
    'redis://me:p%40ss@host/0?db=1'
    """
    scheme, separator, rest = url.partition("://")
    given = {name: text.text for name, text in (("username", username), ("password", password)) if text is not None}
    if not given or not separator or scheme in SERVERLESS:
        return url
    place, mark, query = rest.partition("?")  # redis-py takes both from the options too, which would count more
    options = [option for option in query.split("&") if option.partition("=")[0] not in given]
    end = min((place.index(sign) for sign in "/#" if sign in place), default=len(place))
    info, _, hosts = place[:end].rpartition("@")
    own_name, _, own_password = info.partition(":")
    name = quote(given["username"], safe="") if "username" in given else own_name
    word = quote(given["password"], safe="") if "password" in given else own_password
    whole = f"{name}:{word}" if word else name
    return f"{scheme}://{whole}@{hosts}{place[end:]}{mark if options != [''] and options else ''}{'&'.join(options)}"


def _warn_of_unknown(prefix: str, texts: Iterable[str]) -> None:
    unknown = sorted(name for name in texts if name not in KNOWN)
    if unknown:
        meant = (name for one in unknown for name in similar(one, KNOWN))
        hint = "".join(f"; did you mean {prefix}{name.upper()}?" for name in meant)
        warn(f"no settings, so ignored: {', '.join(prefix + name.upper() for name in unknown)}{hint}")


_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)


def _read(name: str, given: Text) -> object:
    """A text as the type of the setting's default; a setting without a default is a number, unless the table says."""
    default = SETTINGS[name].default
    if isinstance(default, str):
        return given.text
    text = given.text.strip()
    if text.lower() in {"none", ""}:
        return None
    if SETTINGS[name].env == "text":
        return text
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{given.where}={shown(text)}: must be true or false")
        return _BOOLEANS[text.lower()]
    whole_number = re.fullmatch(r"[+-]?\d+", text, re.ASCII) is not None
    if not _NUMBER.fullmatch(text) or len(text) > NUMBER_MAX or (isinstance(default, int) and not whole_number):
        raise ConfigError(f"{given.where}={shown(text)}: must be a number, or none")
    return int(text) if whole_number else float(text)
