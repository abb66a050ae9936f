"""Every setting once: type, default, check and one line of help; what else is said of settings follows from this table.

Follow from it: Settings, the keywords of ``from_url`` and of single calls, the variables of the environment, and
docs/settings.md (``make settings`` writes it). The two static forms that type checkers need, the fields of Settings and
SettingsOptions, are held equal to it by a test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, cast

from nearcache import checks
from nearcache.checks import Check, Duration, Ttl, optional, reject_unknown, seconds, whole, window
from nearcache.clashes import CLASHES, COMPRESS_MIN_BYTES, STALE_BACKOFF
from nearcache.protocol.codec import Codec, MsgpackCodec
from nearcache.protocol.filters import KeyRing


class Setting(NamedTuple):
    """One row of the table."""

    default: Any
    check: Check
    help: str
    calls: Literal["", "store", "load"] = ""
    """Calls that take it as an option too: those that store and those that load, or those that load alone."""
    env: Literal["", "text", "file", "no"] = ""
    """How the environment gives it: as a text, by a file that a variable names, not at all; "": as the default says."""


SETTINGS: Mapping[str, Setting] = {
    "namespace": Setting(
        "nearcache", checks.namespace, "prefix of every name in Redis; caches of one namespace share values"
    ),
    "ttl": Setting(
        300.0, checks.ttl, "seconds for which a value is fresh, or a function of the value that gives them", "store"
    ),
    "l1_ttl": Setting(
        None, optional(seconds), "seconds for which a value is fresh in L1 at most; None: as in Redis", "store"
    ),
    "l1_max_entries": Setting(10_000, whole(1), "entries that L1 holds at most"),
    "l1_max_bytes": Setting(
        None, optional(whole(1)), "bytes that L1 holds at most, keys and encoded values; None: no bound"
    ),
    "eviction": Setting("lru", checks.one_of("lru", "s3fifo"), "which entry leaves a full L1 first"),
    "l1_share": Setting(
        1.0,
        checks.whole_or_part,
        "part of the keys, by hash, that L1 may hold; `nearcache l1 --share` lowers it for all instances",
    ),
    "audit_fraction": Setting(
        0.0,
        checks.whole_or_part,
        "part of L1's hits that is compared with Redis in the background, up to 100 a second; 0: no audit",
    ),
    "jitter": Setting(
        0.05, checks.fraction, "fraction of the ttl that is taken off at random, so that values do not end together"
    ),
    "negative_ttl": Setting(
        None, optional(window), "ttl of a cached None, in seconds; None: as ttl; 0: None is not cached", "store"
    ),
    "stale_while_revalidate": Setting(
        0.0, window, "seconds beyond the ttl in which the old value serves while it is loaded anew", "load"
    ),
    "stale_if_error": Setting(
        0.0, window, "seconds beyond the ttl in which the old value serves when the loader fails", "load"
    ),
    "stale_backoff": Setting(
        STALE_BACKOFF, seconds, "seconds before a load that failed is tried again while an old value serves"
    ),
    "early_refresh": Setting(
        None, optional(checks.part), "fraction of the ttl after which the first reader starts a refresh", "load"
    ),
    "xfetch_beta": Setting(
        None, optional(checks.beta), "factor of XFetch's refresh by chance; 1.0 is the paper's", "load"
    ),
    "loader_soft_timeout": Setting(
        None, optional(seconds), "seconds of a load after which an old value serves, if stale_if_error allows", "load"
    ),
    "loader_hard_timeout": Setting(
        None, optional(seconds), "seconds of a load after which LoaderTimeout is raised", "load"
    ),
    "lease": Setting(
        10.0,
        checks.measurable,
        "seconds for which one instance alone may load a key; longer than the longest load",
        "load",
    ),
    "wait_timeout": Setting(
        None, optional(seconds), "seconds to wait for another instance's load; None: twice the lease", "load"
    ),
    "max_concurrent_loads": Setting(
        32,
        whole(1, 10_000),
        "loads at a time in this process while Redis is away or back empty; threads for loads with a time limit",
    ),
    "outage_ttl": Setting(
        None,
        optional(seconds),
        "seconds for which a value lives here that was loaded while Redis is away; None: max_staleness",
    ),
    "max_staleness": Setting(
        2.0, checks.staleness, "seconds by which a hit in L1 may miss an acknowledged write at most (G1); at least 0.1"
    ),
    "redis_timeout": Setting(
        0.25,
        checks.measurable,
        "seconds of silence after which an operation ends (a reply that keeps coming: ten); at most max_staleness",
    ),
    "redis_connect_timeout": Setting(1.0, checks.measurable, "seconds that connecting takes at most"),
    "max_connections": Setting(
        32, whole(1, 10_000), "connections for commands in the pool of a NearCache; asyncio needs one"
    ),
    "retries": Setting(3, whole(0, 100), "times that connecting or a read is tried again, within redis_timeout in all"),
    "breaker_failures": Setting(
        3, whole(1), "failures in a row after which Redis is left alone; a timeout is enough by itself"
    ),
    "breaker_reset": Setting(1.0, seconds, "seconds after which one operation tries Redis again"),
    "reconnect_max": Setting(
        0.5,
        checks.measurable,
        "longest pause in seconds between two attempts of the bus to connect; a minute where the server refuses it",
    ),
    "on_unavailable": Setting(
        "degrade", checks.one_of("degrade", "raise"), "a write that Redis does not acknowledge: return False, or raise"
    ),
    "journal_max": Setting(
        10_000, whole(1), "keys of unacknowledged writes that are kept; more of them become one clear"
    ),
    "copy": Setting(
        "auto",
        checks.one_of("auto", "none", "serialized"),
        "a hit in L1 gives a value of its own; auto: unless it is immutable; none: the stored object, never to change",
        "store",
    ),
    "codec": Setting(
        MsgpackCodec(), checks.codec, "makes bytes of values and values of bytes; not in the environment", env="no"
    ),
    "compress": Setting(
        None,
        optional(checks.compression),
        "'zstd': values are compressed in Redis where that pays; None: none is",
        env="text",
    ),
    "compress_min_bytes": Setting(
        COMPRESS_MIN_BYTES, whole(1), "bytes of an encoded value from which it is compressed, if compress is set"
    ),
    "encryption_keys": Setting(
        None,
        optional(checks.key_ring),
        "pairs (id, key): the first encrypts values in Redis, all decrypt; in the environment by a file alone",
        env="file",
    ),
    "buckets": Setting(
        None,
        optional(checks.buckets),
        "parts of a namespace by the hash of the key, a power of two; None: 1 on one server, 16 on a cluster",
    ),
    "max_key_bytes": Setting(1024, whole(1, 64 * 1024 - 1), "bytes of a key or tag at most"),
    "max_value_bytes": Setting(8 * 1024 * 1024, whole(1, 512 * 1024 * 1024), "bytes of an encoded value at most"),
    "announce": Setting(
        False,  # noqa: FBT003  # a default, not an argument
        checks.boolean,
        "whether this instance tells `nearcache top` of itself, by a small value in Redis that soon expires",
    ),
    "on_reconnect": Setting(
        "prove",
        checks.one_of("prove", "flush"),
        "what L1 does when the bus is back: stay if nothing was missed, or drop all",
    ),
}
"""By name, in the order of the docs. To add one: a row here, a field of Settings and a line of SettingsOptions."""


class SettingsOptions(TypedDict, total=False):
    """Every setting as an optional keyword."""

    namespace: str
    ttl: Ttl
    l1_ttl: Duration | None
    l1_max_entries: int
    l1_max_bytes: int | None
    eviction: Literal["lru", "s3fifo"]
    l1_share: float
    audit_fraction: float
    jitter: float
    negative_ttl: Duration | None
    stale_while_revalidate: Duration
    stale_if_error: Duration
    stale_backoff: Duration
    early_refresh: float | None
    xfetch_beta: float | None
    loader_soft_timeout: Duration | None
    loader_hard_timeout: Duration | None
    lease: Duration
    wait_timeout: Duration | None
    max_concurrent_loads: int
    outage_ttl: Duration | None
    max_staleness: Duration
    redis_timeout: Duration
    redis_connect_timeout: Duration
    max_connections: int
    retries: int
    breaker_failures: int
    breaker_reset: Duration
    reconnect_max: Duration
    on_unavailable: Literal["degrade", "raise"]
    journal_max: int
    copy: Literal["auto", "none", "serialized"]
    codec: Codec
    compress: Literal["zstd"] | None
    compress_min_bytes: int
    encryption_keys: Sequence[tuple[str, bytes]] | KeyRing | None
    buckets: int | None
    max_key_bytes: int
    max_value_bytes: int
    announce: bool
    on_reconnect: Literal["prove", "flush"]


@dataclass(frozen=True, slots=True, init=False)
class Settings:
    """All settings of a cache, frozen; durations are float seconds inside, whatever came in.

    Args:
        **given: any of the fields below; what is absent has its default.

    Raises:
        ConfigError: for an unknown name, a value out of its range, or two settings that contradict each other.

    >>> Settings(ttl=60).ttl
    60.0
    >>> Settings(ttl=-1)
    Traceback (most recent call last):
    nearcache.errors.ConfigError: ttl=-1: must be more than 0 seconds and at most 10 years
    """

    namespace: str
    ttl: float | Callable[[Any], Duration]
    l1_ttl: float | None
    l1_max_entries: int
    l1_max_bytes: int | None
    eviction: Literal["lru", "s3fifo"]
    l1_share: float
    audit_fraction: float
    jitter: float
    negative_ttl: float | None
    stale_while_revalidate: float
    stale_if_error: float
    stale_backoff: float
    early_refresh: float | None
    xfetch_beta: float | None
    loader_soft_timeout: float | None
    loader_hard_timeout: float | None
    lease: float
    wait_timeout: float | None
    max_concurrent_loads: int
    outage_ttl: float | None
    max_staleness: float
    redis_timeout: float
    redis_connect_timeout: float
    max_connections: int
    retries: int
    breaker_failures: int
    breaker_reset: float
    reconnect_max: float
    on_unavailable: Literal["degrade", "raise"]
    journal_max: int
    copy: Literal["auto", "none", "serialized"]
    codec: Codec
    compress: Literal["zstd"] | None
    compress_min_bytes: int
    encryption_keys: KeyRing | None
    buckets: int | None
    max_key_bytes: int
    max_value_bytes: int
    announce: bool
    on_reconnect: Literal["prove", "flush"]

    def __init__(self, **given: Unpack[SettingsOptions]) -> None:
        chosen = cast("dict[str, Any]", given)
        reject_unknown(chosen, SETTINGS, "setting")
        for name, setting in SETTINGS.items():
            value = setting.check(name, chosen[name]) if name in chosen else setting.default
            object.__setattr__(self, name, value)
        if "codec" not in chosen:  # one of its own: types are registered with it
            object.__setattr__(self, "codec", MsgpackCodec())
        for clash in CLASHES:
            clash.resolve(self, chosen)

    @property
    def outage_life(self) -> float:
        """Seconds for which a value is kept that was loaded while Redis is away: never beyond max_staleness."""
        return self.max_staleness if self.outage_ttl is None else self.outage_ttl


Settings.__doc__ = f"{Settings.__doc__}\n    " + "\n    ".join(
    f"{name}: {setting.help} (default {setting.default!r})" for name, setting in SETTINGS.items()
)
