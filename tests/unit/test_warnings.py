"""Warnings: they point at the line of the user's program, whichever way through the package led to them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nearcache import AsyncNearCache, NearCache, NearCacheWarning
from nearcache.errors import warn


@pytest.mark.parametrize("depth", [1, 3])
def test_a_warning_names_the_caller_of_the_package(depth: int) -> None:
    """File and line are those of the first frame outside of nearcache."""
    call: Callable[[], Any] = partial(warn, "mend it")
    for _ in range(depth):
        inside: dict[str, Any] = {"__name__": "nearcache.somewhere", "call": call}
        exec("def way(): return call()", inside)
        call = inside["way"]
    frame = inspect.currentframe()
    assert frame is not None
    with pytest.warns(NearCacheWarning, match="mend it") as caught:
        call()
    assert (caught[0].filename, caught[0].lineno) == (__file__, frame.f_lineno - 1)


def test_a_warning_is_shown_once_per_place() -> None:
    """Python's default filter shows a text once for each line, and again at another line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("mend it")
        warn("mend it")
    assert len(caught) == 2


@pytest.mark.parametrize("kind", [NearCache, AsyncNearCache])
def test_the_default_namespace_on_a_server_is_told(kind: type[NearCache | AsyncNearCache]) -> None:
    """Another application that names none either shares keys; it is told with what to do, and without the password."""
    with pytest.warns(NearCacheWarning, match=r"namespace='nearcache' is the default.*name it") as caught:
        kind.from_url("redis://app:pa55@cache.invalid:6379/0")
    assert "pa55" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind.from_url("redis://cache.invalid:6379/0", namespace="shop")
        kind.from_url("memory://")
