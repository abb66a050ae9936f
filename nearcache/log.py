"""Rare facts to the standard library's logger "nearcache", by structlog; silent until the application asks.

The logger is made here, and structlog's global configuration is neither read nor changed: unconfigured, structlog would
print to stdout.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog

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
    LoadFailed,
    Refused,
)

_stdlib = logging.getLogger("nearcache")
_stdlib.addHandler(logging.NullHandler())
_logger: Any = structlog.wrap_logger(
    _stdlib,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)

_LEVELS: dict[type[Event], str] = {
    Connected: "info",
    Disconnected: "warning",
    Flushed: "info",
    BreakerOpened: "warning",
    BreakerClosed: "info",
    Refused: "warning",
    Accepted: "info",
    Drained: "info",
    CorruptValue: "warning",
    LoadFailed: "warning",
    CoherenceFailed: "error",
}
"""What is logged: a change of state each, never a line per call."""


def log(namespace: str, event: Event) -> None:
    """Log an event, if it is one of those."""
    level = _LEVELS.get(type(event))
    if level is not None:
        words = re.sub(r"(?<=.)([A-Z])", r" \1", type(event).__name__).lower()
        getattr(_logger, level)(words, namespace=namespace, **vars(event))
