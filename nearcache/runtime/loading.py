"""Which loaders the present code runs inside, kept in a context variable."""

from __future__ import annotations

from contextvars import ContextVar

LOADING: ContextVar[tuple[object, ...]] = ContextVar("nearcache-loading", default=())
"""Inside a loader, the callers on whose behalf it runs; what it starts with a copy of its context inherits them."""
