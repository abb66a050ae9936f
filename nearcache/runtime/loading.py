"""The callers of the loaders that the present code runs inside, in a context variable."""

from __future__ import annotations

from contextvars import ContextVar

LOADING: ContextVar[tuple[object, ...]] = ContextVar("nearcache-loading", default=())
"""Inside a loader, the callers on whose behalf it runs; threads and tasks with a copy of its context inherit them."""
