"""docs/settings.md and .env.example, made from the table of settings.

``python -m tests.support.settings_page`` prints the page, with ``--env`` the example.
"""

from __future__ import annotations

import sys

from nearcache.clashes import CLASHES
from nearcache.settings import SETTINGS, Setting

HEAD = """# Settings

Every setting is a keyword of `from_url`, a field of `Settings` and a variable of the environment for `from_env`: its
name in capitals behind `NEARCACHE_`, such as `NEARCACHE_TTL=60`. `NEARCACHE_URL` names the server, or
`NEARCACHE_URL_FILE` a file that has its URL. `from_env(prefix="SHOP_CACHE_", ttl=60)` takes another prefix, and
settings that count more than the variables. Durations are
seconds as a number, or a `timedelta`; the environment takes numbers, and `none` where the default is none.

`NEARCACHE_USERNAME` and `NEARCACHE_PASSWORD` count more than user and password of the URL. They, the URL and
`encryption_keys` may each be in a file, as Kubernetes and Compose mount secrets: `NEARCACHE_PASSWORD_FILE` names it.
With the extra `settings`, `from_env(env_file=".env", secrets_dir="/run/secrets")` reads a file of variables, and a
folder with a file for each; the environment counts more than the first, and that more than the second. `.env.example`
has every variable.

The column "calls" says which calls take it as an option of their own, over the setting: "store" are `set`, `set_many`
and all that load; "load" are `get_or_set`, `refresh` and `cached` alone. None there means the setting's value.

This page and `.env.example` are made from the table in nearcache/settings.py by `make settings`.

| setting | default | calls | meaning |
|---|---|---|---|
"""

CLASHING = """
## Combinations that are refused

Two settings that contradict each other raise `ConfigError`, also where one of them is a default. A default of
`redis_timeout` follows `max_staleness` instead. A setting that stands alone in a row is refused when nothing else gives
it a meaning.

| settings | why |
|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{name}` | {_default(setting)} | {setting.calls} | {setting.help} |" for name, setting in SETTINGS.items()
    ]
    clashes = [f"| {', '.join(f'`{name}`' for name in clash.names)} | {clash.why} |" for clash in CLASHES]
    return HEAD + "\n".join(rows) + "\n" + CLASHING + "\n".join(clashes) + "\n"


def _default(setting: Setting) -> str:
    default = setting.default
    return f"`{default!r}`" if isinstance(default, str | int | float | None) else f"`{type(default).__name__}()`"


EXAMPLE = """# Every variable that from_env reads; a line behind # says the default. Made by `make settings`.

# The server: redis://, rediss://, unix://, embedded://, or memory:// for this process alone; or a file that says it.
NEARCACHE_URL=redis://localhost:6379/0
#NEARCACHE_URL_FILE=/run/secrets/nearcache_url

# Over those of the URL; or files that have them.
#NEARCACHE_USERNAME=
#NEARCACHE_USERNAME_FILE=/run/secrets/nearcache_username
#NEARCACHE_PASSWORD=
#NEARCACHE_PASSWORD_FILE=/run/secrets/nearcache_password
"""


def env_example() -> str:
    """The whole file."""
    return EXAMPLE + "".join(
        f"\n# {setting.help}\n#NEARCACHE_{name.upper()}{_in_environment(name, setting)}\n"
        for name, setting in SETTINGS.items()
        if setting.env != "no"
    )


def _in_environment(name: str, setting: Setting) -> str:
    if setting.env == "file":
        return f"_FILE=/run/secrets/nearcache_{name}"
    return f"={'none' if setting.default is None else setting.default}"


if __name__ == "__main__":
    print(env_example() if sys.argv[1:] == ["--env"] else page(), end="")
