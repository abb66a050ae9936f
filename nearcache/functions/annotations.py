"""The return annotation of a function: its types are registered, and what no value can keep is told."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_args, get_origin, get_type_hints

from nearcache.errors import warn
from nearcache.functions.naming import Function, content_of, label_of
from nearcache.protocol.annotated import register_annotated
from nearcache.protocol.codec import Codec, MsgpackCodec
from nearcache.protocol.forms import written_annotations
from nearcache.protocol.registry import Types

_AWAITED = frozenset({Awaitable, Coroutine})


def register_returned(codec: Codec, fn: Function) -> None:
    """Register the types that a function is annotated to return, now or when their names are there.

    Raises:
        ConfigError: two classes would have one name.
    """
    if not isinstance(codec, MsgpackCodec):
        return  # it has to know its types itself
    annotated = _annotated(fn)
    written = written_annotations(annotated).get("return", Any)
    if written is Any:
        return
    if not _register(codec.types, annotated, written):
        codec.types.waiting.append(_later(codec.types, annotated, written))


def _annotated(fn: Any) -> Any:
    """What has the annotations of a function: itself, or what runs when an object is called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    has_own = inspect.isroutine(fn) or "__annotations__" in getattr(fn, "__dict__", ()) or hasattr(fn, "__wrapped__")
    return fn if has_own else type(fn).__call__


def _register(types: Types, fn: Any, written: object) -> bool:
    """Whether the annotation could be evaluated."""
    inner = inspect.unwrap(fn)
    code, cells = getattr(inner, "__code__", None), getattr(inner, "__closure__", None) or ()
    names: dict[str, Any] = dict(zip(getattr(code, "co_freevars", ()), map(content_of, cells), strict=True))
    try:
        annotation = get_type_hints(_Written(written), getattr(inner, "__globals__", {}), names, include_extras=True)[
            "return"
        ]
    except Exception:  # noqa: BLE001  # it may be anything
        return False
    if get_origin(annotation) in _AWAITED and not inspect.iscoroutinefunction(inner):
        annotation = get_args(annotation)[-1]
    problem = register_annotated(types, annotation, names)
    if problem is not None:
        warn(f"{label_of(fn)} is annotated to return what cannot be cached, and is called each time: {problem}")
    return True


def _later(types: Types, fn: Any, written: object) -> Callable[[], bool]:
    """Tries again, while there is the function."""
    found = weakref.ref(fn)

    def register() -> bool:
        here = found()
        return here is None or _register(types, here, written)

    return register


class _Written:
    """An object with this annotation, for `typing.get_type_hints`."""

    def __init__(self, written: object) -> None:
        self.__annotations__ = {"return": written}
