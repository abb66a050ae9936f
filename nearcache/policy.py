"""What a single call or a decorated function may say about its values, over the settings."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, TypedDict, cast

from nearcache.checks import Duration, Ttl, reject_unknown, seconds, shown, whole
from nearcache.errors import ConfigError, InvalidKey
from nearcache.settings import SETTINGS, Settings


class WriteOptions(TypedDict, total=False):
    """Keywords of calls that store; None means the setting's."""

    ttl: Ttl | None
    l1_ttl: Duration | None
    tags: Sequence[str]
    negative_ttl: Duration | None
    condition: Callable[[Any], bool] | None
    copy: Literal["auto", "none", "serialized"] | None


class LoadOptions(WriteOptions, total=False):
    """Keywords of calls that load."""

    stale_while_revalidate: Duration | None
    stale_if_error: Duration | None
    early_refresh: float | None
    xfetch_beta: float | None
    loader_soft_timeout: Duration | None
    loader_hard_timeout: Duration | None
    lease: Duration | None
    wait_timeout: Duration | None


class CachedOptions(LoadOptions, total=False):
    """Keywords of ``cached``."""

    ignore: Sequence[str]
    version: str
    grouped: bool


XFETCH_WINDOW = 10
"""XFetch begins this many times beta and load time before the end; the odds of an earlier refresh are e^-10."""
_COUNT = whole(1 - (1 << 53), (1 << 53) - 1)
TAGS_MAX = 255
"""Tags on one value."""
OPTIONS = {name: setting for name, setting in SETTINGS.items() if setting.calls}
"""The settings that a call may give for itself."""
_KNOWN = dict.fromkeys((*OPTIONS, "tags", "condition"))
STORING = dict.fromkeys(WriteOptions.__annotations__)
"""The options of calls that store and do not load."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How values are stored and loaded: the settings, with a call's own options over them."""

    ttl: float | Callable[[Any], Duration]
    l1_ttl: float | None
    negative_ttl: float | None
    jitter: float
    stale_while_revalidate: float
    stale_if_error: float
    stale_backoff: float
    early_refresh: float | None
    xfetch_beta: float | None
    loader_soft_timeout: float | None
    loader_hard_timeout: float | None
    lease: float
    wait_timeout: float | None
    max_key_bytes: int
    copy: Literal["auto", "none", "serialized"]
    tags: tuple[str, ...] = ()
    condition: Callable[[Any], bool] | None = None
    # What follows from the options, at hand where each call counts.
    patience: float = field(init=False)
    """For how long another's load is waited for, in seconds.

    By default for two leases: if the loading instance dies, one of the waiting callers takes over when its lease ends,
    and the others wait for that one. With one lease all waits would end then, and each caller would load.
    """
    stale_ms: int = field(init=False)
    """How much longer than it is fresh Redis keeps a value, in ms."""
    plain_ttl: float = field(init=False)
    """The ttl in ms, for every value but None; 0: it takes a function to know it."""
    usual: bool = field(init=False)
    """Whether an entry of L1 ends with its record, is not refreshed before, and is copied where need be."""

    def __post_init__(self) -> None:
        note = partial(object.__setattr__, self)
        note("patience", 2 * self.lease if self.wait_timeout is None else self.wait_timeout)
        note("stale_ms", int(1000 * max(self.stale_while_revalidate, self.stale_if_error)))
        note("plain_ttl", 0.0 if callable(self.ttl) or self.condition is not None else 1000.0 * self.ttl)
        note("usual", self.l1_ttl is self.early_refresh is self.xfetch_beta is None and self.copy == "auto")

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """What the settings say."""
        names = (field.name for field in fields(cls) if field.name in SETTINGS)
        return cls(**{name: getattr(settings, name) for name in names})

    @property
    def timed(self) -> bool:
        """Whether a load has a time limit, so that no other load may be waited for inside it."""
        return self.loader_soft_timeout is not None or self.loader_hard_timeout is not None

    def refresh_at(self, created: float, expires: float, load: float) -> float:
        """When a value that was made and expires then, and took ``load`` seconds, may be refreshed; at its end, if not.

        For XFetch it is where the odds of each read begin to matter; see ``nearcache.engine.stale``.
        """
        if self.early_refresh is not None:
            return created + (expires - created) * self.early_refresh
        if self.xfetch_beta is not None:
            return expires - XFETCH_WINDOW * self.xfetch_beta * load
        return expires

    def over(self, options: LoadOptions | WriteOptions, known: Mapping[str, object] = _KNOWN) -> "Policy":
        """This policy with a call's options over it; ``known``: those that the call takes.

        Raises:
            ConfigError: an option is unknown or out of its range.
            InvalidKey: a tag is no tag.
        """
        return replace(self, **self.check(options, known)) if options else self

    def check(self, options: LoadOptions | WriteOptions, known: Mapping[str, object] = _KNOWN) -> dict[str, Any]:
        """What the options say, as it is kept; raises as ``over``."""
        reject_unknown(options, known, "option")
        given = cast("dict[str, Any]", options)
        chosen: dict[str, Any] = {
            name: OPTIONS[name].check(name, value)
            for name, value in given.items()
            if name in OPTIONS and value is not None
        }
        if "tags" in given:
            chosen["tags"] = check_tags(given["tags"], self.max_key_bytes)
        if given.get("condition") is not None:
            if not callable(given["condition"]):
                raise ConfigError(f"condition={shown(given['condition'])}: must be a function from the value to a bool")
            chosen["condition"] = given["condition"]
        if (
            "l1_ttl" in chosen
        ):  # a ttl that is shorter than the setting's l1_ttl is none: what L2 drops, L1 does not serve
            ttl = chosen.get("ttl", self.ttl)
            if not callable(ttl) and chosen["l1_ttl"] > ttl:
                whose = "" if "ttl" in chosen else " (the setting's)"
                raise ConfigError(
                    f"l1_ttl={chosen['l1_ttl']}, ttl={ttl}{whose}: l1_ttl caps the freshness that ttl gives, so it "
                    "must be at most ttl"
                )
        if "early_refresh" in chosen and "xfetch_beta" in chosen:
            raise ConfigError(
                "early_refresh and xfetch_beta both say when a value is refreshed early: give one of them"
            )
        if "early_refresh" in chosen or "xfetch_beta" in chosen:  # the call's own way, in place of the settings'
            chosen = {"early_refresh": None, "xfetch_beta": None, **chosen}
        if "loader_soft_timeout" in chosen and not chosen.get("stale_if_error", self.stale_if_error):
            raise ConfigError(
                f"loader_soft_timeout={shown(given['loader_soft_timeout'])}: it serves the stale value of a load that "
                "takes longer: give stale_if_error too, or loader_hard_timeout instead"
            )
        return chosen

    def with_tags(self, tags: object) -> "Policy":
        """This policy with these tags: those of a decorated function depend on its arguments.

        Raises:
            InvalidKey: a tag is no tag.
        """
        return replace(self, tags=check_tags(tags, self.max_key_bytes))

    def ttl_ms(self, value: object) -> int | None:
        """For how long this value is fresh, in ms, jitter taken off; None: it is not to be stored."""
        if self.plain_ttl and value is not None:  # as nearly always; below, the same for all policies and values
            return int(self.plain_ttl * (1 - self.jitter * random.random())) or 1
        if self.condition is not None and not self.condition(value):
            return None
        if value is None and self.negative_ttl is not None:
            if not self.negative_ttl:
                return None
            ttl = self.negative_ttl
        else:
            ttl = seconds("ttl", self.ttl(value)) if callable(self.ttl) else self.ttl
        return max(1, int(ttl * (1000 - 1000 * self.jitter * random.random())))


