"""nearcache: a small TTL LRU in each process in front of a shared Redis or Valkey, kept coherent by invalidation."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from nearcache.aio import AsyncNearCache
from nearcache.current import Load, StaleValue, current_load
from nearcache.errors import (
    CacheClosed,
    CodecError,
    ConfigError,
    InvalidKey,
    LoaderTimeout,
    NearCacheError,
    NearCacheWarning,
    RemoteUnavailable,
    UncacheableArgument,
    ValueTooLarge,
    warn,
)
from nearcache.events import (
    Accepted,
    BreakerClosed,
    BreakerOpened,
    CoherenceFailed,
    Connected,
    CorruptValue,
    Disconnected,
    Drained,
    Event,
    Flushed,
    Journalled,
    LoadFailed,
    Refused,
    UnknownType,
)
from nearcache.interface import AsyncCache, Cache
from nearcache.protocol.codec import Codec, MsgpackCodec
from nearcache.settings import Settings
from nearcache.sync import NearCache

if TYPE_CHECKING:
    from nearcache.explanation import Explanation
    from nearcache.functions.wrapper import AsyncCachedFunction, CachedFunction
    from nearcache.health import Health
    from nearcache.stats import Stats

# The one place that says it: the build reads this line. Reading the installed package's metadata would cost its import
# (of importlib.metadata), and a source tree that is not installed has none.
__version__ = "0.2.0"

__all__ = [
    "Accepted",
    "AsyncCache",
    "AsyncCachedFunction",
    "AsyncNearCache",
    "BreakerClosed",
    "BreakerOpened",
    "Cache",
    "CacheClosed",
    "CachedFunction",
    "Codec",
    "CodecError",
    "CoherenceFailed",
    "ConfigError",
    "Connected",
    "CorruptValue",
    "Disconnected",
    "Drained",
    "Event",
    "Explanation",
    "Flushed",
    "Health",
    "InvalidKey",
    "Journalled",
    "Load",
    "LoadFailed",
    "LoaderTimeout",
    "MsgpackCodec",
    "NearCache",
    "NearCacheError",
    "NearCacheWarning",
    "Refused",
    "RemoteUnavailable",
    "Settings",
    "StaleValue",
    "Stats",
    "UncacheableArgument",
    "UnknownType",
    "ValueTooLarge",
    "current_load",
]

if not TYPE_CHECKING:  # for a type checker, it would make any name a name of this module
    _LATER = {
        "AsyncCachedFunction": "functions.wrapper",
        "CachedFunction": "functions.wrapper",
        "Explanation": "explanation",
        "Health": "health",
        "Stats": "stats",
    }
    """By module, the classes that few programs name, and that take their time to import."""

    def __getattr__(name):  # noqa: ANN001, ANN202  # as above
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "free-threading build" in sys.version:
    warn(
        "nearcache does not support free-threaded builds of Python yet: it was neither built nor tested for them, and "
        "its readers without a lock rest on the GIL; use a build with the GIL"
    )
