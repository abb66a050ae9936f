"""Which functions can be cached at all, and by which class."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from nearcache.functions.naming import label_of


def check_plain(fn: Callable[..., object]) -> None:
    """Refuse what NearCache cannot cache.

    Raises:
        TypeError: it is a coroutine function, a generator function, or no function.
    """
    _check_callable(fn)
    if _is_coroutine_function(fn):
        raise TypeError(f"{label_of(fn)} is a coroutine function: NearCache caches plain ones; use AsyncNearCache")


def check_coroutine(fn: Callable[..., object]) -> None:
    """Refuse what AsyncNearCache cannot cache.

    Raises:
        TypeError: it is a plain function, a generator function, or no function.
    """
    _check_callable(fn)
    if not _is_coroutine_function(fn):
        raise TypeError(f"{label_of(fn)} is a plain function: AsyncNearCache caches those of async def; use NearCache")


def _check_callable(fn: object) -> None:
    if not callable(fn):
        raise TypeError(
            f"cached({fn!r}): must be a function, a key template or nothing, as in @cached, @cached(ttl=60) and "
            "@cached('user:{id}', ttl=60)"
        )
    if any(inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in _forms(fn)):
        raise TypeError(f"{label_of(fn)} is a generator function: what it yields can be had once; return a list")


def _is_coroutine_function(fn: Callable[..., object]) -> bool:
    return any(map(inspect.iscoroutinefunction, _forms(fn)))


def _forms(fn: Callable[..., object]) -> tuple[object, object]:
    """Itself, and what runs when it is an object that is called."""
    return fn, type(fn).__call__
