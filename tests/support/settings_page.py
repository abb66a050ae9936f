"""docs/settings.md, made from the table of settings: ``python -m tests.support.settings_page`` prints it."""

from __future__ import annotations

from nearcache.clashes import CLASHES
from nearcache.settings import SETTINGS, Setting

HEAD = """# Settings

Every setting is a keyword of `from_url`, a field of `Settings` and a variable of the environment for `from_env`: its
name in capitals behind `NEARCACHE_`, such as `NEARCACHE_TTL=60`. `NEARCACHE_URL` names the server, or
`NEARCACHE_URL_FILE` a file that has its URL. `from_env(prefix="SHOP_CACHE_", ttl=60)` takes another prefix, and
settings that count more than the variables. Durations are
seconds as a number, or a `timedelta`; the environment takes numbers, and `none` where the default is none.

The column "calls" says which calls take it as an option of their own, over the setting: "store" are `set`, `set_many`
and all that load; "load" are `get_or_set`, `refresh` and `cached` alone. None there means the setting's value.

This page is made from the table in nearcache/settings.py by `make settings`.

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


if __name__ == "__main__":
    print(page(), end="")
