"""What a URL of a server says, and how much of it may be shown."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from nearcache.errors import ConfigError

SCHEMES = ("redis", "rediss", "unix")
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)([^/?#@]*@)?"
    r"(?P<place>(([\w.%-]+|\[[0-9A-Fa-f:.]+\])?(:\d+)?(,(?=[\w\[])|(?=[/?]|$)))*(/[^?#@]*)?)(\?|$)"
)
_HOST = re.compile(r"([\w.%-]*|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
SENTINELS = ("redis+sentinel", "rediss+sentinel")
CLUSTERS = ("redis+cluster", "rediss+cluster")


def parts_of(url: str, shown: str) -> SplitResult:
    """The parts of a URL that may work.

    Raises:
        ConfigError: a part is missing, or is none.
    """
    parts: SplitResult | None = None
    with suppress(ValueError):
        split = urlsplit(url)
        parts = None if split.port == 0 else split
    if parts is None:  # raised here: the error of before may have the password, and would be its context
        raise ConfigError(
            f"{shown}: the port must be a number from 1 to 65535, and special characters of a password be quoted "
            "(%23 for #, %2F for /)"
        )
    if parts.scheme == "unix":
        if not parts.path or parts.netloc.rpartition("@")[2]:
            raise ConfigError(f"{shown}: a unix URL needs a path and no host, as in unix:///run/redis.sock")
    elif not re.fullmatch(r"/?|/\d+", parts.path):
        raise ConfigError(f"{shown}: what follows the host must be the number of a database, as in /0")
    elif not parts.hostname or re.search(r"\s", parts.hostname):
        database = "" if scheme_of(shown) in CLUSTERS else "/0"
        raise ConfigError(f"{shown}: the host is missing, as in {scheme_of(shown)}://localhost:6379{database}")
    return parts


def redact(url: str) -> str:
    """A URL without user, password and options, which may be shown.

    A password may stand in it unquoted, with any character. So the options are cut off only where a whole address
    stands before them; else everything up to the last @ may be the password. Where no host was given, the password
    stands in place of a port or behind it: what does not look like an address is not shown.

    >>> redact("redis://me:secret@host:6379/0?password=also@secret")
    'redis://host:6379/0'
    >>> redact("redis://me:se?c#ret@host:6379/0")
    'redis://host:6379/0'
    >>> redact("redis://me:secret")
    'redis://...'
    """
    whole = _ADDRESS.match(url)
    if whole is not None:
        scheme, place = whole["scheme"], whole["place"]
    else:
        begin = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)?", url)
        scheme = begin[0] if begin else ""
        place = re.sub(r"[?#].*", "", url[len(scheme) :].rpartition("@")[2], flags=re.DOTALL)
    hosts, slash, path = place.partition("/")
    if not all(map(_HOST.fullmatch, hosts.split(","))) or not (scheme or re.search(r":\d+$|^$", hosts)):
        return f"{scheme}..."
    form = "[^/]*(/[0-9]{0,5})?" if "+sentinel" in scheme else "[0-9]{0,5}"
    known = (scheme == "unix://" and not hosts) or re.fullmatch(form, path)
    return f"{scheme}{hosts}{slash}{path if known else '...'}"


def scheme_of(url: object) -> str:
    """The scheme of a URL, "" if it has none.

    Raises:
        ConfigError: it is no string.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a URL is a string, not a {type(url).__name__}; for a client of yours use NearCache(client)")
    return url.split("://", 1)[0] if "://" in url else ""


def check_scheme(scheme: str, shown: str) -> None:
    """Refuse a scheme that is not known.

    Raises:
        ConfigError: as its message says.
    """
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in (*SCHEMES, "memory", "null", "embedded", *SENTINELS, *CLUSTERS))
        raise ConfigError(f"{shown or 'an empty URL'}: the URL must begin with one of {known}")
