"""The name of a function in keys and messages, and which functions have one that tells them from all others."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from nearcache.errors import warn
from nearcache.protocol.forms import MAIN, module_of

Function: TypeAlias = Callable[..., object]


def label_of(fn: Function) -> str:
    """What keys and messages call a function: its module and qualified name where it has them."""
    name = getattr(fn, "__qualname__", None)
    return f"{module_of(fn)}.{name}" if isinstance(name, str) else repr(fn)


def refuse_nameless(fn: Function, label: str, counted: Sequence[str]) -> None:
    """Without a template the name must tell the function from every other, and the arguments one call from another."""
    owner = getattr(fn, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        _refuse(label, "it is bound to an object, which the key would not show")
    if not isinstance(fn, types.FunctionType | types.BuiltinFunctionType):
        _refuse(label, f"it is no plain function but a {type(fn).__qualname__}, whose name may be another's too")
    if fn.__name__ == "<lambda>":
        _refuse(label, "every lambda has this name")
    captured = captured_by(fn)
    if captured:
        names = ", ".join(name for name, _ in captured)
        _refuse(label, f"it captures variables ({names}), which the key would not show")
    if counted and counted[0] in {"self", "cls"}:
        _refuse(label, f"it is a method; ignore=({counted[0]!r},) if all objects may share its values")
    if module_of(fn) in MAIN:
        warn(
            f"{label}: the module __main__ is part of its keys, and a function of that name in any other session has "
            "the same keys; move it to a module that is imported, or give a key template"
        )


def _refuse(label: str, reason: str) -> NoReturn:
    raise TypeError(f"{label} needs a key template, as in cached('name:{{parameter}}'): {reason}")


def captured_by(fn: Function) -> list[tuple[str, Any]]:
    """The variables that a function, or one that it wraps, has from around it, by name.

    Without ``__class__``, which is there for super(), and without the function that a decorator wraps.
    """
    found: list[tuple[str, Any]] = []
    inner: Any = fn
    while inner is not None:
        wrapped = getattr(inner, "__wrapped__", None)
        if inspect.isfunction(inner):
            for name, value in zip(inner.__code__.co_freevars, map(content_of, inner.__closure__ or ()), strict=True):
                if name != "__class__" and (wrapped is None or value is not wrapped):
                    found.append((name, value))
        inner = wrapped
    return found


def content_of(cell: types.CellType) -> Any:
    """What a variable of a closure is; None while it has not been set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
