"""Settings from the environment: the name of a setting in capitals, behind ``NEARCACHE_``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from nearcache.errors import ConfigError
from nearcache.settings import DEFAULTS, Settings, SettingsOptions, reject_unknown


def from_env(environ: Mapping[str, str], prefix: str = "NEARCACHE_") -> tuple[str, Settings]:
    """Read the URL and the settings from ``NEARCACHE_*`` variables.

    Args:
        environ: usually ``os.environ``.
        prefix: what the names of the variables begin with.

    Returns:
        The URL, and the settings.

    Raises:
        ConfigError: when the URL is missing, or a variable is unknown or cannot be read.

    >>> from_env({"NEARCACHE_URL": "redis://cache:6379/0", "NEARCACHE_TTL": "60"})[1].ttl
    60.0
    """
    texts = {name[len(prefix) :].lower(): text for name, text in environ.items() if name.startswith(prefix)}
    url = texts.pop("url", None)
    if not url:
        raise ConfigError(f"{prefix}URL is not set; set it to, for example, redis://localhost:6379/0")
    reject_unknown(texts, {name: None for name in DEFAULTS if name != "codec"}, "setting in the environment,")
    given = {name: _parse(prefix + name.upper(), text, DEFAULTS[name]) for name, text in texts.items()}
    try:
        return url, Settings(**cast("SettingsOptions", given))
    except ConfigError as error:
        raise ConfigError(f"{error} (set by {prefix}{str(error).partition('=')[0].upper()})") from None


def _parse(variable: str, text: str, default: object) -> object:
    """A variable's text as the type of the setting's default; a setting without a default is a number."""
    if isinstance(default, str):
        return text
    if text.strip().lower() in {"none", ""}:
        return None
    try:
        return int(text) if isinstance(default, int) or text.isdigit() else float(text)
    except ValueError:
        raise ConfigError(f"{variable}={text!r}: must be a number, or none") from None