def check_key(key: object, max_key_bytes: int) -> str:
    """A key as it must be, or InvalidKey."""
    if type(key) is str and key.isascii() and 0 < len(key) <= max_key_bytes:  # as nearly all are
        return key
    return _check_name("key", key, max_key_bytes)


def check_counts(delta: object, initial: object) -> tuple[int, int | None]:
    """What is added to a counter, and where it begins, or ConfigError."""
    return _COUNT("delta", delta), None if initial is None else _COUNT("initial", initial)


def check_tags(tags: object, max_key_bytes: int, most: int | None = TAGS_MAX) -> tuple[str, ...]:
    """Tags as they must be, sorted and each once, or an error; at most ``most``, the tags of one value."""
    if isinstance(tags, str) or not isinstance(tags, Sequence | set | frozenset):
        raise ConfigError(f"tags={shown(tags)}: must be a sequence of strings, as in tags=['users']")
    checked = tuple(sorted({_check_name("tag", tag, max_key_bytes) for tag in tags}))
    if most is not None and len(checked) > most:
        raise ConfigError(f"{len(checked)} tags of one value: at most {most} are allowed")
    return checked


def _check_name(what: str, name: object, max_bytes: int) -> str:
    if isinstance(name, list | tuple | set | frozenset):
        way = "delete('a', 'b') or delete(*keys); get_many(['a', 'b']) reads several"
        if what == "tag":
            way = "invalidate_tags('a', 'b') or invalidate_tags(*tags)"
        raise InvalidKey(f"{what} {shown(name)}: several are given one by one, as in {way}")
    if not isinstance(name, str):
        raise InvalidKey(
            f"{what} {shown(name)} is of type {type(name).__name__}: must be a string, as in f'user:{{id}}'"
        )
    if type(name) is not str:  # with an equality of its own it would not be found by the messages' plain strings
        name = str.__str__(name)
    if not name:
        raise InvalidKey(f"the {what} is empty: must be a string of at least one character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"{what} {shown(name)} has a lone surrogate: must be text that UTF-8 can carry") from None
    if size > max_bytes:
        raise InvalidKey(
            f"{what} {name[:40]!r}... has {size} bytes: at most max_key_bytes={max_bytes}; hash its long part"
        )
    return name
