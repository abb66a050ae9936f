"""Rare facts to the standard library's logger "nearcache", by structlog; silent until the application asks.

The logger is made here, and structlog's global configuration is neither read nor changed: unconfigured, structlog would
print to stdout.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
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
    Journalled,
    LoadFailed,
    Refused,
    StaleFound,
    UnknownType,
)
from nearcache.findings import Finding

_stdlib = logging.getLogger("nearcache")
_stdlib.addHandler(logging.NullHandler())
_render_pairs = structlog.processors.KeyValueRenderer(key_order=["event"])


def _render(logger: Any, name: str, event: Any) -> str:
    """A line that names the library, since not every format of the application's has the logger's name."""
    return f"nearcache: {_render_pairs(logger, name, event)}"


_logger: Any = structlog.wrap_logger(
    _stdlib,
    processors=[
        structlog.stdlib.filter_by_level,
        _render,
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
    Journalled: "warning",
    Drained: "info",
    CorruptValue: "warning",
    UnknownType: "warning",
    LoadFailed: "warning",
    StaleFound: "error",
    CoherenceFailed: "error",
}
"""What is logged: a change of state each, never a line per call."""


class Log:
    """The listener that logs the events of one cache.

    Args:
        namespace: of the cache, which each line names.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._journalling = False
        """Whether a write waits for its replay: of all that wait, the first is logged."""

    def __call__(self, event: Event) -> None:
        """Log an event."""
        if isinstance(event, Journalled):
            if self._journalling:
                return
            self._journalling = True
        elif isinstance(event, Drained) and not event.left:
            self._journalling = False
        level = _LEVELS.get(type(event))
        if level is not None and not (isinstance(event, LoadFailed) and event.repeated):
            fields = {name: value for name, value in vars(event).items() if name not in ("error", "repeated")}
            words = re.sub(r"(?<=.)([A-Z])", r" \1", type(event).__name__).lower()
            getattr(_logger, level)(words, namespace=self._namespace, **fields)

    def advise(self, findings: Iterable[Finding], before: set[str]) -> None:
        """Log the findings of each kind once, but for errors, of which events tell.

        Args:
            findings: those of now.
            before: the kinds that were logged; the new ones are added.
        """
        for finding in findings:
            if finding.level != "error" and finding.kind not in before:
                before.add(finding.kind)
                level = "info" if finding.level == "note" else "warning"
                said = {"detail": finding.detail, "todo": finding.todo, "page": finding.anchor}
                getattr(_logger, level)(finding.kind, namespace=self._namespace, **said)
