"""Which functions have a name that tells them from all others, and from call to call all that matters."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Sequence
from typing import NoReturn

from nearcache.functions.parameters import Function


def refuse_nameless(fn: Function, label: str, counted: Sequence[str]) -> None:
    """Without a template the name must tell the function from every other, and the arguments one call from another."""
    owner = getattr(fn, "__self__", None)
    captured = _captured(fn)
    if not isinstance(getattr(fn, "__qualname__", None), str) or not isinstance(fn.__module__, str):
        _refuse(label, "it has no name of its own (a functools.partial, or an object that can be called)")
    if fn.__name__ == "<lambda>":
        _refuse(label, "every lambda has this name")
    if owner is not None and not isinstance(owner, types.ModuleType):
        _refuse(label, "it is bound to an object, which the key would not show")
    if captured:
        _refuse(label, f"it captures variables ({', '.join(captured)}), which the key would not show")
    if counted and counted[0] in {"self", "cls"}:
        _refuse(label, f"it is a method; ignore=({counted[0]!r},) if all objects may share its values")


def _refuse(label: str, reason: str) -> NoReturn:
    raise TypeError(f"{label} needs a key template, as in cached('name:{{parameter}}'): {reason}")


def _captured(fn: Function) -> list[str]:
    """The variables that a function, or one that it wraps, has from around it; ``__class__`` is there for super()."""
    names: list[str] = []
    inner: object = fn
    while inner is not None:
        if getattr(inner, "__closure__", None):
            names += (name for name in inner.__code__.co_freevars if name != "__class__")  # type: ignore[attr-defined]
        inner = getattr(inner, "__wrapped__", None)
    return names


def warn_of_main(fn: Function, label: str) -> None:
    """Warn of the one module that every script has."""
    if fn.__module__ != "__main__":
        return
    code = getattr(inspect.unwrap(fn), "__code__", None)
    warnings.warn_explicit(
        f"{label}: the module __main__ is part of its keys, and a function of that name in any other script has the "
        "same keys; move it to a module that is imported, or give a key template",
        UserWarning,
        # The function's own line: how deep the decorator's frames are does not matter.
        code.co_filename if code else "<unknown>",
        code.co_firstlineno if code else 1,
        module="__main__",
    )
